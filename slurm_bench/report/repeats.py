"""Where samples have several seeds: how much of a mean's error is the seeds', and how much the samples'. Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Variances of a score: between the samples' true means, and between the seeds of one sample (in which a judge's
    own noise is contained). `seeds` is how many scores a sample has on average. `seed_error` is the standard error that
    the mean over these very samples has from the seeds alone."""

    samples: int
    seeds: float
    between_samples: float
    between_seeds: float
    seed_error: float

    @property
    def share_of_seeds(self) -> float | None:
        """Which share of the variance of the mean over such samples comes from the seeds; None where nothing varies."""
        seeds = self.between_seeds / self.seeds
        whole = self.between_samples + seeds
        return seeds / whole if whole else None


def spread_of(values: Sequence[float], marks: Sequence[Hashable]) -> Spread | None:
    """`marks` has each value's sample. The estimates of a one-way analysis of variance with random effects, also where
    some samples have fewer scores than others (Searle, Casella and McCulloch 1992, section 3.6); one below 0 is given
    as 0. None where no sample has two scores, or there is one sample alone."""
    import numpy as np

    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(mark, len(numbers)) for mark in marks], dtype=int)
    x, count, groups = np.asarray(values, dtype=float), len(values), len(numbers)
    if groups < 2 or count == groups:
        return None
    sizes = np.bincount(index)
    # Away from a score of the sample's own: of equal ones nothing is left, where their mean, rounded, is another.
    first = x[np.unique(index, return_index=True)[1]]
    away = x - first[index]
    means = np.bincount(index, weights=away) / sizes
    within = float(((away - means[index]) ** 2).sum()) / (count - groups)
    centres = first + means - first[0]
    among = float((sizes * (centres - (sizes * centres).sum() / count) ** 2).sum()) / (groups - 1)
    scores_a_sample = (count - float((sizes**2).sum()) / count) / (groups - 1)
    return Spread(
        samples=groups,
        seeds=count / groups,
        between_samples=max(0.0, (among - within) / scores_a_sample),
        between_seeds=within,
        seed_error=math.sqrt(within / count),
    )


def advice(spread: Spread) -> str:
    """Whether more seeds or more samples would narrow the mean's interval."""
    share = spread.share_of_seeds
    if share is None:
        return "All scores are alike: neither more seeds nor more samples would say more."
    begin = f"{_percent(share)} of the variance of the mean comes from the seeds, the rest from the samples: "
    seeds, samples = _percent(1 - math.sqrt(1 - share / 2)), _percent(1 - math.sqrt(1 / 2))
    if share < 0.5:
        return (
            f"{begin}more samples would help (twice as many narrow the interval by {samples}), more seeds hardly "
            + (f"(twice as many by {seeds}).")
        )
    return (
        f"{begin}more seeds would help (twice as many narrow the interval by {seeds}; twice as many samples {samples})."
    )


@dataclass(frozen=True)
class TwoSeeds:
    """How far the means of two seeds are apart, on average over the pairs of seeds and at most."""

    seeds: int
    pairs: int
    difference: float
    largest: float


def two_seeds(scores: Sequence[Mapping[int, float]]) -> TwoSeeds | None:
    """`scores` has each sample's by repeat; two seeds are compared on the samples that have a score under both. None
    where none has."""
    repeats = sorted({repeat for by in scores for repeat in by})
    paired = (
        [by[second] - by[first] for by in scores if first in by and second in by]
        for first, second in combinations(repeats, 2)
    )
    apart = [abs(fmean(differences)) for differences in paired if differences]
    return TwoSeeds(len(repeats), len(apart), fmean(apart), max(apart)) if apart else None


def in_words(found: Mapping[str, Any] | None) -> list[str]:
    """What the summary's `repeats` says, in sentences; [] where each sample has one seed."""
    if found is None:
        return []
    lines = [
        f"Each of {found['samples_planned']} samples has {found['seeds_planned']} seeds: means are over the edits."
    ]
    if found["advice"] is None:
        return [*lines, "Too few samples have a score under two seeds to tell what the seeds do."]
    deviations = (math.sqrt(found[key]) for key in ("between_samples", "between_seeds"))
    lines.append(
        "Standard deviation between samples {:.3g}, between the seeds of one sample {:.3g}; other seeds would move the "
        "mean over these samples by {:.3g} (standard error).".format(*deviations, found["seed_error"])
    )
    return [*lines, found["advice"]]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
