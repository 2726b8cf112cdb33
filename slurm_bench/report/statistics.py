"""Means with their intervals, and what describes a sample of scores. Pure, and the same for the same numbers."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from slurm_bench.report.intervals import FEW, NO_INTERVAL, Interval, cox, looks_lognormal, t_interval, wilson

if TYPE_CHECKING:
    import numpy as np

BINS = 10

Numbers: TypeAlias = "Sequence[float] | np.ndarray"
Marks: TypeAlias = "Sequence[Hashable] | np.ndarray"


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval over samples; None where there are too few to say. `clusters` counts the source
    images where some have several samples, `method` names how the interval was made."""

    n: int
    mean: float | None
    ci_low: float | None
    ci_high: float | None
    sd: float | None = None
    median: float | None = None
    method: str | None = None
    clusters: int | None = None
    too_few: bool = False


def mean_of(
    values: Numbers,
    low: float | None = None,
    high: float | None = None,
    clusters: Marks | None = None,
) -> Mean:
    """Of finite numbers; of none everything is None. `low` and `high` bound the score's scale. `clusters` has a mark
    for each value; values with the same one (edits of one source image) are not independent: the interval is then over
    clusters, by what each adds to the mean's error. Which interval is for which scores, `_interval` says; of fewer
    than two values (or clusters) there is none."""
    import numpy as np

    if not len(values):
        return Mean(0, None, None, None)
    x = np.asarray(values, dtype=float)
    index = _repeated(clusters)
    units = len(x) if index is None else int(index.max()) + 1
    method, (ci_low, ci_high) = _interval(x, index, units, low, high)
    return Mean(
        n=len(x),
        mean=_mean(x),
        ci_low=_within(ci_low, low, high),
        ci_high=_within(ci_high, low, high),
        sd=float(x.std(ddof=1)) if len(x) > 1 else None,
        median=float(np.median(x)),
        method=method,
        clusters=None if index is None else units,
        too_few=units < FEW,
    )


def macro_mean_of(
    groups: Mapping[str, Numbers],
    low: float | None = None,
    high: float | None = None,
    clusters: Marks | None = None,
) -> Mean:
    """The mean of the groups' means: each category counts alike, however many samples it has. None as long as a
    category has no value at all. `clusters` has a mark for each value, group after group."""
    import numpy as np

    parts = [np.asarray(group, dtype=float) for group in groups.values()]
    n = sum(len(part) for part in parts)
    if not parts or any(len(part) == 0 for part in parts):
        return Mean(n, None, None, None)
    mean = float(np.mean([_mean(part) for part in parts]))
    index = _repeated(clusters)
    units = n if index is None else int(index.max()) + 1
    marks = [None] * len(parts) if index is None else np.split(index, np.cumsum([*map(len, parts)])[:-1])
    sizes = [len(part) if own is None else len(np.unique(own)) for part, own in zip(parts, marks, strict=True)]
    method, (ci_low, ci_high) = _macro_interval(parts, mean, index, marks, sizes, units, low, high)
    return Mean(
        n=n,
        mean=mean,
        ci_low=_within(ci_low, low, high),
        ci_high=_within(ci_high, low, high),
        method=method,
        clusters=None if index is None else units,
        too_few=units < FEW or _freedom(sizes) < FEW - 1,
    )


def difference_of(values: Sequence[float], clusters: Marks | None = None) -> Mean:
    """The mean of paired differences: of either sign and of any size, so no scale bounds it. Its interval is Student's
    t, corrected for skewness; `clusters` as in `mean_of`."""
    import numpy as np

    if not len(values):
        return Mean(0, None, None, None)
    x = np.asarray(values, dtype=float)
    index = _repeated(clusters)
    units = len(x) if index is None else int(index.max()) + 1
    method, (low, high) = None, NO_INTERVAL
    if units > 1:
        parts = _sums((x - _mean(x)) / len(x), index)
        method, (low, high) = t_interval(_mean(x), parts, units / (units - 1), units - 1)
    return Mean(
        n=len(x),
        mean=_mean(x),
        ci_low=low,
        ci_high=high,
        sd=float(x.std(ddof=1)) if len(x) > 1 else None,
        median=float(np.median(x)),
        method=method,
        clusters=None if index is None else units,
        too_few=units < FEW,
    )


def histogram(values: Numbers, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    """{"edges": eleven, "counts": ten} of equal bins over the score's scale, else over what the values span; both empty
    where there are no values. A bin holds its lower edge, the last one its upper edge too."""
    import numpy as np

    if not len(values):
        return {"edges": [], "counts": []}
    x = np.asarray(values, dtype=float)
    start, stop = (float(x.min()) if low is None else low, float(x.max()) if high is None else high)
    if alike(start, stop):
        half = max(0.5, abs(start) * 1e-6)
        start, stop = start - half, stop + half
    counts, edges = np.histogram(x, bins=BINS, range=(start, stop))
    return {"edges": [round(float(edge), 9) for edge in edges], "counts": [int(count) for count in counts]}


def alike(low: float, high: float) -> bool:
    """Whether no more than rounding is between them: the mean of three 0.1 isn't quite that of two."""
    return high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-300)


def _mean(x: np.ndarray) -> float:
    """Never beyond the values: where all are equal it is that value, which rounding alone would miss."""
    return float(min(max(x.mean(), x.min()), x.max()))


