"""A chat completion's body → what the model said."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slurm_bench.scorers.usage import usage_of


@dataclass(frozen=True)
class Answer:
    """What the model said ("" if nothing), and how it came to its end: `cut_by` a limit of "tokens", by a "filter", or
    "" if it is whole. `thought` says that it thought first, apart from `text`; `refused` that `text` is a refusal.

    `candidates` are the first token's, as (token, probability), and `first` is the one that was taken; None where the
    server gave no log probabilities.
    """

    text: str
    cut_by: str = ""
    thought: bool = False
    refused: bool = False
    first: str = ""
    candidates: tuple[tuple[str, float], ...] | None = None
    info: Mapping[str, Any] = field(default_factory=dict)


def read_answer(completion: Any) -> Answer:
    """Raises what a body of another shape raises: KeyError, IndexError, TypeError, ValueError or AttributeError."""
    choice = completion["choices"][0]
    message = choice["message"]
    text, thought = _text(message.get("content"))
    refusal = message.get("refusal") if not text else None
    thought = thought or bool(message.get("reasoning_content") or message.get("reasoning"))
    first, candidates = _first_token(choice.get("logprobs"))
    return Answer(
        text=_printable(text or _string(refusal)),
        cut_by=_cut_by(_string(choice.get("finish_reason")).lower()),
        thought=thought,
        refused=bool(refusal),
        first=first,
        candidates=candidates,
        info=usage_of(completion),
    )


def _text(content: Any) -> tuple[str, bool]:
    """Content as a text, or as parts, of which some may be thoughts (Mistral)."""
    if not isinstance(content, list):
        return _string(content), False
    texts = [_string(part["text"]) for part in content if part["type"] == "text"]
    return "".join(texts), any(part["type"] in ("thinking", "reasoning") for part in content)


def _cut_by(finish_reason: str) -> str:
    """OpenAI's names, and Gemini's, Mistral's and Zhipu's, which other servers pass on."""
    if finish_reason in ("length", "max_tokens", "model_length"):
        return "tokens"
    filters = ("content_filter", "safety", "recitation", "prohibited_content", "blocklist", "sensitive")
    return "filter" if finish_reason.startswith(filters) else ""


def _string(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError
    return value or ""


def _printable(text: str) -> str:
    """Without lone surrogates, which no file can hold."""
    return text.encode("utf-8", "replace").decode()


def _first_token(logprobs: Any) -> tuple[str, tuple[tuple[str, float], ...] | None]:
    if not logprobs or not logprobs.get("content"):
        return "", None
    first = logprobs["content"][0]
    candidates = tuple((_string(one["token"]), _probability(one["logprob"])) for one in first["top_logprobs"])
    return _string(first["token"]), candidates or None


def _probability(logarithm: float) -> float:
    if math.isnan(logarithm):
        raise ValueError("a log probability is NaN")
    return math.exp(min(0.0, logarithm))
