"""Strengths from judgements of pairs, ties allowed: Davidson's model (1970, JASA 65), which is Bradley and Terry's with
a chance of a tie. Pure, and the same for the same numbers.

P(a wins) ∝ e^θa, P(b wins) ∝ e^θb, P(tie) ∝ 2ν e^((θa+θb)/2): one θ a run, one ν a dimension (what is judged). Its
likelihood has the penalty ½ Σθ², so that a run that never lost has a strength too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from slurm_bench.report.intervals import CONFIDENCE, FEW

if TYPE_CHECKING:
    import numpy as np

PENALTY = 1.0
ELO_MEAN, ELO_SCALE = 1000.0, 400.0 / math.log(10)
LOG_NU = (-12.0, 8.0)  # without a tie, or with ties alone, ν would run away
RESAMPLES = 200
MOST_STEPS, LARGEST_STEP, CLOSE = 60, 1.0, 1e-6  # of Newton's method

WIN, TIE, LOSS = "win", "tie", "loss"  # of the pair's first


@dataclass(frozen=True)
class Judged:
    """What was found of two runs, by their numbers, `first` the lower, on one unit (a source image and its samples)."""

    unit: int
    dimension: int
    first: int
    second: int
    outcome: str


@dataclass(frozen=True)
class Strength:
    """On the scale of Elo: 400 more are ten times the chance to win. None for a run that was judged against no other;
    `too_few` marks an interval of too few units."""

    elo: float | None
    ci_low: float | None = None
    ci_high: float | None = None
    too_few: bool = False


def strengths(judged: Sequence[Judged], runs: int, resamples: int = RESAMPLES) -> tuple[list[Strength], list[float]]:
    """The strength of each run, with its 95 % interval by resampling units; and each dimension's ν. Dimensions count
    alike, however many judgements each has."""
    import numpy as np

    numbers: dict[int, int] = {}  # a part of the judgements is over its own units
    for one in judged:
        numbers.setdefault(one.unit, len(numbers))
    units, dimensions = len(numbers), 1 + max((one.dimension for one in judged), default=-1)
    pairs = {pair: n for n, pair in enumerate(combinations(range(runs), 2))}
    counts = np.zeros((units, dimensions, len(pairs), 3))
    for one in judged:
        place = (numbers[one.unit], one.dimension, pairs[one.first, one.second], (WIN, TIE, LOSS).index(one.outcome))
        counts[place] += 1
    features = _features(list(pairs), runs, dimensions)
    (fitted,) = _fit(counts.sum(axis=0)[None], features, runs, np.zeros(runs + dimensions))
    met = {run for one in judged for run in (one.first, one.second)}
    low, high = _interval(counts, features, runs, fitted, resamples)
    found = [
        Strength(_elo(fitted[run]), low[run], high[run], units < FEW) if run in met else Strength(None)
        for run in range(runs)
    ]
    return found, [float(nu) for nu in np.exp(fitted[runs:])]


def _interval(
    counts: np.ndarray, features: np.ndarray, runs: int, fitted: np.ndarray, resamples: int
) -> tuple[list[float | None], list[float | None]]:
    """The middle 95 % of the strengths of so many benchmarks, each of as many units, drawn from those there are."""
    import numpy as np

    units = len(counts)
    if units < 2 or resamples < 1:
        return [None] * runs, [None] * runs
    drawn = np.random.default_rng(0).multinomial(units, np.full(units, 1 / units), size=resamples)
    fits = _fit(np.tensordot(drawn, counts, axes=1), features, runs, fitted)
    tails = (1 - CONFIDENCE) / 2
    low, high = np.quantile(fits[:, :runs], [tails, 1 - tails], axis=0)
    return [_elo(value) for value in low], [_elo(value) for value in high]


def _features(pairs: Sequence[tuple[int, int]], runs: int, dimensions: int) -> np.ndarray:
    """[dimension, pair, (win, tie, loss), parameter]: an outcome's log odds are these times (θ of each run, log ν of
    each dimension), less the log 2 of a tie."""
    import numpy as np

    found = np.zeros((dimensions, len(pairs), 3, runs + dimensions))
    for n, (first, second) in enumerate(pairs):
        found[:, n, :2, first] += (1, 0.5)
        found[:, n, 1:, second] += (0.5, 1)
    for dimension in range(dimensions):
        found[dimension, :, 1, runs + dimension] = 1
    return found


def _fit(counts: np.ndarray, features: np.ndarray, runs: int, begin: np.ndarray) -> np.ndarray:
    """(θ of each run, their mean 0, log ν of each dimension) for each of many benchmarks at once, by Newton's method:
    the likelihood is concave. `counts` is [benchmark, dimension, pair, (win, tie, loss)]."""
    import numpy as np

    totals = counts.sum(axis=(2, 3))
    usual = totals.sum(axis=1) / np.maximum((totals > 0).sum(axis=1), 1)
    counts = counts * (usual[:, None] / np.maximum(totals, 1))[:, :, None, None]
    asked = counts.sum(axis=-1)
    products = features[..., :, None] * features[..., None, :]
    penalty = np.where(np.arange(len(begin)) < runs, PENALTY, 1e-9)  # a dimension without judgements stays where it is
    x = np.tile(begin, (len(counts), 1))
    for _ in range(MOST_STEPS):
        logits = np.tensordot(x, features, axes=(1, 3)) + np.array([0.0, math.log(2), 0.0])
        chances = np.exp(logits - logits.max(axis=-1, keepdims=True))
        chances /= chances.sum(axis=-1, keepdims=True)
        expected = asked[..., None] * chances
        gradient = np.where(np.arange(len(begin)) < runs, PENALTY * x, 0) + np.tensordot(expected - counts, features, 3)
        means = np.einsum("rdpo,dpok->rdpk", chances, features)
        hessian = np.tensordot(expected, products, 3) - np.einsum("rdp,rdpk,rdpl->rkl", asked, means, means)
        step = np.linalg.solve(hessian + np.diag(penalty), gradient[..., None])[..., 0]
        moved = x - np.clip(step, -LARGEST_STEP, LARGEST_STEP)
        moved[:, runs:] = np.clip(moved[:, runs:], *LOG_NU)
        still = np.abs(moved - x).max(initial=0) < CLOSE
        x = moved
        if still:
            break
    x[:, :runs] -= x[:, :runs].mean(axis=1, keepdims=True)
    return x


def _elo(theta: float) -> float:
    return ELO_MEAN + ELO_SCALE * float(theta)
