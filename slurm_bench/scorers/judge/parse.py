"""From what a judge writes to numbers, or to the reason why there are none. Nothing is ever guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slurm_bench.scorers.base import Scored
from slurm_bench.scorers.judge.prompt import SCORE_RANGE

# How models mark their thinking in a text: Qwen, GLM and others; Mistral; Kimi-VL.
_THINKING = r"<{0}(?:think|thinking|thought|reasoning)>|\[{0}THINK\]|◁{0}think▷"
_OPENED = re.compile(_THINKING.format(""))
_CLOSED = re.compile(_THINKING.format("/"))

# What may stand behind the last object without changing its meaning: Markdown, a full stop, closing tags, end tokens.
_AFTER = re.compile(r"[\s*`]*[.。]?[\s*`]*(?:(?:</\w+>|<\|\w+\|>)\s*)*")

# The form that was asked for, echoed: an object whose values are placeholders, such as <number>, without a digit. Each
# stretch of spaces has one place in it: where it had two, a form without its end was tried in 2^n ways.
_PLACEHOLDER = r"(?:<[^<>{}\d]*>|\.\.\.|…)"
_ECHO = re.compile(rf'\{{\s*(?:"[^"{{}}]*"\s*:\s*"?{_PLACEHOLDER}"?\s*(?:,\s*)?)+\}}')

# Not strict: reasons may run over several lines.
_DECODER = json.JSONDecoder(object_pairs_hook=lambda pairs: _Pairs(pairs), strict=False)

# Each opening brace may cost a scan to the text's end; a judge has no use for so many.
_MOST_BRACES = 200


class Unreadable(Exception):
    """Why no score can be read from a reply."""


class _Pairs(tuple[tuple[str, Any], ...]):
    """An object's keys and values in order, repeated keys included."""


@dataclass(frozen=True)
class Reply:
    """What a judge wrote. `cut_short` says why it isn't whole (a token limit, a filter): such a reply is never read,
    and asking again in the same way would end in the same way. `refused` says that the judge, or a filter before it,
    won't judge this; `info` what the answer cost and who gave it."""

    text: str
    cut_short: str | None = None
    refused: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)


def scored(reply: Reply | str, aspects: Sequence[str]) -> Scored:
    """The reply as a result: scores, or none and why."""
    reply = Reply(reply) if isinstance(reply, str) else reply
    try:
        if reply.cut_short:
            raise Unreadable(reply.cut_short)
        if reply.refused:
            raise Unreadable("the judge refused to answer")
        return Scored(read_scores(reply.text, aspects), raw=reply.text)
    except Unreadable as why:
        return Scored({}, raw=reply.text, parse=str(why))


def read_scores(text: str, aspects: Sequence[str]) -> dict[str, float]:
    """The one format that counts: the text ends in a JSON object with `aspects` as keys and numbers in the score
    range as values. Beside them it may hold reasons as texts; around it may stand Markdown and a full stop.
    Raises Unreadable.

    A text with several such objects is read only if they agree: a judge that contradicts itself gave no score.
    """
    scores = read_object(text, aspects)
    return {aspect: _number(scores, aspect) for aspect in aspects}


def read_object(text: str, aspects: Sequence[str]) -> dict[str, Any]:
    """What the JSON object that the text ends in has under each of `aspects`, whatever it is. Raises Unreadable."""
    said = _ECHO.sub(lambda echo: " " * len(echo.group()), after_thinking(text))
    verdicts = [(end, scores) for end, found in _objects(said, aspects) if (scores := _verdict(found, aspects))]
    if not verdicts:
        raise Unreadable(f"no JSON object with {', '.join(aspects)} in the reply")
    end, scores = verdicts[-1]
    if not _AFTER.fullmatch(said, end):
        raise Unreadable("the reply goes on after its JSON object")
    if any(other != scores for _, other in verdicts):
        raise Unreadable("the reply contradicts itself: two JSON objects with different scores")
    return scores


def after_thinking(text: str) -> str:
    """A judge may think aloud first; what counts is what it says then. Raises Unreadable if it only thinks."""
    closed = list(_CLOSED.finditer(text))
    rest = text[closed[-1].end() :] if closed else text
    if _OPENED.search(rest):
        raise Unreadable("the reply ends within the judge's thinking")
    return rest


def opens_thinking(prompt: str) -> bool:
    """Whether a prompt ends in an opened thought, as the chat templates of some thinking models do."""
    opened = list(_OPENED.finditer(prompt))
    return bool(opened) and not prompt[opened[-1].end() :].strip()


def _objects(text: str, aspects: Sequence[str]) -> Iterator[tuple[int, _Pairs]]:
    """The JSON objects in a text that aren't within another, each with where it ends.

    Raises Unreadable for braces that name an aspect and aren't JSON: they may have been a verdict.
    """
    at = text.find("{")
    for _ in range(_MOST_BRACES):
        if at < 0:
            return
        try:
            found, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            inside = re.compile(r"[^{}]*").match(text, at + 1)
            if inside and any(f'"{aspect}"' in inside.group() for aspect in aspects):
                raise Unreadable("the scores are not valid JSON") from None
            end = at + 1
        else:
            yield end, found
        at = text.find("{", end)
    raise Unreadable("the reply has too many braces")


def _verdict(found: _Pairs, aspects: Sequence[str]) -> dict[str, Any] | None:
    """The values of `aspects` if the object is one about scores (it has any of them); None for another object."""
    names = [name for name, _ in found]
    if not set(names) & set(aspects):
        return None
    if any(names.count(aspect) > 1 for aspect in aspects):
        raise Unreadable("a score is given twice in one JSON object")
    values = dict(found)
    beside = [name for name, value in values.items() if name not in aspects and not _is_reason(value)]
    missing = [aspect for aspect in aspects if aspect not in values]
    if missing or beside:
        raise Unreadable(f"the JSON object has {', '.join(names)[:200]}, not {', '.join(aspects)}")
    return {aspect: _value(values[aspect]) for aspect in aspects}


def _value(value: Any) -> Any:
    """The number of {"score": 7, "reason": "…"}; any other value as it is."""
    if isinstance(value, _Pairs):
        inner = dict(value)
        beside = [name for name, one in inner.items() if name != "score" and not _is_reason(one)]
        if "score" in inner and not beside and len(inner) == len(value):
            return inner["score"]
    return value


def _is_reason(value: Any) -> bool:
    """Words, and no number in their place that could be meant for a score."""
    if isinstance(value, list):
        return all(_is_reason(one) for one in value)
    return isinstance(value, str) and not re.fullmatch(r"[\s\d.,/%+-]*\d[\s\d.,/%+-]*", value)


def _number(scores: Mapping[str, Any], aspect: str) -> float:
    value = scores[aspect]
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise Unreadable(f"{aspect} is {str(value)[:40]!r}, not a number")
    low, high = SCORE_RANGE
    if not low <= value <= high:
        raise Unreadable(f"{aspect} is {str(value)[:40]}, out of {low} to {high}")
    return float(value)
