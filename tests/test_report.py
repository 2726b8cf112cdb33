"""Numbers that can be trusted: nothing vanishes from a denominator, nothing missing is a number."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from helpers import run_dir

from slurm_bench.config import Config, DataConfig, PluginConfig
from slurm_bench.data.text import printable
from slurm_bench.report.markdown import escape
from slurm_bench.report.statistics import macro_mean_of, mean_of
from slurm_bench.report.write import write_report
from slurm_bench.run.opened import Run
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import Outcome, State


def outcome(**scores: float) -> Outcome:
    return Outcome(ok={"status": "ok", "scores": scores, "seconds": 1.0, "sha256": "x"})


def failed(message: str) -> Outcome:
    return Outcome(errors=[{"error": {"type": "ParseFailure", "message": message}}])


DONE = Outcome(ok={"status": "ok", "sha256": "x", "seconds": 2.0})


def made(
    tmp_path: Path, *rows: tuple[str, str, Outcome, dict[str, Outcome]], **more: Any
) -> tuple[dict[str, Any], list[dict[str, str]], str]:
    """summary.json, scores.csv and report.md of samples given as (id, category, edit, scores by scorer)."""
    scorers = {name: PluginConfig("m.S") for name in rows[0][3]}
    config = Config(data=DataConfig(), editor=PluginConfig("m.E"), scorers=scorers, **more)
    samples = [Sample(n, row[0], row[1], "do", ("x",), n) for n, row in enumerate(rows)]
    state = State(samples, {row[0]: row[2] for row in rows}, {row[0]: row[3] for row in rows})
    write_report(Run(run_dir(tmp_path), config, state.samples), state)
    with open(tmp_path / "report" / "scores.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    return summary, table, (tmp_path / "report" / "report.md").read_text()


def test_means_are_named_for_what_they_count(tmp_path: Path) -> None:
    summary, table, _ = made(
        tmp_path,
        ("a", "physical", DONE, {"j": outcome(q=8.0)}),
        ("b", "physical", DONE, {"j": outcome(q=6.0)}),
        ("c", "physical", DONE, {"j": failed("no score")}),
        ("d", "causal", DONE, {"j": outcome(q=1.0)}),
        ("e", "causal", failed("boom"), {"j": Outcome()}),
        ("f", "causal", Outcome(), {"j": Outcome()}),
    )
    assert summary["counts"] == {"planned": 6, "edited": 4, "scored": 3, "failed": 2, "missing": 1, "unchanged": 0}
    assert summary["overall"]["scored_only"]["micro"]["mean"] == pytest.approx(5.0)
    assert summary["overall"]["scored_only"]["macro"]["mean"] == pytest.approx((7 + 1) / 2)
    assert summary["overall"]["failures_as_zero"]["micro"]["mean"] == pytest.approx(15 / 6)
    assert summary["overall"]["failures_as_zero"]["macro"]["mean"] == pytest.approx((14 / 3 + 1 / 3) / 2)
    physical, causal = summary["categories"]["physical"], summary["categories"]["causal"]
    assert (physical["n"], physical["planned"], physical["failed"], physical["mean"]) == (2, 3, 1, 7.0)
    assert (causal["n"], causal["missing"], causal["ci_low"]) == (1, 1, None)
    assert physical["mean_failures_as_zero"] == pytest.approx(14 / 3)
    assert causal["mean_failures_as_zero"] == pytest.approx(1 / 3)
    assert physical["ci_low"] <= physical["mean"] <= physical["ci_high"]
    assert [(row["status"], row["q"]) for row in table] == [
        *[("ok", "8.0"), ("ok", "6.0"), ("error", ""), ("ok", "1.0"), ("error", ""), ("missing", "")]
    ]
    assert [f["id"] for f in summary["failures"]] == ["c", "e", "f"]


def test_several_scorers_keep_their_scores_apart_and_half_a_score_is_a_failure(tmp_path: Path) -> None:
    summary, table, _ = made(
        tmp_path,
        ("a", "c", DONE, {"j": outcome(q=8.0), "m": outcome(q=0.5, z=1.0)}),
        ("b", "c", DONE, {"j": failed("silent"), "m": outcome(q=0.25)}),
        headline="m.q",
    )
    assert table[0]["j.q"] == "8.0"
    assert (table[1]["j.q"], table[1]["m.q"], table[1]["m.z"], table[1]["status"]) == ("", "0.25", "", "error")
    assert summary["headline"] == "m.q"
    assert summary["categories"]["c"]["scores"]["j.q"]["n"] == 1
    assert "score (j): ParseFailure: silent" in table[1]["error"]


def test_a_scored_sample_without_this_score_is_no_zero(tmp_path: Path) -> None:
    rows = [("a", "c", DONE, {"m": outcome(s=0.5, w=1.0)}), ("b", "c", DONE, {"m": outcome(w=1.0)})]
    summary, _, _ = made(tmp_path, *rows, headline="s")
    assert summary["overall"]["failures_as_zero"]["micro"]["mean"] == 0.5


def test_the_headline_is_the_first_scorers_score_that_most_samples_have(tmp_path: Path) -> None:
    rows = [
        ("a", "c", DONE, {"j": outcome(rare=9.0, q=1.0, z=1.0), "m": outcome(w=1.0)}),
        ("b", "c", DONE, {"j": outcome(q=2.0, z=1.0), "m": outcome(w=1.0)}),
    ]
    summary, _, _ = made(tmp_path, *rows)
    assert summary["headline"] == "j.q"
    assert summary["categories"]["c"]["mean"] == 1.5


def test_a_score_cannot_take_a_fixed_columns_place(tmp_path: Path) -> None:
    _, table, _ = made(tmp_path, ("a", "c", DONE, {"m": outcome(id=0.5, status=1.0)}))
    assert table[0]["id"] == "a"
    assert table[0]["m.id"] == "0.5"


def test_nothing_scored_at_all_still_makes_a_report(tmp_path: Path) -> None:
    summary, table, text = made(tmp_path, ("a", "c", Outcome(), {"m": Outcome()}))
    assert summary["overall"]["scored_only"]["micro"]["mean"] is None
    assert summary["headline"] is None
    assert table[0]["status"] == "missing"
    assert "no record" in text


def test_text_from_the_data_stays_text(tmp_path: Path) -> None:
    hostile = "<script>x</script>|[a](http://b)\n# no"
    scores = outcome(**{hostile: 1.0, "q": 1.0})
    _, table, text = made(
        tmp_path, (hostile, hostile, failed(hostile), {"m": Outcome()}), ("a", hostile, DONE, {"m": scores})
    )
    assert "<script>" not in text
    assert "\n# no" not in text
    assert "[a](" not in text
    assert table[0]["id"] == printable(hostile)
    assert escape("a|b*c`") == "a\\|b\\*c\\`"


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
