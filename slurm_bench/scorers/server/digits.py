"""A server's answer of one digit → its probabilities, or why its first token is no answer."""

from __future__ import annotations

from slurm_bench.scorers.judge.expectation import DigitAnswer
from slurm_bench.scorers.judge.parse import opens_thinking
from slurm_bench.scorers.judge.prompt import DIGITS
from slurm_bench.scorers.server.answer import Answer

# The second token tells an answer from the beginning of a thought ("1. The image …") or of another number ("10").
REQUEST = {"max_tokens": 2, "logprobs": True, "top_logprobs": 20}

_THINKS = (
    "the model thinks before it answers, so its first token is no answer; turn its thinking off (vLLM and SGLang: "
    "params.extra={chat_template_kwargs: {enable_thinking: false}}), or take params.mode=generate"
)
_NO_PROBABILITIES = "the server gives no log probabilities, which params.mode=expected needs; take params.mode=generate"


class Unsuited(Exception):
    """The server or the model can't be asked for one digit: true of every sample."""


def digit_answer(aspect: str, answer: Answer) -> DigitAnswer:
    """Raises Unsuited."""
    probabilities = dict.fromkeys(DIGITS, 0.0)
    for token, probability in answer.candidates or ():
        if token.strip() in probabilities:
            probabilities[token.strip()] += probability
    return DigitAnswer(aspect, probabilities, answer.text, _unusable(answer))


def _unusable(answer: Answer) -> str | None:
    said = answer.text.strip()
    if answer.cut_by == "filter":
        return "the server's content filter stopped the answer"
    if answer.refused:
        return "the judge refused to answer"
    if answer.thought or opens_thinking(said) or (not said and answer.candidates and answer.cut_by == "tokens"):
        raise Unsuited(_THINKS)
    if not said:
        return "the judge said nothing"
    if answer.candidates is None:
        raise Unsuited(_NO_PROBABILITIES)
    if not said.startswith(answer.first.strip()):
        return f"the first token is {answer.first!r}, and the answer begins otherwise: {said[:20]!r}"
    if said[0] in DIGITS and len(said) > 1:
        return f"the judge goes on after its first digit: {said[:20]!r}"
    return None
