"""A benchmark's own numbers where not everything went well: what each counts, and what stands beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_report import DONE, failed, made, outcome

from slurm_bench.bundled import bundled
from slurm_bench.report import official as official_rows
from slurm_bench.run.records import Outcome
from slurm_bench.scorers.protocols.description import Number

Rows = dict[tuple[str, str, str | None, str], dict[str, Any]]


def official(
    tmp_path: Path,
    name: str,
    *samples: tuple[str, str, Outcome, Outcome],
    protocol: Mapping[str, Any] | None = None,
    **more: Any,
) -> tuple[Rows, str]:
    """Of a run by a bundled protocol, changed by `protocol`, its samples given as (id, category, edit, outcome of the
    judge): each number by its name, group, part and subset; and report.md."""
    says = {"scorers.j": {"model": "gpt-4.1", "prompts_sha256": "abc"}}
    asked = yaml.safe_load(bundled(f"protocols/{name}.yaml").read_bytes()) | (protocol or {})
    (tmp_path / "provenance.json").write_text(json.dumps({"models": says, "protocols": {"j": asked}}))
    judged = [(i, category, edit, {"j": outcome}) for i, category, edit, outcome in samples]
    summary, _, report = made(tmp_path, *judged, **more)
    rows = summary["official"]["j"]["rows"]
    return {(row["name"], row["group"], row["part"], row["subset"]): row for row in rows}, report


def over_all(rows: Rows, name: str) -> dict[str, Any]:
    return rows[name, "all", None, ""]


def refused() -> Outcome:
    return Outcome(errors=[{"error": {"type": "ParseFailure", "message": "no"}, "info": {"refused": True}}])


def test_what_each_number_counts(tmp_path: Path) -> None:
    """RISEBench leaves out of its score what couldn't be judged, and counts it as wrong in its accuracy. With failures,
    as in the summary, what is missing is one."""
    rows, report = official(
        tmp_path,
        "risebench",
        ("a", "causal_reasoning", DONE, outcome(score=5.0, accuracy=1.0, reasoning=5.0)),
        ("b", "causal_reasoning", DONE, outcome(score=3.0, accuracy=0.0, reasoning=3.0)),
        ("c", "logical_reasoning", DONE, failed("no final score")),
        ("d", "logical_reasoning", DONE, refused()),
        ("e", "spatial_reasoning", failed("boom"), Outcome()),
        ("f", "spatial_reasoning", Outcome(), Outcome()),
    )
    score, accuracy = over_all(rows, "Score-Percentage"), over_all(rows, "Accuracy")
    assert score["value"] == score["ours"]["mean"] == 25 * (4 - 1)
    assert score["with_failures"] == pytest.approx(25 * ((5 + 3 + 1 + 1 + 1 + 1) / 6 - 1))
    assert accuracy["value"] == pytest.approx(100 * 1 / 4)  # of what was edited
    assert accuracy["with_failures"] == pytest.approx(100 * 1 / 6)
    for row in (score, accuracy):
        assert [row[key] for key in ("planned", "judged", "failed", "refused", "missing")] == [6, 2, 2, 1, 1]
    assert over_all(rows, "Reasoning")["value"] == 25 * (4 - 1)
    assert over_all(rows, "VisualPlausibility")["value"] is None
    assert "| Accuracy | all | 25.000 | 25.000 |" in report
    assert "- samples: 6 of the benchmark's 360" in report


def test_a_number_counts_only_what_was_to_have_it(tmp_path: Path) -> None:
    """RISEBench asks nobody for a logical sample's plausibility: one that failed is no failure of that number."""
    marks = {"score": 5.0, "accuracy": 1.0, "reasoning": 5.0, "consistency": 5.0}
    rows, _ = official(
        tmp_path,
        "risebench",
        ("a", "temporal_reasoning", DONE, outcome(**marks, plausibility=5.0)),
        ("b", "temporal_reasoning", DONE, outcome(**{n: v for n, v in marks.items() if n != "consistency"})),
        ("c", "temporal_reasoning", DONE, failed("no final score")),
        ("d", "logical_reasoning", DONE, outcome(**marks)),
        ("e", "logical_reasoning", DONE, failed("no final score")),
        ("f", "logical_reasoning", Outcome(), Outcome()),
        facts=[{"consistency_free": n == 1} for n in range(6)],
    )
    plausible = over_all(rows, "VisualPlausibility")
    assert [plausible[key] for key in ("planned", "judged", "failed", "missing")] == [2, 1, 1, 0]
    assert plausible["with_failures"] == pytest.approx((100 + 0) / 2)
    consistent = over_all(rows, "ApprConsistency")
    assert [consistent[key] for key in ("planned", "judged", "failed", "missing")] == [5, 2, 2, 1]
    assert [over_all(rows, "Reasoning")[key] for key in ("planned", "judged", "failed")] == [6, 3, 2]


