"""Means and intervals that hold what they promise. `python -m tests.coverage_of_intervals` has the long simulation."""

from __future__ import annotations

import numpy as np
import pytest
from coverage_of_intervals import SCORES, coverage, coverage_of_clusters, coverage_of_shares

from slurm_bench.report.intervals import wilson
from slurm_bench.report.statistics import histogram, macro_mean_of, mean_of


@pytest.mark.parametrize("n", [10, 50])
@pytest.mark.parametrize("name", SCORES)
def test_an_interval_called_95_percent_covers_95_percent(name: str, n: int) -> None:
    assert 0.92 <= coverage(name, n, 1000) <= 0.98


@pytest.mark.parametrize(
    ("share", "n"), [(0.9, 10), (0.9, 20), (0.9, 50), (0.9, 270), (0.5, 20), (0.5, 50), (0.5, 270)]
)
def test_a_share_of_passes_is_covered(share: float, n: int) -> None:
    assert 0.9295 <= coverage_of_shares(share, n) <= 0.9705


def test_sources_that_repeat_make_an_interval_wider() -> None:
    known, ignored = coverage_of_clusters(300)
    assert known >= 0.92
    assert ignored < 0.85


def test_intervals_are_the_same_each_time_and_cover_the_mean() -> None:
    values = [float(n % 7) for n in range(60)]
    assert mean_of(values) == mean_of(values)
    found = mean_of(values)
    assert found.ci_low is not None
    assert found.ci_high is not None
    assert found.mean is not None
    assert found.ci_low < found.mean < found.ci_high
    # the normal approximation: 1.96 standard errors to either side
    spread = (sum((v - found.mean) ** 2 for v in values) / 59) ** 0.5 / 60**0.5
    assert found.ci_high - found.ci_low == pytest.approx(2 * 1.96 * spread, rel=0.1)


def test_a_macro_mean_needs_every_category() -> None:
    assert macro_mean_of({"a": [1.0, 2.0], "b": []}).mean is None
    assert macro_mean_of({"a": [1.0, 2.0], "b": [4.0] * 30}).mean == pytest.approx(2.75)
    assert macro_mean_of({}).mean is None


@pytest.mark.parametrize(
    ("sizes", "few"),
    [([9], True), ([10], False), ([1, 99], True), ([2, 99], True), ([5, *[60] * 4], True), ([8, *[60] * 4], False)],
)
def test_a_macro_mean_that_a_small_category_decides_is_marked(sizes: list[int], few: bool) -> None:
    groups = {str(n): [float(k) for k in range(size)] for n, size in enumerate(sizes)}
    assert macro_mean_of(groups).too_few == few
    seeds = {name: [v for v in values for _ in range(4)] for name, values in groups.items()}
    sources = [f"{name}-{n}" for name, values in groups.items() for n in range(len(values)) for _ in range(4)]
    assert macro_mean_of(seeds, clusters=sources).too_few == few


def test_a_clustered_interval_is_the_one_of_the_field() -> None:
    """The square root of Σ_c (Σ_i in c (s_i − s̄))² · C / (C − 1), over n, times t with C − 1 degrees."""
    values, sources = [1.0, 2.0, 4.0, 4.0, 7.0, 6.0, 2.0], [*"aabbccd"]
    mean = np.mean(values)
    sums = [sum(v - mean for v, s in zip(values, sources, strict=True) if s == source) for source in "abcd"]
    error = (sum(part**2 for part in sums) * 4 / 3) ** 0.5 / 7
    found = mean_of(values, clusters=sources)
    assert found.ci_high is not None
    assert found.ci_high - mean == pytest.approx(3.182446 * error, rel=1e-5)
    assert (found.clusters, found.too_few) == (4, True)


def test_what_too_few_or_equal_scores_can_say() -> None:
    assert mean_of([]).mean is None
    assert mean_of([3.0]).ci_low is None
    assert mean_of([3.0, 4.0]).too_few
    assert mean_of([3.0] * 20).ci_low is None, "nothing tells how much others would differ"
    ends = mean_of([5.0] * 20, 1, 5)
    assert (ends.ci_low, ends.ci_high) == (pytest.approx(1 + 4 * 0.8389, abs=1e-3), 5)
    ones = [0.0, 1.0] * 10
    assert (mean_of(ones).method, mean_of(ones, 0, 10).method) == ("Wilson", "t"), (
        "marks of 0 and 1 of 10 aren't passes"
    )
    assert mean_of([0.0, 10.0], 0, 10).ci_low == 0, "within the scale"


