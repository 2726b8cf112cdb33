"""From what a judge says to numbers, or to the reason why there are none. Nothing is ever guessed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slurm_bench.scorers.base import Scored
from slurm_bench.scorers.judge.prompt import SCORE_RANGE

_FLAT_OBJECT = re.compile(r"\{[^{}]*\}")
_AFTER = re.compile(r"\s*(```\s*)?")


# How a judge is asked: for the probabilities of its first token, or for a text.
MODES = ("expected", "generate")


class Unreadable(Exception):
    """Why no score can be read from a reply."""


def read_scores(reply: str, aspects: Sequence[str]) -> dict[str, float]:
    """The one format that counts: the reply ends in a JSON object with exactly `aspects` as keys and numbers
    in the score range as values, in a code fence or not. Raises Unreadable.

    A reply with several such objects is read only if they agree: who contradicts himself gave no score.
    """
    said = _after_thinking(reply)
    found = [(match, _object(match.group(), aspects)) for match in _FLAT_OBJECT.finditer(said)]
    verdicts = [(match, values) for match, values in found if values is not None]
    if not verdicts:
        raise Unreadable(f"no JSON object with {', '.join(aspects)} in the reply")
    last, scores = verdicts[-1]
    if not _AFTER.fullmatch(said, last.end()):
        raise Unreadable("the reply goes on after its JSON object")
    checked = {aspect: _number(scores, aspect) for aspect in aspects}
    if any(values != scores for _, values in verdicts):
        raise Unreadable("the reply contradicts itself: two JSON objects with different scores")
    return checked


def expectation(probabilities: Mapping[str, float], min_mass: float) -> float:
    """The expected score on 0 to 10.

    `probabilities` are those of the digits 0 to 9 as the next token, out of the whole vocabulary; the scale
    0 to 9 is stretched to 0 to 10. Raises Unreadable where the mass is under `min_mass`: a judge that would
    rather have said something else gave no score.
    """
    mass = math.fsum(probabilities.values())
    if not mass > 0 or mass < min_mass:
        raise Unreadable(f"the digits have {mass:.4f} of the probability, under min_mass {min_mass}")
    mean = math.fsum(int(digit) * p for digit, p in probabilities.items()) / mass
    return min(max(mean * SCORE_RANGE[1] / 9, SCORE_RANGE[0]), SCORE_RANGE[1])


@dataclass(frozen=True)
class Digits:
    """One aspect's answer: the probabilities of the digits 0 to 9, and what the judge would most likely say."""

    aspect: str
    probabilities: Mapping[str, float]
    likeliest: str


def expected(answers: Sequence[Digits], min_mass: float) -> Scored:
    """`expectation` of each aspect as a result, with the mass in `info`; if one has none, no score at all."""
    scores: dict[str, float] = {}
    reasons = []
    for answer in answers:
        try:
            scores[answer.aspect] = expectation(answer.probabilities, min_mass)
        except Unreadable as why:
            reasons.append(f"{answer.aspect}: {why}")
    mass = {answer.aspect: round(math.fsum(answer.probabilities.values()), 6) for answer in answers}
    raw = "\n".join(f"{answer.aspect}: {answer.likeliest}" for answer in answers)
    return Scored({} if reasons else scores, raw, "; ".join(reasons) or "ok", {"mass": mass})


def scored(reply: str, aspects: Sequence[str]) -> Scored:
    """`read_scores` as a result: scores, or none and why."""
    try:
        return Scored(read_scores(reply, aspects), raw=reply)
    except Unreadable as why:
        return Scored({}, raw=reply, parse=str(why))


def _after_thinking(reply: str) -> str:
    """A judge may think aloud first; what counts is what it says then."""
    _, closed, rest = reply.rpartition("</think>")
    if not closed and "<think>" in reply:
        raise Unreadable("the reply ends within the judge's thinking")
    return rest


def _object(text: str, aspects: Sequence[str]) -> dict[str, Any] | None:
    """The object if it is one about scores (it has any of `aspects`); None for other braces in the reply."""
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        if any(f'"{aspect}"' in text for aspect in aspects):
            raise Unreadable("the scores are not valid JSON") from None
        return None
    names = [name for name, _ in pairs]
    if not set(names) & set(aspects):
        return None
    if len(set(names)) != len(names):
        raise Unreadable("a score is given twice in one JSON object")
    if set(names) != set(aspects):
        raise Unreadable(f"the JSON object has {', '.join(names)}, not {', '.join(aspects)}")
    return dict(pairs)


def _number(scores: Mapping[str, Any], aspect: str) -> float:
    value = scores[aspect]
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise Unreadable(f"{aspect} is {str(value)[:40]!r}, not a number")
    low, high = SCORE_RANGE
    if not low <= value <= high:
        raise Unreadable(f"{aspect} is {str(value)[:40]}, out of {low} to {high}")
    return float(value)
