"""Every sample under several seeds: planned, reported, compared and exported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import images, launch, make_benchmark, make_config, rows, summary

from slurm_bench.bundled import bundled
from slurm_bench.config import load_config
from slurm_bench.data.item import Item
from slurm_bench.errors import UserError
from slurm_bench.report.compare import compare_runs
from slurm_bench.report.repeats import Spread, TwoSeeds, advice, spread_of, two_seeds
from slurm_bench.run.create import create_run
from slurm_bench.run.opened import Run
from slurm_bench.run.plan import read_plan
from slurm_bench.run.slices import seed_of


def planned(root: Path, *ids: str, repeats: int = 1, force: bool = False) -> Run:
    items = [Item(i, "c", "do", b"\x89PNG\r\n\x1a\n", facts={"n": n}) for n, i in enumerate(ids)]
    config = load_config(bundled("demo.yaml"), [f"repeats={repeats}", "seed=7"])
    return create_run(root, config, lambda: items, {}, force)


def test_a_plan_of_several_seeds_begins_with_that_of_one(tmp_path: Path) -> None:
    one = planned(tmp_path / "one", "a", "b").folder.plan.read_text().splitlines()
    assert not any(key in json.loads(line) for line in one for key in ("sample", "repeat"))
    run = planned(tmp_path / "three", "a", "b", repeats=3)
    assert [sample.id for sample in run.samples] == ["a", "b", "a@2", "b@2", "a@3", "b@3"]
    assert [sample.index for sample in run.samples] == list(range(6))
    assert [(sample.data_id, sample.repeat) for sample in run.samples[2:4]] == [("a", 2), ("b", 2)]
    assert [sample.seed for sample in run.samples] == [seed_of(sample.id, 7) for sample in run.samples]
    assert len({sample.seed for sample in run.samples}) == 6
    assert run.samples[4].sources == run.samples[0].sources, "the source is unpacked once"
    assert read_plan(run.folder) == run.samples
    first = [json.loads(line) for line in run.folder.plan.read_text().splitlines()[:2]]
    assert [{k: v for k, v in row.items() if k not in ("sample", "repeat")} for row in first] == [*map(json.loads, one)]


def test_an_id_that_a_repeat_would_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the data have a sample 'a@2'"):
        planned(tmp_path / "run", "a", "a@2", repeats=2)
    assert not (tmp_path / "run").exists()
    assert len(planned(tmp_path / "run", "a", "a@3", "@2", repeats=2).samples) == 6


def test_more_than_can_be_made_is_refused_and_not_begun(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'repeats' is 2147483648: with 2 samples that are more than 10,000,000"):
        planned(tmp_path / "run", "a", "b", repeats=2**31)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("force", [False, True])
def test_a_runs_repeats_never_change(tmp_path: Path, force: bool) -> None:
    begun = planned(tmp_path / "run", "a", repeats=2)
    with pytest.raises(UserError, match=r"frozen with 2; for 3 plan a new run .*--reuse") as caught:
        planned(tmp_path / "run", "a", repeats=3, force=force)
    assert "\n" not in str(caught.value)
    assert planned(tmp_path / "run", "a", repeats=2, force=force).samples == begun.samples


def drawn(between_samples: float, between_seeds: float, sizes: np.ndarray) -> Callable[[int], Spread]:
    """What is found of scores with these true variances, where sample n has sizes[n] scores."""

    def draw(number: int) -> Spread:
        rng = np.random.default_rng([7, number])
        marks = np.repeat(np.arange(len(sizes)), sizes)
        samples = rng.normal(5, between_samples**0.5, len(sizes))
        values = samples[marks] + rng.normal(0, between_seeds**0.5, len(marks))
        found = spread_of(values.tolist(), marks.tolist())
        assert found is not None
        return found

    return draw


@pytest.mark.parametrize(("samples", "seeds"), [(1.0, 4.0), (4.0, 0.25), (0.0, 1.0)])
@pytest.mark.parametrize("sizes", [np.full(40, 3), np.tile([1, 2, 4, 5], 10)], ids=["alike", "failures"])
def test_variances_between_seeds_and_samples_are_told_apart(samples: float, seeds: float, sizes: np.ndarray) -> None:
    found = [drawn(samples, seeds, sizes)(n) for n in range(300)]
    assert np.mean([spread.between_seeds for spread in found]) == pytest.approx(seeds, rel=0.05)
    # What is estimated below 0 is given as 0, so where there is nothing the mean is a little above.
    assert np.mean([spread.between_samples for spread in found]) == pytest.approx(samples, rel=0.1, abs=0.09)
    errors = np.std([draw_mean(seeds, sizes, n) for n in range(300)])
    assert np.mean([spread.seed_error for spread in found]) == pytest.approx(errors, rel=0.15)


def draw_mean(between_seeds: float, sizes: np.ndarray, number: int) -> float:
    """How far the mean over the same samples is moved by a set of seeds."""
    return float(np.random.default_rng([8, number]).normal(0, between_seeds**0.5, sizes.sum()).mean())


def test_one_sentence_says_whether_more_seeds_or_more_samples_would_help() -> None:
    by_seed = Spread(samples=50, seeds=2, between_samples=0.5, between_seeds=9.0, seed_error=0.3)
    assert by_seed.share_of_seeds == pytest.approx(0.9)
    assert "more seeds would help (twice as many narrow the interval by 26 %" in advice(by_seed)
    by_sample = Spread(samples=50, seeds=2, between_samples=4.0, between_seeds=0.4, seed_error=0.06)
    assert "more samples would help (twice as many narrow the interval by 29 %), more seeds hardly" in advice(by_sample)
    assert "neither" in advice(Spread(50, 2, 0.0, 0.0, 0.0))
    alike = spread_of([0.7] * 15, [n // 3 for n in range(15)])
    assert alike is not None
    assert "neither" in advice(alike), "the mean of three 0.7 isn't quite 0.7"
    assert spread_of([1.0, 2.0, 3.0], ["a", "b", "c"]) is None, "one seed each tells nothing of seeds"
    assert spread_of([1.0, 2.0], ["a", "a"]) is None


def test_two_seeds_are_compared_on_the_samples_that_have_both() -> None:
    found = two_seeds([{1: 1.0, 2: 2.0, 3: 1.0}, {1: 1.0, 2: 4.0}, {3: 9.0}, {}])
    assert found == TwoSeeds(seeds=3, pairs=3, difference=pytest.approx((2 + 0 + 1) / 3), largest=2.0)
    assert two_seeds([{1: 1.0}, {1: 2.0}]) is None


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`one` under one seed; `three` under three, with the images of `one` taken over; `failing`, in which one fails."""
    folder = tmp_path_factory.mktemp("repeats")
    words = ["--config", make_config(folder / "c.yaml", make_benchmark(folder / "bench", 5)), "--executor", "debug"]
    assert launch(*words, "--run-dir", folder / "one").returncode == 0
    done = launch(*words, "--run-dir", folder / "three", "repeats=3", "--reuse", folder / "one")
    assert done.returncode == 0, done.stderr
    assert "reused    5 images" in done.stdout
    failing = ("repeats=2", "data.limit=2", "editor.params.fail=[s-1@2]")
    assert launch(*words, "--run-dir", folder / "failing", *failing).returncode == 3
    return folder