def test_a_subset_may_be_of_a_category(tmp_path: Path) -> None:
    told = [("a", "style", DONE, outcome(score=5.0)), ("b", "add", DONE, outcome(score=3.0))]
    subsets = {"hard": {"category": "Style"}, "shown": {"has_reference": True}}
    rows, _ = official(tmp_path, "imgedit", *told, protocol={"subsets": subsets})
    planned = {subset: row["planned"] for (name, _, _, subset), row in rows.items() if name == "mean of all samples"}
    assert planned == {"hard": 1, "shown": 0}


def test_every_task_counts_alike_in_gedits_mean(tmp_path: Path) -> None:
    facts = [{"language": "en", "intersection": n == 0} for n in range(4)]
    rows, _ = official(
        tmp_path,
        "gedit",
        ("a", "text_change", DONE, outcome(O=2.0, SC=2.0, PQ=2.0)),
        ("b", "ps_human", DONE, outcome(O=8.0, SC=8.0, PQ=8.0)),
        ("c", "ps_human", DONE, outcome(O=6.0, SC=6.0, PQ=6.0)),
        ("d", "ps_human", DONE, failed("no score")),
        facts=facts,
    )
    full, intersection = (rows["G_O", "all", "en", subset] for subset in ("full set", "intersection"))
    assert full["value"] == full["ours"]["mean"] == (2 + 7) / 2
    assert full["with_failures"] == pytest.approx((2 + (8 + 6 + 0) / 3) / 2)
    assert (intersection["value"], intersection["judged"], intersection["failed"]) == (2, 1, 0)
    assert full["categories"] == {"benchmark": 11, "judged": 2}


def test_samples_without_the_fact_that_numbers_are_cut_by_stand_apart(tmp_path: Path) -> None:
    told = [(i, "style", DONE, outcome(score=score)) for i, score in (("a", 5.0), ("b", 3.0))]
    rows, report = official(tmp_path, "imgedit", *told, protocol={"split": "lang"}, facts=[{"lang": "en"}, {}])
    means = {part: row["value"] for (name, _, part, _), row in rows.items() if name == "mean of all samples"}
    assert means == {"en": 5.0, "without lang": 3.0}
    assert "without lang" in report


def test_an_interval_counts_source_images(tmp_path: Path) -> None:
    scores = [1.0, 1.0, 5.0, 5.0, 2.0, 2.0]
    edits = [(str(n), "style", DONE, outcome(score=score)) for n, score in enumerate(scores)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    shared, _ = official(tmp_path / "a", "imgedit", *edits, sources=[f"{n // 2}.png" for n in range(6)])
    apart, _ = official(tmp_path / "b", "imgedit", *edits)
    wide, narrow = (over_all(rows, "mean of all samples")["ours"] for rows in (shared, apart))
    assert (wide["clusters"], narrow["clusters"]) == (3, None)
    assert wide["mean"] == narrow["mean"]
    assert wide["ci_high"] - wide["ci_low"] > narrow["ci_high"] - narrow["ci_low"]


def test_the_page_has_them_too_and_a_protocol_of_a_later_version_is_passed_over(tmp_path: Path) -> None:
    official(tmp_path, "imgedit", ("a", "style", DONE, outcome(score=4.0)))
    page = (tmp_path / "report" / "report.html").read_text()
    assert "ImgEdit (j)" in page
    assert "score by type" in page
    facts = json.loads((tmp_path / "provenance.json").read_text())
    facts["protocols"]["j"]["unheard_of"] = 1
    (tmp_path / "provenance.json").write_text(json.dumps(facts))
    summary, _, _ = made(tmp_path, ("a", "style", DONE, {"j": outcome(score=4.0)}))
    assert summary["official"] == {}


def test_a_scale_that_has_no_value_gives_no_number() -> None:
    """The run is scored, whatever a protocol of one's own divides by."""
    scaled = Number("N", ("score",), scale="1 / (mean - 3)")
    assert official_rows._scaled(scaled, 5.0) == 0.5
    assert official_rows._scaled(scaled, 3.0) is None
