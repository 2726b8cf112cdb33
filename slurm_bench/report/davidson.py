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
from typing import TYPE_CHECKING, Any

from slurm_bench.report.statistics import CONFIDENCE, FEW

if TYPE_CHECKING:
    import numpy as np

PENALTY = 1.0
ELO_MEAN, ELO_SCALE = 1000.0, 400.0 / math.log(10)
LOG_NU = (-12.0, 8.0)  # without a tie, or with ties alone, ν would run away
RESAMPLES = 200

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
    """Of each run, with its 95 % interval by resampling units; and each dimension's ν. Dimensions count alike, however
    many judgements each has."""
    import numpy as np

    units, dimensions = (1 + max((getattr(one, name) for one in judged), default=-1) for name in ("unit", "dimension"))
    pairs = {pair: n for n, pair in enumerate(combinations(range(runs), 2))}
    counts = np.zeros((units, dimensions, len(pairs), 3))
    for one in judged:
        counts[one.unit, one.dimension, pairs[one.first, one.second], (WIN, TIE, LOSS).index(one.outcome)] += 1
    ends = np.array(list(pairs)).reshape(-1, 2)
    met = {run for one in judged for run in (one.first, one.second)}
    theta, nu = _fit(counts.sum(axis=0), ends, runs)
    low, high = _interval(counts, ends, runs, theta, nu, resamples)
    found = [
        Strength(_elo(theta[run]), low[run], high[run], units < FEW) if run in met else Strength(None)
        for run in range(runs)
    ]
    return found, [float(value) for value in nu]


def _interval(
    counts: np.ndarray, ends: np.ndarray, runs: int, theta: np.ndarray, nu: np.ndarray, resamples: int
) -> tuple[list[float | None], list[float | None]]:
    """The middle 95 % of the strengths of so many benchmarks, each of as many units, drawn from those there are."""
    import numpy as np

    units = len(counts)
    if units < 2 or resamples < 1:
        return [None] * runs, [None] * runs
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(units, np.full(units, 1 / units), size=resamples)
    fits = [_fit(np.tensordot(times, counts, axes=1), ends, runs, theta, nu)[0] for times in drawn]
    tails = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.array(fits), [tails, 1 - tails], axis=0)
    return [_elo(value) for value in low], [_elo(value) for value in high]


def _fit(
    counts: np.ndarray, ends: np.ndarray, runs: int, theta: Any = None, nu: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """θ of each run, their mean 0, and ν of each dimension. `counts` is [dimension, pair, (win, tie, loss)], `ends` has
    each pair's runs; `theta` and `nu` are where to start."""
    import numpy as np
    from scipy.optimize import minimize

    dimensions = len(counts)
    totals = counts.sum(axis=(1, 2))
    weights = np.where(totals > 0, totals[totals > 0].mean() / np.maximum(totals, 1), 0) if totals.any() else totals
    counts = counts * weights[:, None, None]

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        theta, log_nu = x[:runs], x[runs:]
        a, b = theta[ends[:, 0]], theta[ends[:, 1]]
        tie = math.log(2) + (a + b)[None, :] / 2 + log_nu[:, None]
        logits = np.stack([np.broadcast_to(a, tie.shape), tie, np.broadcast_to(b, tie.shape)], axis=-1)
        top = logits.max(axis=-1, keepdims=True)
        logs = logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
        off = counts.sum(axis=-1, keepdims=True) * np.exp(logs) - counts
        gradient = PENALTY * theta
        by_pair = off.sum(axis=0)
        np.add.at(gradient, ends[:, 0], by_pair[:, 0] + by_pair[:, 1] / 2)
        np.add.at(gradient, ends[:, 1], by_pair[:, 2] + by_pair[:, 1] / 2)
        value = PENALTY * float(theta @ theta) / 2 - float((counts * logs).sum())
        return value, np.concatenate([gradient, off[:, :, 1].sum(axis=1)])

    begin = np.zeros(runs + dimensions)
    if theta is not None:
        begin = np.concatenate([theta, np.log(np.clip(nu, *np.exp(LOG_NU)))])
    bounds = [(None, None)] * runs + [LOG_NU] * dimensions
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-10, "gtol": 1e-6})
    theta = found.x[:runs]
    return theta - theta.mean(), np.exp(found.x[runs:])


def _elo(theta: float) -> float:
    return ELO_MEAN + ELO_SCALE * float(theta)
