"""People's mean over all samples where they marked a part, with the judge's scores of all to help. Pure.

PPI++ of Angelopoulos, Duchi and Zrnic (2023, arXiv 2311.01453), sections 2 and 6, for a mean: with n marked samples
(mark y, score f) and N unmarked ones (score g)

    estimate = λ · mean(g) + mean(y − λ · f)        λ = cov(y, f) / ((1 + n / N) · var(f and g))

The scores' own bias falls out of the two means whatever λ is, so a bad judge costs width and nothing else. The marked
samples must have been drawn by chance. Ours beside the paper, so that it holds for few marks too: each mark meets a λ
that is computed without it (one that leans on the mark itself moves the estimate: by 0.09 where ten have marks from 1
to 5), Student's t, and sources that several samples share count once.

`python -m tests.coverage_of_intervals` prints how often the interval holds the true mean.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slurm_bench.report.intervals import CONFIDENCE, FEW, t_interval

if TYPE_CHECKING:
    import numpy as np

FEWEST = 5  # marks, or sources of them: λ is found without one of them, and from two or three it is a guess


@dataclass(frozen=True)
class Powered:
    """`weight` is λ: 0 where the scores say nothing of the marks. Of a mark's variance `residual` is what the scores
    don't tell, `explained` the rest. `inflation` is the estimate's variance by that of as many independent samples."""

    marked: int
    scored: int
    mean: float
    ci_low: float | None
    ci_high: float | None
    weight: float
    residual: float
    explained: float
    inflation: float
    too_few: bool

    def width(self, marks: int) -> float:
        """How wide the interval would be that so many marks of these samples give."""
        from scipy.special import stdtrit

        variance = self.inflation * (self.residual / marks + self.explained / self.scored)
        return 2 * float(stdtrit(marks - 1, (1 + CONFIDENCE) / 2)) * math.sqrt(variance)

    def marks_for(self, width: float) -> int | None:
        """The fewest marks that give an interval no wider; None where marking every sample would not do."""
        low, high = FEWEST, self.scored
        if self.width(high) > width:
            return None
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.width(middle) <= width else (middle + 1, high)
        return low


def powered_mean(
    marks: Sequence[float],
    scores: Sequence[float],
    others: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
) -> Powered | None:
    """`scores` are those of the marked samples, `others` those of the unmarked. `clusters` has a mark for each sample,
    of the marked ones first, then of the others: samples with the same one aren't independent. None of fewer than
    FEWEST."""
    import numpy as np

    y, f, g = (np.asarray(values, dtype=float) for values in (marks, scores, others))
    n = len(y)
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(c, len(numbers)) for c in (clusters or range(n + len(g)))], dtype=int)
    units = len(set(index[:n]))
    if units < FEWEST:
        return None
    weights = _weights(y, f, g)
    told = y - weights * (f - (g.mean() if len(g) else 0.0))
    parts = (told - told.mean()) / n * math.sqrt(units / (units - 1))
    if len(g):
        parts = np.concatenate([parts, weights.mean() * (g - g.mean()) / len(g)])
    parts = np.bincount(index, weights=parts)
    _, (ci_low, ci_high) = t_interval(float(told.mean()), parts, 1.0, units - 1)
    residual, explained = _told(y, f)
    independent = residual / n + explained / (n + len(g))
    return Powered(
        marked=n,
        scored=n + len(g),
        mean=float(told.mean()),
        ci_low=ci_low,
        ci_high=ci_high,
        weight=float(weights.mean()),
        residual=residual,
        explained=explained,
        inflation=float((parts**2).sum()) / independent if independent else 1.0,
        too_few=units < FEW,
    )


def _weights(y: np.ndarray, f: np.ndarray, g: np.ndarray) -> np.ndarray:
    """For each mark λ of all the others."""
    import numpy as np

    if not len(g) or not np.ptp(f):
        return np.zeros(len(y))
    n, both = len(y), np.concatenate([f, g])
    dy, df, of_all = y - y.mean(), f - f.mean(), f - both.mean()
    covariance = ((dy * df).sum() - n / (n - 1) * dy * df) / (n - 2)
    m = len(both)
    variance = (((both - both.mean()) ** 2).sum() - m / (m - 1) * of_all**2) / (m - 2)
    scaled = (1 + (n - 1) / len(g)) * variance
    return np.divide(covariance, scaled, out=np.zeros(n), where=scaled > 0)


def _told(y: np.ndarray, f: np.ndarray) -> tuple[float, float]:
    """The marks' variance about their line through the scores, and the rest of it."""
    import numpy as np

    whole = float(y.var(ddof=1))
    if not np.ptp(f):
        return whole, 0.0
    slope = float(((y - y.mean()) * (f - f.mean())).sum() / ((f - f.mean()) ** 2).sum())
    left = float((((y - y.mean()) - slope * (f - f.mean())) ** 2).sum()) / (len(y) - 2)
    return min(left, whole), max(0.0, whole - left)