def test_a_run_of_several_seeds_says_what_the_seeds_do(runs: Path) -> None:
    one, three = images(runs / "one"), images(runs / "three")
    assert len(three) == 15
    assert {i: three[i] for i in one} == one
    assert len({three["s-0"], three["s-0@2"], three["s-0@3"]}) == 3
    table = rows(runs / "three")
    assert [(row["id"], row["sample"], row["repeat"]) for row in table[4:6]] == [
        ("s-4", "s-4", "1"),
        ("s-0@2", "s-0", "2"),
    ]
    assert "repeat" not in rows(runs / "one")[0]
    found = summary(runs / "three")
    assert summary(runs / "one")["repeats"] is None
    assert (found["counts"]["planned"], found["repeats"]["samples_planned"], found["repeats"]["seeds_planned"]) == (
        15,
        5,
        3,
    )
    expected = spread_of([float(row["brightness"]) for row in table], [row["sample"] for row in table])
    assert expected is not None
    assert found["repeats"]["between_seeds"] == pytest.approx(expected.between_seeds, rel=1e-4)
    assert found["repeats"]["between_seeds"] > 0
    assert found["overall"]["scored_only"]["micro"]["clusters"] == 5, "an interval counts samples"
    for file in ("report.md", "report.html"):
        text = (runs / "three" / "report" / file).read_text()
        assert "Each of 5 samples has 3 seeds" in text
        assert found["repeats"]["advice"] in text
    assert "Intervals count samples, not edits." in (runs / "three" / "report" / "report.md").read_text()


def test_samples_are_compared_by_their_mean_over_the_seeds(runs: Path) -> None:
    compared = compare_runs([runs / "one", runs / "three"], pictures=True)
    found = compared["comparisons"][0]
    assert (found["n"], found["left_out"]) == (5, {})
    table = rows(runs / "three")
    means = [np.mean([float(r["brightness"]) for r in table if r["sample"] == f"s-{n}"]) for n in range(5)]
    assert found["mean_other"] == pytest.approx(np.mean(means), rel=1e-5)
    assert "repeats: 1 → 3" in found["cautions"]
    assert [(seeds["run"], seeds["seeds"], seeds["pairs"]) for seeds in found["seeds"]] == [("three", 3, 3)]
    assert found["images"]["identical"] == 5, "of the first seed"
    assert found["seeds"][0]["images"]["identical"] == 0
    shown = launch("compare", runs / "one", runs / "three", "--images").stdout
    assert "two seeds of three differ by" in shown
    assert "images of two seeds of three: 0 of 5 identical" in shown


def test_a_seed_that_failed_is_left_out_of_its_samples_mean_and_counts_as_worst_where_failures_do(runs: Path) -> None:
    found = compare_runs([runs / "one", runs / "failing"])["comparisons"][0]
    assert (found["n"], found["left_out"]) == (2, {"only in the plan of one": 3})
    by_id = {row["id"]: float(row["brightness"] or 0) for row in rows(runs / "failing")}
    first = (by_id["s-0"] + by_id["s-0@2"]) / 2
    assert found["mean_other"] == pytest.approx((first + by_id["s-1"]) / 2, rel=1e-5)
    assert found["failures_as_zero"]["mean_other"] == pytest.approx((first + by_id["s-1"] / 2) / 2, rel=1e-5)
    assert found["seeds_left_out"] == {"failing": 1}
    shown = launch("compare", runs / "one", runs / "failing").stdout
    assert "seeds without this score, left out of their samples' means: 1 in failing" in shown


def test_an_export_has_the_first_seed_and_says_so(runs: Path, tmp_path: Path) -> None:
    done = launch("export", runs / "three", "--format", "imgedit", "--out", tmp_path / "out", "--model", "m")
    assert done.returncode == 0, done.stderr
    assert "10 further seeds" in done.stdout
    assert "5 of 5 samples" in done.stdout
    files = {file.stem: file.read_bytes() for file in (tmp_path / "out").rglob("s-*.png")}
    assert files == images(runs / "one")