def test_scores_of_any_size_have_a_finite_interval() -> None:
    values = np.exp(np.random.default_rng(0).normal(0, 60, 40))
    found = mean_of(list(values), 0)
    assert found.ci_high is not None
    assert np.isfinite([found.mean, found.ci_low, found.ci_high]).all()


def test_a_macro_interval_weighs_categories_alike() -> None:
    rng = np.random.default_rng(0)
    groups = {"a": list(rng.normal(0, 1, 40)), "b": list(rng.normal(5, 2, 90))}
    found = macro_mean_of(groups)
    assert found.ci_low is not None
    assert found.ci_high is not None
    error = (np.var(groups["a"], ddof=1) / 40 + np.var(groups["b"], ddof=1) / 90) ** 0.5 / 2
    assert found.ci_high - found.ci_low == pytest.approx(2 * 1.98 * error, rel=0.02)


def test_more_seeds_of_the_same_samples_are_no_more_samples() -> None:
    """Categories of few samples among larger ones too: each counts as much, and tells its own spread."""
    rng = np.random.default_rng(0)
    groups = {name: list(rng.normal(5, 2, n)) for name, n in (("a", 2), ("b", 40), ("c", 7))}
    sources = [f"{name}{n}" for name, values in groups.items() for n in range(len(values))]
    once = macro_mean_of(groups, 0, 10)
    twice = macro_mean_of(
        {name: [v for v in values for _ in range(2)] for name, values in groups.items()},
        0,
        10,
        [source for source in sources for _ in range(2)],
    )
    assert once.ci_low is not None
    assert (twice.ci_low, twice.ci_high) == (pytest.approx(once.ci_low), pytest.approx(once.ci_high))
    alone = macro_mean_of({"a": [2.0, 2.1], "b": [9.0, 1.0, 5.0, 5.0, 7.0, 8.0]}, 0, 10, [*"aabbccdd"])
    assert (alone.mean, alone.ci_low) == (pytest.approx((2.05 + 35 / 6) / 2), None), "one source tells no spread"


def test_sources_in_every_category_make_no_more_sources() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        sources = rng.normal(0, 0.8, 4)
        groups = {name: list(sources + rng.normal(0, 0.6, 4)) for name in "abcde"}
        found = macro_mean_of(groups, clusters=[*range(4)] * 5)
        held += found.ci_low is not None and found.ci_high is not None and found.ci_low <= 0 <= found.ci_high
    assert held / 400 >= 0.92


def test_a_histogram_is_over_the_scale() -> None:
    found = histogram([0.0, 5.0, 10.0, 10.0], 0, 10)
    assert found["counts"] == [1, 0, 0, 0, 0, 1, 0, 0, 0, 2]
    assert found["edges"] == [float(n) for n in range(11)]
    assert sum(histogram([3.0, 3.0])["counts"]) == 2
    for nearly_alike in ([0.1, sum([0.1] * 3) / 3], [1e20, 1e20], [0.0, 5e-324]):
        assert sum(histogram(nearly_alike)["counts"]) == 2


def test_an_interval_holds_its_own_mean() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        values = list(rng.lognormal(0, rng.choice([0.5, 1, 2, 3]), rng.integers(10, 60)))
        found = mean_of(values, 0, None)
        assert found.mean is not None
        assert found.ci_low is not None
        assert found.ci_high is not None
        assert found.ci_low <= found.mean <= found.ci_high, found
    for n in range(2, 40):
        for share in (0.0, 1.0):
            low, high = wilson(share, n)
            assert 0 <= low <= share <= high <= 1, n


@pytest.mark.filterwarnings("error")
def test_many_scores_are_described_without_a_warning() -> None:
    values = list(np.random.default_rng(0).lognormal(0, 0.5, 6001))
    assert mean_of(values, 0, None).method == "Cox, lognormal"


def test_equal_scores_have_no_spread_that_rounding_made() -> None:
    assert mean_of([0.1] * 3).mean == 0.1
    found = macro_mean_of({"a": [0.1] * 3, "b": [0.1] * 2})
    assert (found.mean, found.ci_low) == (0.1, None)
