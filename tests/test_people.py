"""People's marks beside a judge's scores: read strictly, and never believed beyond what chance allows."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from coverage_of_intervals import JUDGES, coverage_of_people
from helpers import launch, rows, summary

from slurm_bench.config import Config, DataConfig, PluginConfig
from slurm_bench.errors import UserError
from slurm_bench.report.people import people_say, read_people
from slurm_bench.report.prediction_powered import powered_mean
from slurm_bench.scorers.base import Score


@pytest.mark.parametrize("judge", JUDGES)
def test_peoples_mean_over_all_is_held_whatever_the_judge(judge: str) -> None:
    found = coverage_of_people(judge, 20, 200, 600)
    assert 0.92 <= found.held <= 0.98
    assert abs(found.bias) < 3.5, "the judge gives two points too many: that must not move the estimate"
    assert found.width < {"a good judge": 0.7, "a poor judge": 0.95, "a judge that guesses": 1.1}[judge] * found.alone


def test_ten_marks_move_it_no_more_than_a_thousand() -> None:
    """A weight that leans on the very mark it meets does, by a tenth of a mark."""
    assert abs(coverage_of_people("a good judge", 10, 200, 1500).bias) < 4


def test_the_weight_is_the_papers() -> None:
    rng = np.random.default_rng(0)
    marks, others = rng.normal(3, 1, 400), rng.normal(3, 1, 4000)
    found = powered_mean(list(marks), list(10 + 2 * marks), list(10 + 2 * others))
    assert found is not None
    assert found.weight == pytest.approx(0.5 / (1 + 400 / 4000), rel=0.05)
    assert found.residual == pytest.approx(0, abs=1e-9), "all that the marks say, the scores tell"
    both = float(np.concatenate([marks, others]).mean())
    assert found.mean == pytest.approx(both, abs=0.01), "such a judge's word is worth a mark"


def test_how_many_marks_a_width_takes() -> None:
    rng = np.random.default_rng(1)
    people = rng.normal(3, 1, 1000)
    judge = people + rng.normal(0, 0.5, 1000)
    found = powered_mean(list(people[:50]), list(judge[:50]), list(judge[50:]))
    assert found is not None
    assert found.ci_low is not None
    assert found.ci_high is not None
    assert found.width(50) == pytest.approx(found.ci_high - found.ci_low, rel=0.02)
    needed = found.marks_for(found.width(50) / 1.5)
    assert needed is not None
    assert found.width(needed) <= found.width(50) / 1.5 < found.width(needed - 1)
    more = powered_mean(list(people[:needed]), list(judge[:needed]), list(judge[needed:]))
    assert more is not None
    assert more.ci_low is not None
    assert more.ci_high is not None
    assert more.ci_high - more.ci_low == pytest.approx(found.width(50) / 1.5, rel=0.15)
    assert found.marks_for(0.001) is None, "a thousand samples can't say it"


def test_samples_of_one_source_count_once() -> None:
    rng = np.random.default_rng(2)
    people = np.repeat(rng.normal(3, 1, 60), 4)
    judge = people + np.repeat(rng.normal(0, 1, 60), 4)
    parts = list(people[:80]), list(judge[:80]), list(judge[80:])
    known, ignored = powered_mean(*parts, clusters=[n // 4 for n in range(240)]), powered_mean(*parts)
    assert known is not None
    assert ignored is not None
    assert known.ci_high - known.ci_low > 1.7 * (ignored.ci_high - ignored.ci_low)  # type: ignore[operator]


@pytest.mark.parametrize("scores", [[5.0] * 8, [1.0] * 7 + [9.0]])
def test_scores_that_tell_nothing_weigh_nothing(scores: list[float]) -> None:
    marks = [1.0, 2.0, 3.0, 4.0, 5.0, 4.0, 3.0, 2.0]
    found = powered_mean(marks, scores, [1.0] * 20)
    assert found is not None
    assert np.isfinite([found.mean, found.ci_low, found.ci_high]).all()
    assert powered_mean(marks[:4], scores[:4], [1.0]) is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("id,note\na,4\n", "the header has no column 'mark'; it needs id and mark"),
        ("id,mark\na,4\nc,4\n", ":3: 'id' is 'c', no sample of the run; scores.csv has the ids"),
        ("id,mark\nsample-on,4\n", ":2: 'id' is 'sample-on', no sample of the run; did you mean 'sample-one'?"),
        ("id,mark\na,4\na,5\n", ":3: 'id' is 'a' for the second time; keep one mark a sample"),
        ("id,mark\na,good\n", ":2: 'mark' is 'good'; write a number, as 4 or 3.5"),
        ("id,mark\na,nan\n", ":2: 'mark' is 'nan'; write a number"),
        ("id,mark\na,1e300\n", ":2: 'mark' is '1e300'; write a number"),
        ("id,mark\na\n", ":2: 'mark' is ''; leave out rows without a mark"),
        ("id,mark\na,3,5\n", "marks.csv: line 2 has 1 cells more than the header"),
        ("id,mark\n", "it has no row with a mark"),
    ],
)
def test_a_file_of_marks_is_read_strictly(tmp_path: Path, text: str, line: str) -> None:
    file = tmp_path / "marks.csv"
    file.write_text(text)
    with pytest.raises(UserError) as told:
        read_people(file, ["a", "b", "sample-one"])
    assert line in str(told.value)
    assert "--marks" in str(told.value)
    assert "\n" not in str(told.value)


def test_marks_in_another_encoding_are_refused_with_its_name(tmp_path: Path) -> None:
    """As Excel saves what it calls Unicode text."""
    file = tmp_path / "marks.txt"
    file.write_text("id\tmark\na\t4\n", encoding="utf-16")
    with pytest.raises(UserError, match=r"marks\.txt: it isn't UTF-8 but reads as UTF-16; save it as UTF-8 \("):
        read_people(file, ["a"])


def test_ids_are_those_of_scores_csv(tmp_path: Path) -> None:
    file = tmp_path / "marks.csv"
    file.write_bytes("\ufeffid;mark;who\r\nline\\nbreak;4;me\r\nb;3.5;\r\n".encode())
    assert read_people(file, ["line\nbreak", "b"]) == {"line\nbreak": 4.0, "b": 3.5}


def said(scores: list[float], marks: dict[int, float]) -> dict[str, Any]:
    """Of a run with one score on 0 to 10, which some samples (NaN) don't have."""
    ids = [str(n) for n in range(len(scores))]
    table = pd.DataFrame({"id": pd.Series(ids, dtype=object), "q": scores})
    config = Config(data=DataConfig(), editor=PluginConfig("m.E"), scorers={"j": PluginConfig("m.S")})
    given = {str(n): mark for n, mark in marks.items()}
    (row,) = people_say(given, None, table, np.arange(len(ids)), config, {"j": {"q": Score(0, 10)}})
    return row


