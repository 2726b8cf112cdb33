"""Numbers that can be trusted: nothing vanishes from a denominator, nothing missing is a number."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pandas as pd
import pytest
from helpers import REPO, launch, run_dir

from slurm_bench.config import Config, DataConfig, PluginConfig, ReportConfig
from slurm_bench.data.text import as_text, printable
from slurm_bench.report import write
from slurm_bench.report.health import agreement
from slurm_bench.report.judges import judge_notes
from slurm_bench.report.markdown import escape
from slurm_bench.report.number import number
from slurm_bench.report.write import print_summary, write_report
from slurm_bench.run.durable import write_atomic
from slurm_bench.run.opened import Run, open_run
from slurm_bench.run.plan import Sample
from slurm_bench.run.provenance import read_provenance
from slurm_bench.run.records import Outcome, State
from slurm_bench.scorers.base import Score, as_rows, from_rows
from slurm_bench.scorers.metrics.reference import ReferenceMetrics


def outcome(**scores: float) -> Outcome:
    return Outcome(ok={"status": "ok", "scores": scores, "seconds": 1.0, "sha256": "x"})


def failed(message: str) -> Outcome:
    return Outcome(errors=[{"error": {"type": "ParseFailure", "message": message}}])


DONE = Outcome(ok={"status": "ok", "sha256": "x", "seconds": 2.0})


JUDGE = {"q": [1, 5, True], "aside": [0, 1, None]}


def made(
    tmp_path: Path, *rows: tuple[str, str, Outcome, dict[str, Outcome]], **more: Any
) -> tuple[dict[str, Any], list[dict[str, str]], str]:
    """summary.json, scores.csv and report.md of samples given as (id, category, edit, scores by scorer). `seeds` has
    each one's data id and repeat."""
    declared = more.pop("declared", None)
    facts = more.pop("facts", None) or [{} for _ in rows]
    seeds = more.pop("seeds", None) or [("", 1) for _ in rows]
    sources = more.pop("sources", None) or [f"{row[0]}.png" for row in rows]
    if declared is not None:
        (tmp_path / "provenance.json").write_text(json.dumps({"scores": declared}))
    scorers = {name: PluginConfig("m.S") for name in rows[0][3]}
    config = Config(data=DataConfig(), editor=PluginConfig("m.E"), scorers=scorers, **more)
    samples = [
        Sample(n, row[0], row[1], "do", (sources[n],), n, facts=facts[n], sample=seeds[n][0], repeat=seeds[n][1])
        for n, row in enumerate(rows)
    ]
    state = State(samples, {row[0]: row[2] for row in rows}, {row[0]: row[3] for row in rows})
    write_atomic(run_dir(tmp_path).config, b"")  # a folder without one was moved away
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


def test_what_stands_in_a_mean_as_the_end_of_its_scale_is_told_wherever_the_mean_is(tmp_path: Path) -> None:
    """PSNR has no value for equal images."""
    declared = {"m": {"similarity": [0, 1, True], "psnr": [0, 100, True, "equal images"]}}
    rows = [
        ("a", "c", DONE, {"m": outcome(similarity=1.0, psnr=100.0)}),
        ("b", "c", DONE, {"m": outcome(similarity=0.5, psnr=20.0)}),
        ("d", "c", DONE, {"m": outcome(similarity=0.5, psnr=40.0)}),
    ]
    words = "1 of 3 are equal images, which stand in the mean of psnr as 100: the mean of the others is 30.000."
    summary, _, text = made(tmp_path, *rows, declared=declared)
    assert summary["stand_ins"]["psnr"]["mean_of_others"] == pytest.approx(30)
    assert words in text
    assert words in (tmp_path / "report" / "report.html").read_text()
    summary, _, text = made(tmp_path, *rows[1:], declared=declared)
    assert summary["stand_ins"] == {}
    assert "stand in the mean" not in text
    _, _, text = made(tmp_path, *rows, declared=declared, headline="psnr")
    assert text.index(words) < text.index("## Every score"), "beside the headline's mean"
    assert ReferenceMetrics.scores["psnr"].high_is == "equal images"
    assert from_rows(as_rows(ReferenceMetrics.scores)) == ReferenceMetrics.scores


