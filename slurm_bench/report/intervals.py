"""95 % intervals of a mean, each by a method for its kind of scores; which is for which, `statistics` decides.

`python -m tests.coverage_of_intervals` prints how often they hold the true mean.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE = 0.95
FEW = 10  # Below it the methods here no longer hold what they promise for skewed scores.
LARGEST_LOG = 700.0  # of a number that a float holds
MOST_TESTED = 5000  # Of more values scipy's test of normality warns that its p isn't exact.

Interval = tuple[float | None, float | None]
NO_INTERVAL: Interval = (None, None)


def t_interval(mean: float, parts: np.ndarray, correction: float, freedom: float) -> tuple[str | None, Interval]:
    """Student's t, corrected for skewness by Hall's transformation (1992, JRSS B 54) where there are enough units for
    that. `parts` is what each independent unit adds to the estimate's error: their squares add up to its variance."""
    import numpy as np
    from scipy.special import stdtrit

    square = float((parts**2).sum())
    if square == 0:
        return None, NO_INTERVAL
    error = math.sqrt(square * correction)
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(stdtrit(freedom, p)) for p in (tail, 1 - tail))
    skew = float((parts**3).sum()) / square**1.5
    if len(parts) < FEW or abs(skew) < 1e-6:
        return "t", (mean - high * error, mean - low * error)

    def untransformed(quantile: float) -> float:
        return float(np.cbrt(1 + skew * (quantile - skew / 6)) - 1) * 3 / skew

    return "t, corrected for skewness", (mean - untransformed(high) * error, mean - untransformed(low) * error)


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's score interval (1927, JASA 22) of a share; of 0 and of 1 rounding would miss the share itself."""
    from scipy.special import ndtri

    z = float(ndtri((1 + CONFIDENCE) / 2))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def looks_lognormal(x: np.ndarray) -> bool:
    """Positive, with no clear tail to the left, and logs that pass for normal."""
    import numpy as np

    if x.min() <= 0 or ((x - x.mean()) ** 3).mean() <= -0.5 * x.std() ** 3:
        return False
    from scipy.stats import shapiro  # a second to import

    return bool(shapiro(np.log(x[:: -(-len(x) // MOST_TESTED)])).pvalue >= 0.01)


def cox(x: np.ndarray) -> tuple[float, float]:
    """Cox's interval of a lognormal mean, with Student's t (Olsson 2005, J. Stat. Educ. 13): where one score of many
    carries the mean, t is too short."""
    import numpy as np
    from scipy.special import stdtrit

    logs, n = np.log(x), len(x)
    variance = float(logs.var(ddof=1))
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * math.sqrt(variance / n + variance**2 / (2 * (n - 1)))
    centre = float(logs.mean()) + variance / 2
    return math.exp(centre - half), math.exp(min(centre + half, LARGEST_LOG))
