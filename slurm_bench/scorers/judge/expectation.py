"""From the probabilities of a judge's first token to a score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slurm_bench.scorers.base import Scored
from slurm_bench.scorers.judge.parse import Unreadable
from slurm_bench.scorers.judge.prompt import DIGIT_SCORES


@dataclass(frozen=True)
class DigitAnswer:
    """One aspect's answer: the probabilities of the digits 0 to 9 as the first token, out of the whole vocabulary,
    and what the judge would most likely say. `unusable` says why that token isn't an answer, if it isn't."""

    aspect: str
    probabilities: Mapping[str, float]
    likeliest: str
    unusable: str | None = None

    @property
    def mass(self) -> float:
        """How much of the probability is on digits."""
        return math.fsum(self.probabilities.values())


def expected(answers: Sequence[DigitAnswer], aspects: Sequence[str], min_mass: float) -> Scored:
    """The expectation of each aspect, in the order of `aspects` whatever that of the answers, with the mass in
    `info`; if one aspect has none, no score at all."""
    by_aspect = {answer.aspect: answer for answer in answers}
    ordered = [by_aspect[aspect] for aspect in aspects]
    scores: dict[str, float] = {}
    reasons = []
    for answer in ordered:
        try:
            if answer.unusable:
                raise Unreadable(answer.unusable)
            scores[answer.aspect] = expectation(answer.probabilities, min_mass)
        except Unreadable as why:
            reasons.append(f"{answer.aspect}: {why}")
    mass = {answer.aspect: round(answer.mass, 6) for answer in ordered}
    raw = "\n".join(f"{answer.aspect}: {answer.likeliest}" for answer in ordered)
    return Scored({} if reasons else scores, raw, "; ".join(reasons) or "ok", {"mass": mass})


def expectation(probabilities: Mapping[str, float], min_mass: float) -> float:
    """The expected score, 0 to 10, each digit counting as what `DIGIT_SCORES` says.

    Raises Unreadable where the mass is under `min_mass`: a judge that would rather have said something else gave
    no score.
    """
    mass = math.fsum(probabilities.values())
    if not mass > 0 or mass < min_mass:
        raise Unreadable(f"the digits have {mass:.4f} of the probability, under min_mass {min_mass}")
    mean = math.fsum(DIGIT_SCORES[digit] * p for digit, p in probabilities.items()) / mass
    return min(max(mean, DIGIT_SCORES["0"]), DIGIT_SCORES["9"])
