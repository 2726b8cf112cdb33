"""Means and their intervals. Pure, and the same for the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % percentile-bootstrap interval over samples; None where there are too few to say."""

    n: int
    mean: float | None
    ci_low: float | None
    ci_high: float | None


def mean_of(values: Sequence[float]) -> Mean:
    if not values:
        return Mean(0, None, None, None)
    low, high = bootstrap_interval([values])
    return Mean(len(values), fmean(values), low, high)


def macro_mean_of(groups: Mapping[str, Sequence[float]]) -> Mean:
    """The mean of the groups' means: each category counts alike, however many samples it has. Samples are
    resampled within their category. None as long as a category has no value at all."""
    values = list(groups.values())
    n = sum(len(group) for group in values)
    if not values or not all(values):
        return Mean(n, None, None, None)
    low, high = bootstrap_interval(values)
    return Mean(n, fmean(fmean(group) for group in values), low, high)


def bootstrap_interval(groups: Sequence[Sequence[float]]) -> tuple[float | None, float | None]:
    """The percentile interval of the mean of the groups' means, each resampled with replacement. The generator's
    seed is fixed, so that a report made again says the same."""
    if any(len(group) < 2 for group in groups):
        return None, None
    import numpy as np

    generator = np.random.default_rng(0)
    means = np.zeros(RESAMPLES)
    for group in groups:
        values = np.asarray(group, dtype=float)
        means += generator.choice(values, (RESAMPLES, len(values))).mean(axis=1) / len(groups)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