def test_several_scorers_keep_their_scores_apart_and_half_a_score_is_a_failure(tmp_path: Path) -> None:
    summary, table, text = made(
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
    assert "50.0 % lack a score." in text, "it has one"


NUMBERS = {7.1234: "7.123", 0.4 - 0.3: "0.100", 0.00123: "0.00123", -0.0456: "-0.0456", -0.0: "0.000", 1e308: "1e+308"}


@pytest.mark.parametrize(
    ("value", "shown"), [*NUMBERS.items(), (1e-12, "1e-12"), (None, "–"), (math.nan, "–"), (math.inf, "–")]
)
def test_a_number_near_0_keeps_three_digits(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_a_sample_that_failed_makes_its_seeds_no_shared_source(tmp_path: Path) -> None:
    rows = [
        (f"s-{n}@{k}", "c", DONE, {"j": outcome(q=float(n + k)) if n else failed("silent")})
        for n in range(4)
        for k in (1, 2)
    ]
    seeds = [(f"s-{n}", k) for n in range(4) for k in (1, 2)]
    own, shared = ([f"{of(n)}.png" for n in range(4) for _ in (1, 2)] for of in (lambda n: n, lambda n: n // 2))
    told = [made(tmp_path / str(n), *rows, seeds=seeds, sources=each)[2] for n, each in enumerate((own, shared))]
    assert ["Intervals count samples, not edits." in text for text in told] == [True, False]
    assert ["Some samples share a source image (2 sources)" in text for text in told] == [False, True]


def test_the_table_is_the_same_in_whatever_parts_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(str(n), "c", DONE, {"j": outcome(q=n) if n % 2 else failed("é \ud800")}) for n in range(7)]
    _, whole, _ = made(tmp_path / "whole", *rows)
    monkeypatch.setattr(write, "PART", 3)
    _, parts, _ = made(tmp_path / "parts", *rows)
    assert parts == whole
    if find_spec("pyarrow"):
        a, b = (pd.read_parquet(tmp_path / name / "report" / "scores.parquet") for name in ("whole", "parts"))
        assert a.equals(b)


def test_a_scored_sample_without_this_score_is_no_zero(tmp_path: Path) -> None:
    rows = [("a", "c", DONE, {"m": outcome(s=0.5, w=1.0)}), ("b", "c", DONE, {"m": outcome(w=1.0)})]
    summary, _, _ = made(tmp_path, *rows, headline="s")
    assert summary["overall"]["failures_as_zero"]["micro"]["mean"] == 0.5


def test_a_headline_need_not_name_its_scorer_where_a_second_one_gives_it_too(tmp_path: Path) -> None:
    rows = [("a", "c", DONE, {"j": outcome(q=8.0), "again": outcome(q=7.0)})]
    summary, _, _ = made(tmp_path, *rows, headline="q")
    assert (summary["headline"], summary["headline_rule"]) == ("j.q", "as configured")


def test_a_headline_that_no_sample_has_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A scorer that declares no scores can't be asked before."""
    summary, _, text = made(tmp_path, ("a", "c", DONE, {"j": outcome(quality=1.0)}), headline="qualty")
    rule = "as configured, but no sample has it; did you mean 'quality'?"
    assert summary["headline_rule"] == rule
    assert "did you mean" in text
    print_summary(run_dir(tmp_path))
    assert f"qualty: {rule}" in capsys.readouterr().out


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


def test_scores_whose_names_python_takes_for_one_are_two(tmp_path: Path) -> None:
    micro, mu = "\N{MICRO SIGN}", "\N{GREEK SMALL LETTER MU}"
    _, table, _ = made(tmp_path, ("a", "c", DONE, {"m": outcome(**{micro: 0.5, mu: 1.0})}))
    assert (table[0][micro], table[0][mu]) == ("0.5", "1.0")


@pytest.mark.parametrize(
    "row", [[[0], 10, True], ["0", 10, True], [0], [0, 10, "yes"], {"low": 0}, 7, None, [0, 10, True, 5]], ids=str
)
def test_a_damaged_scale_is_none(tmp_path: Path, row: Any) -> None:
    """Its file may be: the report is made as of a run that declared nothing."""
    assert from_rows({"q": row}) is None
    (tmp_path / "provenance.json").write_text(json.dumps({"scores": {"j": {"q": row}}}))
    summary, _, _ = made(tmp_path, ("a", "social", DONE, {"j": outcome(q=1.0)}))
    assert summary["overall"]["scored_only"]["micro"]["mean"] == 1


def test_a_record_that_lacks_its_seconds_or_a_side_is_no_traceback(tmp_path: Path) -> None:
    assert DONE.ok is not None
    untimed = Outcome(ok={name: value for name, value in DONE.ok.items() if name != "seconds"} | {"width": 384})
    summary, _, _ = made(
        tmp_path, ("a", "social", untimed, {"j": outcome(q=1.0)}), ("b", "social", DONE, {"j": failed("x")})
    )
    assert summary["seconds"]["edit"] == DONE.ok["seconds"]


def test_nothing_scored_at_all_still_makes_a_report(tmp_path: Path) -> None:
    summary, table, text = made(tmp_path, ("a", "c", Outcome(), {"m": Outcome()}))
    assert summary["overall"]["scored_only"]["micro"]["mean"] is None
    assert summary["headline"] is None
    assert table[0]["status"] == "missing"
    assert "no record" in text


def test_a_damaged_provenance_is_told(tmp_path: Path, finished_run: str, caplog: pytest.LogCaptureFixture) -> None:
    """The marks in it tell one maker's records from another's."""
    root = shutil.copytree(finished_run, tmp_path / "run")
    open_run(root)
    assert not caplog.messages
    (root / "provenance.json").write_text('{"by": 5}')
    open_run(root)
    (message,) = caplog.messages
    assert message.startswith(f"{root / 'provenance.json'}: damaged")


def test_a_provenance_that_can_not_be_read_is_never_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can't be made again: neither of a damaged one nor while a file server doesn't answer."""
    file, damaged = tmp_path / "provenance.json", '{"plan": {"sha256": "abc"}, "by": 5}'
    file.write_text(damaged)
    made(tmp_path, ("a", "c", DONE, {"j": outcome(q=1.0)}))
    assert file.read_text() == damaged
    monkeypatch.setattr("pathlib.Path.read_bytes", Mock(side_effect=OSError(errno.ESTALE, "Stale file handle")))
    with pytest.raises(OSError, match="Stale"):
        read_provenance(run_dir(tmp_path))


def test_a_plan_without_a_sample_still_makes_a_report(tmp_path: Path) -> None:
    """A damaged one may be empty; the headline is looked for by name, also where nothing has it."""
    scorers = {"m": PluginConfig("slurm_bench.scorers.metrics.ReferenceMetrics")}
    config = Config(data=DataConfig(), editor=PluginConfig("m.E"), scorers=scorers, headline="m.similarity")
    write_atomic(run_dir(tmp_path).config, b"")
    write_report(Run(run_dir(tmp_path), config, []), State([], {}, {}))
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["counts"]["planned"] == 0
    assert summary["categories"] == {}
    assert summary["overall"]["failures_as_zero"]["micro"]["mean"] is None


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


@pytest.mark.parametrize("hostile", ["a\rb", "a\x00b", "a\r\nb", "a\x0bb\x85c\u2028d", "=1+1", '"', "\ud800"])
def test_whatever_a_text_holds_a_sample_is_one_row_to_every_reader(tmp_path: Path, hostile: str) -> None:
    done = Outcome(ok={"status": "ok", "sha256": "x", "seconds": 2.0, "image": "edit/images/a.png"})
    name = as_text(hostile)  # as every reader of data does; an error may hold anything
    rows = [(name, name, done, {"m": outcome(q=1.0)}), ("z", "c", failed(hostile), {"m": Outcome()})]
    _, table, _ = made(tmp_path, *rows)
    assert [row["status"] for row in table] == ["ok", "error"]
    assert [*table[0]] == ["id", "category", "status", "q", "error", "instruction", "seed", "image", "seconds"]
    assert table[0]["image"] == "edit/images/a.png"
    assert (table[0]["seed"], table[0]["seconds"], table[1]["seconds"]) == ("0", "2.0", "")
    assert list(pd.read_csv(tmp_path / "report" / "scores.csv")["status"]) == ["ok", "error"]
    if find_spec("pyarrow"):
        assert list(pd.read_parquet(tmp_path / "report" / "scores.parquet")["q"].isna()) == [False, True]


def test_a_failure_counts_as_the_worst_value_of_the_scores_own_scale_and_is_named_so(tmp_path: Path) -> None:
    rows = [("a", "c", DONE, {"m": outcome(q=4.0, loss=0.1)}), ("b", "c", DONE, {"m": failed("no")})]
    for column, scale, worst, mean in [
        ("q", [1, 5, True], 1, 2.5),
        ("loss", [0, 1, False], 1, 0.55),
        ("q", [0, 10, None], None, None),
        ("loss", [0, None, False], None, None),
    ]:
        summary, _, text = made(tmp_path, *rows, headline=column, declared={"m": {column: scale}})
        row = summary["overall"]["failures_as_zero"]["micro"]
        assert (row["mean"], row["failure_counts_as"], summary["failures_count_as"]) == (mean, worst, worst)
        assert (f"A failure counts as {worst}" if worst is not None else "Failures can't be counted") in text
        assert summary["overall"]["scored_only"]["micro"]["n"] == 1


def test_a_failure_of_another_scorer_is_no_failure_of_the_headlines(tmp_path: Path) -> None:
    rows = [("a", "c", DONE, {"m": outcome(w=1.0), "j": failed("no")}), ("b", "c", DONE, {"m": outcome(s=0.5)})]
    for row in rows[1:]:
        row[3]["j"] = outcome(q=1.0)
    summary, _, _ = made(tmp_path, *rows, headline="m.s")
    assert summary["overall"]["failures_as_zero"]["micro"]["mean"] == 0.5


def test_the_headline_is_the_judges_first_aspect_and_says_why(tmp_path: Path) -> None:
    declared = {"j": {"aside": [0, 1, None], "first": [0, 10, True], "second": [0, 10, True]}}
    rows = [(i, "c", DONE, {"j": outcome(second=1.0, aside=1.0, first=2.0)}) for i in "ab"]
    summary, _, text = made(tmp_path, *rows, declared=declared)
    assert summary["headline"] == "first"
    assert "first score of the first scorer" in summary["headline_rule"]
    assert "`headline` in the configuration" in summary["headline_rule"]
    assert "**first**" in text
    summary, _, _ = made(tmp_path, ("a", "c", DONE, {"j": failed("silent")}), declared=declared)
    assert summary["headline"] == "first", "also where nothing could be scored"


def test_rates_and_descriptions_by_category(tmp_path: Path) -> None:
    rows = [(str(n), "c", DONE, {"j": outcome(q=float(1 + n % 5))}) for n in range(20)]
    rows += [("x", "c", DONE, {"j": failed("prose")}), ("y", "c", failed("boom"), {"j": Outcome()})]
    summary, _, text = made(tmp_path, *rows, declared={"j": JUDGE})
    row = summary["categories"]["c"]
    assert (row["n"], row["mean"], row["median"], row["too_few"]) == (20, 3.0, 3.0, False)
    assert row["sd"] == pytest.approx(1.451, abs=1e-3)
    assert row["histogram"]["edges"][0] == 1
    assert row["histogram"]["edges"][-1] == 5
    assert sum(row["histogram"]["counts"]) == 20
    assert (row["parse_failed"], row["failure_rate"]) == (1, pytest.approx(2 / 22, abs=1e-6))
    assert summary["rates"]["parse_failure_rate"] == pytest.approx(1 / 22, abs=1e-6)
    assert summary["health"]["j"]["parse_failures"] == {"c": 1}
    assert summary["health"]["j"]["extremes"]["q"] == {"lowest": 0.2, "highest": 0.2}
    assert "c: replies that couldn't be read: 1" in text


def test_a_report_is_cut_by_what_the_data_say_of_their_samples(tmp_path: Path) -> None:
    rows = [(i, "c", DONE, {"j": outcome(q=float(n))}) for n, i in enumerate("abc")]
    rows.append(("d", "c", DONE, {"j": failed("prose")}))
    facts = [{"hard": True, "tags": ["x", "y"]}, {"hard": False, "tags": ["y"]}, {}, {"hard": True}]
    by = ReportConfig(by=["hard", "tags", "unknown"])
    summary, _, text = made(tmp_path, *rows, facts=facts, report=by)
    hard, tags = summary["slices"]["hard"], summary["slices"]["tags"]
    assert {name: (row["planned"], row["n"], row["mean"]) for name, row in hard.items()} == {
        "false": (1, 1, 1.0),
        "true": (2, 1, 0.0),
    }
    assert {name: row["planned"] for name, row in tags.items()} == {"x": 1, "y": 2}
    assert "## By hard" in text
    assert "## By unknown\n\nNo sample has it." in text


def test_samples_of_one_source_are_not_independent(tmp_path: Path) -> None:
    rows = [(str(n), "c", DONE, {"j": outcome(q=float(n // 4 % 5))}) for n in range(80)]
    alone, _, _ = made(tmp_path, *rows)
    shared, _, text = made(tmp_path, *rows, sources=[f"{n // 4}.png" for n in range(80)])
    a, b = alone["overall"]["scored_only"]["micro"], shared["overall"]["scored_only"]["micro"]
    assert (a["clusters"], b["clusters"], a["mean"]) == (None, 20, b["mean"])
    assert b["ci_high"] - b["ci_low"] > 1.8 * (a["ci_high"] - a["ci_low"]), "twenty sources say less than eighty"
    assert "20 sources" in text


def test_a_judge_that_likes_edits_that_change_nothing_is_named(tmp_path: Path) -> None:
    def edit(unchanged: bool) -> Outcome:
        return Outcome(ok={"status": "ok", "sha256": "x", "seconds": 1.0, "unchanged": unchanged})

    def judged(q: float) -> Outcome:
        info = {"mass": {"q": 0.9 if q > 4 else 0.5}, "usage": {"prompt_tokens": 10}, "served_model": "m"}
        return Outcome(ok={"status": "ok", "scores": {"q": q}, "seconds": 1.0, "info": info})

    rows = [(str(n), "c", edit(n < 2), {"j": judged(5.0 if n < 2 else 3.0), "k": judged(4.0 - n)}) for n in range(4)]
    summary, _, text = made(tmp_path, *rows, declared={"j": JUDGE, "k": JUDGE})
    found = summary["health"]["j"]
    assert found["unchanged"]["scores"]["j.q"] == {"n": 2, "mean": 5.0, "others": 3.0, "likes_no_ops": True}
    assert found["unchanged"]["ids"] == ["0", "1"]
    assert found["mass"]["q"] == {"mean": pytest.approx(0.7), "lowest": 0.5}
    assert found["usage"] == {"prompt_tokens": 40}
    assert "it likes edits that change nothing" in text
    assert summary["agreement"][0]["scorers"] == ["j", "k"]
    assert summary["agreement"][0]["mean_shift"] == pytest.approx(-1.5)
    assert summary["agreement"][0]["spearman"] == pytest.approx(0.894, abs=1e-3)


@pytest.mark.parametrize(
    ("higher_is_better", "of_no_op", "likes"),
    [
        (True, 2.0, False),
        (True, 3.0, True),
        (True, 4.0, True),
        (False, 2.0, True),
        (False, 3.0, True),
        (False, 4.0, False),
    ],
)
def test_what_changes_nothing_is_liked_where_it_gets_no_worse_a_score_than_the_others(
    tmp_path: Path, higher_is_better: bool, of_no_op: float, likes: bool
) -> None:
    def edit(unchanged: bool) -> Outcome:
        return Outcome(ok={"status": "ok", "sha256": "x", "seconds": 1.0, "unchanged": unchanged})

    rows = [(str(n), "c", edit(not n), {"j": outcome(q=3.0 if n else of_no_op)}) for n in range(4)]
    summary, _, text = made(tmp_path, *rows, declared={"j": {"q": [1, 5, higher_is_better]}})
    found = summary["health"]["j"]["unchanged"]["scores"]["q"]
    assert found == {"n": 1, "mean": of_no_op, "others": 3.0, "likes_no_ops": likes}
    assert ("it likes edits that change nothing" in text) == likes


def test_scores_whose_scales_end_elsewhere_are_held_against_each_other_by_rank_alone() -> None:
    scorers = {"j": PluginConfig("m.J"), "k": PluginConfig("m.K")}
    config = Config(data=DataConfig(), editor=PluginConfig("m.E"), scorers=scorers)
    table = pd.DataFrame({"j.q": [1.0, 2.0, 3.0, 4.0], "k.q": [0.0, 2.0, 4.0, 6.0]})
    found = agreement(config, table, {"j": {"q": Score(1, 5)}, "k": {"q": Score(0, 10)}})
    assert [found[0][key] for key in ("spearman", "mean_shift", "weighted_kappa", "equal")] == [1, None, None, None]
    notes = judge_notes({"health": {}, "agreement": found, "people": [], "headline": "q"})
    assert notes["j and k"] == ["q, 4 samples: rank correlation 1.000"]


def test_edits_that_left_the_source_nearly_as_it_was_count_with_those_that_did(tmp_path: Path) -> None:
    def edit(**said: Any) -> Outcome:
        return Outcome(ok={"status": "ok", "sha256": "x", "seconds": 1.0, **said})

    edits = [
        edit(unchanged=True, largest_change=0),
        edit(unchanged=False, largest_change=16),
        edit(unchanged=False, largest_change=17),
        edit(unchanged=False),  # of an older version, which didn't look
    ]
    rows = [(str(n), "c", done, {"j": outcome(q=float(4 - n))}) for n, done in enumerate(edits)]
    summary, _, text = made(tmp_path, *rows, declared={"j": JUDGE})
    found = summary["health"]["j"]["unchanged"]
    assert (found["count"], found["nearly"], found["ids"]) == (2, 1, ["0", "1"])
    assert found["scores"]["q"] == {"n": 2, "mean": 3.5, "others": 1.5, "likes_no_ops": True}
    assert "2 unchanged images, 1 of them nearly, got 3.500" in text
    assert summary["counts"]["unchanged"] == 1, "nearly isn't: that is counted pixel by pixel"
    samples = json.loads((tmp_path / "report" / "page" / "data.js").read_text()[len("var REPORT = ") :].rstrip(";\n"))
    assert [sample["flags"] for sample in samples["samples"]] == [["unchanged"], ["nearly unchanged"], [], []]


def test_a_judge_that_judged_twice_tells_its_noise(tmp_path: Path) -> None:
    twice = [(3.0, 3.0), (4.0, 5.0), (2.0, 2.0), (5.0, 4.0), (1.0, 1.0)]
    rows = [(str(n), "c", DONE, {"j": outcome(q=a), "again": outcome(q=b)}) for n, (a, b) in enumerate(twice)]
    summary, _, text = made(tmp_path, *rows, declared={"j": JUDGE, "again": JUDGE})
    (found,) = summary["agreement"]
    assert (found["same_judge"], found["equal"], found["mean_shift"]) == (True, 0.6, 0.0)
    assert found["sd"] == pytest.approx(0.5**0.5)
    assert "60.0 % got equal marks" in text
    assert "moves one mark by 0.500 and their mean by 0.224" in text


def test_a_long_list_of_failures_is_cut_with_a_count(tmp_path: Path) -> None:
    rows = [(f"id-{n}", "c", failed("boom"), {"j": Outcome()}) for n in range(230)]
    summary, _, text = made(tmp_path, *rows)
    assert len(summary["failures"]) == 230
    assert text.count("| id-") == 200
    assert "And 30 more" in text


def test_the_report_names_what_was_run(tmp_path: Path) -> None:
    facts = {
        "models": {
            "editor": {"model": "Some/Editor", "revision": "abc123"},
            "scorers.j": {"model": "Some/Judge", "rubrics_sha256": "feed"},
        },
        "git": {"revision": "0123456789abcdef", "dirty": False},
    }
    (tmp_path / "provenance.json").write_text(json.dumps(facts))
    edited = Outcome(ok={"status": "ok", "sha256": "x", "seconds": 1.0, "info": {"profile": "fp8", "steps": 8}})
    _, _, text = made(tmp_path, ("a", "c", edited, {"j": outcome(q=1.0)}))
    for fact in ("Some/Editor", "abc123", "Some/Judge", "feed", "fp8 (1)", "8 (1)", "0123456789ab"):
        assert fact in text, fact


def test_a_run_is_reported_without_its_plug_ins(tmp_path: Path, finished_run: str) -> None:
    """The scorer's scale is stored at launch: the report imports no plug-in."""
    provenance = json.loads((Path(finished_run) / "provenance.json").read_text())
    assert provenance["scores"] == {"judge": {"*": [0, 255, True]}}
    probe = (
        "import sys; from slurm_bench.cli import main; main(sys.argv[1:]); assert 'tests.plugins' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, "report", finished_run], cwd=REPO, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((Path(finished_run) / "report" / "summary.json").read_text())
    assert summary["overall"]["failures_as_zero"]["micro"]["failure_counts_as"] == 0


def test_a_page_to_send_is_made_in_a_locale_without_its_characters(tmp_path: Path, finished_run: str) -> None:
    root = shutil.copytree(finished_run, tmp_path / "run")
    done = launch(
        *("report", root, "--single-file"),
        env={**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
    )
    assert done.returncode == 0, done.stderr
    assert "±" in (root / "report" / "report-single.html").read_text(encoding="utf-8")