def _interval(
    x: np.ndarray, index: np.ndarray | None, units: int, low: float | None, high: float | None
) -> tuple[str | None, Interval]:
    """Its method's name, and the first of these that fits: of passes and fails Wilson's; of values all alike Wilson's
    on a scale with two ends, else none; Cox's of ten independent values or more that pass for lognormal, on a scale
    without an upper end; else Student's t, corrected for skewness."""
    import numpy as np

    if units < 2:
        return None, NO_INTERVAL
    mean = _mean(x)
    parts = _sums((x - mean) / len(x), index)
    if passes_and_fails(x, low, high):
        return "Wilson", wilson(mean, _effective(x, parts, units))
    if np.ptp(x) == 0:
        if low is None or high is None:
            return None, NO_INTERVAL  # All are alike: they don't tell how much others would differ.
        # A bounded score varies at most as a pass or fail of the same mean does.
        ends = wilson((mean - low) / (high - low), units)
        return "Wilson, all are alike", (low + (high - low) * ends[0], low + (high - low) * ends[1])
    if units >= FEW and index is None and high is None and looks_lognormal(x):
        ends = cox(x)
        if ends[0] <= mean <= ends[1]:  # else it speaks of a lognormal's mean that these values' own is far from
            return "Cox, lognormal", ends
    return t_interval(mean, parts, units / (units - 1), units - 1)


def _macro_interval(
    parts: list[np.ndarray],
    mean: float,
    index: np.ndarray | None,
    marks: Sequence[np.ndarray | None],
    sizes: Sequence[int],
    units: int,
    low: float | None,
    high: float | None,
) -> tuple[str | None, Interval]:
    """`marks` is `index` by part, `sizes` how many independent units each part has."""
    import numpy as np

    count = len(parts)
    if count == 1:
        return _interval(parts[0], index, units, low, high)
    if min(sizes) < 2:  # samples, or sources, of a category: of one alone nothing tells how others would differ
        return None, NO_INTERVAL
    if index is None and all(passes_and_fails(part, low, high) for part in parts):
        ends = [(_mean(part), *wilson(_mean(part), len(part))) for part in parts]
        below = math.sqrt(sum((at - start) ** 2 for at, start, _ in ends)) / count
        above = math.sqrt(sum((stop - at) ** 2 for at, _, stop in ends)) / count
        return "Wilson, combined", (mean - below, mean + above)
    weights = [math.sqrt(size / (size - 1)) / (count * len(part)) for part, size in zip(parts, sizes, strict=True)]
    residuals = [(part - _mean(part)) * weight for part, weight in zip(parts, weights, strict=True)]
    variances = [float((_sums(r, own) ** 2).sum()) for r, own in zip(residuals, marks, strict=True)]
    if sum(variances) == 0:
        return None, NO_INTERVAL
    # Welch and Satterthwaite: the categories' variances are estimated from few samples each. One source's edits in
    # several categories don't make more of it.
    freedom = sum(variances) ** 2 / sum(v**2 / (size - 1) for v, size in zip(variances, sizes, strict=True))
    return t_interval(mean, _sums(np.concatenate(residuals), index), 1.0, min(freedom, units - 1))


def _freedom(sizes: Sequence[int]) -> float:
    """The degrees of freedom of a mean of groups' means (Welch and Satterthwaite), were the groups' spreads alike: of
    one group its size less one. A group of two among ones of hundreds decides the error, and tells little of it."""
    if min(sizes) < 2:
        return 0.0
    return sum(1 / size for size in sizes) ** 2 / sum(1 / (size**2 * (size - 1)) for size in sizes)


def passes_and_fails(x: np.ndarray, low: float | None, high: float | None) -> bool:
    """0 and 1 alone, on a scale on which nothing else was to be expected."""
    return (low, high) in ((0, 1), (None, None)) and bool(((x == 0) | (x == 1)).all())


def _effective(x: np.ndarray, parts: np.ndarray, units: int) -> float:
    """How many independent passes and fails would say as much as these."""
    if units == len(x):
        return units
    spread, variance = float(x.var()), float((parts**2).sum()) * units / (units - 1)
    return units if min(spread, variance) == 0 else min(len(x), spread / variance)


def numbered(marks: Marks) -> np.ndarray:
    """From 0 on, in the order in which they first come; equal marks get the same number."""
    import numpy as np

    if not isinstance(marks, np.ndarray):
        numbers: dict[Hashable, int] = {}
        return np.fromiter((numbers.setdefault(mark, len(numbers)) for mark in marks), int, len(marks))
    _, first, index = np.unique(marks, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[index]


def _repeated(clusters: Marks | None) -> np.ndarray | None:
    """Each value's cluster, from 0; None where each value is one by itself. Of a single source nothing tells how
    others would differ: the interval is then over edits of that source."""
    import numpy as np

    if clusters is None or (isinstance(clusters, np.ndarray) and len(np.unique(clusters)) == len(clusters)):
        return None
    index = numbered(clusters)
    return index if 1 < index.max(initial=-1) + 1 < len(index) else None


def _sums(parts: np.ndarray, index: np.ndarray | None) -> np.ndarray:
    import numpy as np

    return parts if index is None else np.bincount(index, weights=parts)


def _within(value: float | None, low: float | None, high: float | None) -> float | None:
    if value is None:
        return None
    value = value if low is None else max(value, low)
    return value if high is None else min(value, high)
