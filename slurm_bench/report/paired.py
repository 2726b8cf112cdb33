"""Two runs on the same samples: is one better? Pure statistics of paired differences, other minus first."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from slurm_bench.report.intervals import CONFIDENCE, Interval
from slurm_bench.report.statistics import difference_of, passes_and_fails

if TYPE_CHECKING:
    import numpy as np

ALPHA = round(1 - CONFIDENCE, 9)  # 1 - 0.95 is a little above 0.05, which a p may be
FLIPS = 9999
EXACT = 14  # with so many units all 2^n flips are tried
PLACES = 12  # decimal ones of a difference: what is beyond them is rounding
POWER = 2.80  # z of 0.975 plus z of 0.8: the effect in standard errors that is seen four times out of five

Verdict = Literal["better", "worse", "no difference", "can't say"]


@dataclass(frozen=True)
class Paired:
    """`difference` is the mean one, and `ci_low` to `ci_high` its 95 % interval. Tests are over samples, or where some
    share a source image over the `clusters`, by their mean difference. `p` is of the sign-flip permutation, which asks
    nothing of the scores' distribution; `p_mcnemar` is exact, of passes and fails. `smallest_effect` is what so
    many samples see four times out of five."""

    n: int
    mean_first: float | None = None
    mean_other: float | None = None
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    sd: float | None = None
    wins: int = 0
    ties: int = 0
    losses: int = 0
    p: float | None = None
    p_sign: float | None = None
    p_wilcoxon: float | None = None
    p_mcnemar: float | None = None
    smallest_effect: float | None = None
    clusters: int | None = None


def compare_pairs(
    first: Sequence[float],
    other: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    higher_is_better: bool = True,
    low: float | None = None,
    high: float | None = None,
) -> Paired:
    """`first` and `other` are of the same samples in the same order, as are `clusters`. A win is the other's. `low` and
    `high` bound the score's scale."""
    import numpy as np

    if not len(first):
        return Paired(0)
    a, b = np.asarray(first, dtype=float), np.asarray(other, dtype=float)
    d = np.round(b - a, PLACES)  # 0.3 - 0.1 and 0.4 - 0.2 are a tie
    mean = difference_of([float(value) for value in d], clusters)
    units, means, away = d, d, d - (mean.mean or 0.0)
    if mean.clusters is not None and clusters is not None:
        units, away = (np.round(_sums_by(each, clusters), PLACES) for each in (d, away))  # 0.1 + 0.2 - 0.3 is a tie
        means = np.round(units / _sums_by(np.ones(len(d)), clusters), PLACES)
    shares = mean.clusters is None and passes_and_fails(np.concatenate([a, b]), low, high)
    interval = (mean.ci_low, mean.ci_high)
    if shares:
        interval = _of_shares(int((d > 0).sum()), int((d < 0).sum()), len(d))
    better, worse = (d > 0, d < 0) if higher_is_better else (d < 0, d > 0)
    p_sign = _sign_test(int((means > 0).sum()), int((means < 0).sum()))
    return Paired(
        n=len(d),
        mean_first=float(a.mean()),
        mean_other=float(b.mean()),
        difference=mean.mean,
        ci_low=interval[0],
        ci_high=interval[1],
        sd=mean.sd,
        wins=int(better.sum()),
        ties=int((d == 0).sum()),
        losses=int(worse.sum()),
        p=_flip_test(units),
        p_sign=p_sign,
        p_wilcoxon=_wilcoxon(means),
        p_mcnemar=p_sign if shares else None,
        smallest_effect=_smallest_effect(away, len(d)),
        clusters=mean.clusters,
    )


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's correction (1979): so that of many comparisons none is called different by chance more often than one
    would be. What has no p stays without."""
    order = sorted((p, k) for k, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, k) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        corrected[k] = highest
    return corrected


def verdict(
    found: Paired, p: float | None, higher_is_better: bool | None, margin: float, name: str
) -> tuple[Verdict, str]:
    """`p` is corrected where there are several comparisons. Without a difference that was seen it says how large one
    may be, if that is at most `margin`, else that nothing can be said."""
    if found.n == 0 or found.difference is None:
        return "can't say", "can't say: no sample has both scores"
    if found.wins + found.losses == 0:
        return "no difference", f"no difference at all: the scores of all {found.n} samples are equal"
    known = found.ci_low is not None and found.ci_high is not None
    apart = not known or found.ci_low > 0 or found.ci_high < 0  # type: ignore[operator]
    if p is not None and p < ALPHA and apart:
        words = f"by {abs(found.difference):.3g}{_between(found)}, better in {found.wins} of {found.n}"
        if higher_is_better is None:
            way = "higher" if found.difference > 0 else "lower"
            return (
                "can't say",
                f"{name} is {way} by {abs(found.difference):.3g}{_between(found)}; neither way is better",
            )
        kind: Verdict = "better" if (found.difference > 0) == higher_is_better else "worse"
        return kind, f"{name} is {kind} {words}"
    if known:
        largest = max(abs(found.ci_low), abs(found.ci_high))  # type: ignore[arg-type]
        if largest <= margin:
            return "no difference", f"no difference larger than {largest:.3g}"
    seen = f"; {found.n} samples would show one of {found.smallest_effect:.3g}" if found.smallest_effect else ""
    return "can't say", f"can't say: a difference may be there{seen}"


def _between(found: Paired) -> str:
    return "" if found.ci_low is None else f" [{found.ci_low:+.3g}, {found.ci_high:+.3g}]"


def _flip_test(units: np.ndarray) -> float | None:
    """The share of sign flips whose sum is as far from 0 as the one found; two-sided."""
    import numpy as np

    units = units[units != 0]
    if not len(units):
        return 1.0
    # What differs by rounding is as far: thirds, of three seeds say, don't add up to what they would.
    found = abs(float(units.sum())) - 10.0**-PLACES * (len(units) + float(abs(units).sum()))
    if len(units) <= EXACT:
        bits = np.arange(2 ** len(units))[:, None] >> np.arange(len(units)) & 1
        return float((abs((2 * bits - 1) @ units) >= found).mean())
    rng = np.random.default_rng(0)
    rows = max(1, 2_000_000 // len(units))
    as_far = 0
    for start in range(0, FLIPS, rows):
        signs = rng.integers(0, 2, (min(rows, FLIPS - start), len(units)), dtype=np.int8) * 2.0 - 1
        as_far += int((abs(signs @ units) >= found).sum())
    return (as_far + 1) / (FLIPS + 1)


def _sign_test(ups: int, downs: int) -> float:
    from scipy.stats import binomtest

    return float(binomtest(ups, ups + downs).pvalue) if ups + downs else 1.0


def _wilcoxon(d: np.ndarray) -> float | None:
    from scipy.stats import wilcoxon

    return float(wilcoxon(d).pvalue) if (d != 0).any() else 1.0


def _smallest_effect(away: np.ndarray, n: int) -> float | None:
    """`away` has how far each unit's differences are from their mean over all, in sum: of sources with more samples
    than others the sums differ, whether or not the differences do."""
    count = len(away)
    if count < 2:
        return None
    error = math.sqrt(float((away**2).sum()) * count / (count - 1)) / n
    return POWER * error if error > 0 else None


def _of_shares(ups: int, downs: int, n: int) -> Interval:
    """Bonett and Price (2012, J. Educ. Behav. Stat. 37): the difference of two shares of the same samples."""
    from scipy.special import ndtri

    up, down = (ups + 1) / (n + 2), (downs + 1) / (n + 2)
    half = float(ndtri((1 + CONFIDENCE) / 2)) * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return max(-1.0, up - down - half), min(1.0, up - down + half)


def _sums_by(values: np.ndarray, clusters: Sequence[Hashable]) -> np.ndarray:
    import numpy as np

    numbers: dict[Hashable, int] = {}
    index = [numbers.setdefault(mark, len(numbers)) for mark in clusters]
    return np.bincount(index, weights=values)