def test_ids_that_differ_in_white_space_alone_stay_two(tmp_path: Path) -> None:
    file = tmp_path / "marks.csv"
    file.write_text("id,mark\na,1\na ,2\n b ,3\n")
    assert read_people(file, ["a", "a ", "b"]) == {"a": 1, "a ": 2, "b": 3}


@pytest.mark.parametrize("scale", [Score(0, None, higher_is_better=False), Score(0, 10, higher_is_better=None)])
def test_a_distance_is_on_no_scale_of_marks(scale: Score) -> None:
    table = pd.DataFrame({"id": [*"abcdef"], "lpips": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]})
    config = Config(data=DataConfig(), editor=PluginConfig("m.E"), scorers={"j": PluginConfig("m.J")})
    marks = dict(zip("abcdef", [5, 4, 4, 3, 2, 1], strict=True))
    (row,) = people_say(marks, None, table, np.arange(6), config, {"j": {"lpips": scale}})
    assert row["spearman"] == pytest.approx(-0.986, abs=0.01)
    assert row["mean_shift"] is row["weighted_kappa"] is None


def test_marks_that_chance_did_not_choose_are_told() -> None:
    scores = [float(n % 10) for n in range(200)]
    drawn = {n: scores[n] / 2 for n in range(0, 200, 7)}
    worst = {n: scores[n] / 2 for n in range(200) if scores[n] < 2}
    assert said(scores, drawn)["drawn_otherwise"] is None
    assert said(scores, worst)["drawn_otherwise"] == pytest.approx(0.5 - 5.5)


def test_marks_on_another_scale_only_rank() -> None:
    scores = [1.0, 5.0, 3.0, 9.0, 7.0, math.nan]
    row = said(scores, {0: 10.0, 1: 50.0, 2: 30.0, 3: 90.0, 4: 70.0, 5: 50.0})
    assert (row["n"], row["without_score"], row["of"]) == (5, 1, 5)
    assert row["spearman"] == pytest.approx(1)
    assert row["mean_shift"] is row["weighted_kappa"] is row["equal"] is None
    assert said(scores, {0: 1.0, 1: 5.0, 2: 3.0})["mean_shift"] == 0


def test_a_run_is_reported_beside_peoples_marks(tmp_path: Path, finished_run: str) -> None:
    root = Path(shutil.copytree(finished_run, tmp_path / "run"))
    scored = {row["id"]: float(row["brightness"]) / 51 for row in rows(root)}
    file = tmp_path / "marks.csv"
    marked = list(scored)[:8]
    file.write_text("id,mark\n" + "".join(f"{sample_id},{scored[sample_id]}\n" for sample_id in marked))
    done = launch("report", root, "--marks", file, "--width", "0.5")
    assert done.returncode == 0, done.stderr
    row, _ = summary(root)["people"]
    assert (row["score"], row["n"], row["of"]) == ("brightness", 8, len(scored))
    assert row["spearman"] == pytest.approx(1)
    everyone = sum(scored.values()) / len(scored)
    assert row["people_over_all"]["ci_low"] <= everyone <= row["people_over_all"]["ci_high"]
    assert row["people_over_all"]["width"] == 0.5
    for made in ("report.md", "report.html"):
        text = (root / "report" / made).read_text().replace("&#39;", "'")
        assert "people's mean over all" in text
        assert "an interval 0.5 wide would take" in text
    refused = launch("report", root, "--width", "0.5")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "--marks" in refused.stderr
    assert launch("report", root).returncode == 0
    assert summary(root)["people"] == []
