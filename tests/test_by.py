"""Every record says by whom; another's is not taken for done, and never counted under this one's name (law 14)."""

from __future__ import annotations

import json
from pathlib import Path

from helpers import images, launch, make_benchmark, make_config, rows, run_dir, summary

from slurm_bench.run.opened import open_run
from slurm_bench.run.records import read_records


def begun(tmp_path: Path, **more: object) -> tuple[Path, Path]:
    data = make_benchmark(tmp_path / "bench", 5)
    config = make_config(tmp_path / "c.yaml", data, **more)  # type: ignore[arg-type]
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "debug")
    assert done.returncode == 0, done.stderr
    return tmp_path / "run", config


def test_by_force_another_editor_relabels_nothing(tmp_path: Path) -> None:
    root, config = begun(tmp_path)
    first, by = images(root), open_run(root).by["editor"]
    words = ("--config", config, "--run-dir", root, "--executor", "debug", "editor.params.strength=7")
    refused = launch(*words)
    assert refused.returncode == 1
    assert "strength" in refused.stderr
    assert launch(*words, "--force").returncode == 0
    now = open_run(root).by["editor"]
    assert now != by
    records = read_records(run_dir(root), "edit")
    assert sorted(record["by"] for record in records) == sorted([by] * 5 + [now] * 5)
    assert {r["id"]: (root / r["image"]).read_bytes() for r in records if r["by"] == by} == first, (
        "none was overwritten"
    )
    counts = summary(root)["counts"]
    assert (counts["planned"], counts["edited"], counts["scored"]) == (5, 5, 5)
    assert open_run(root).state().others == {("edit", "editor", by): 5}
    text = (root / "report" / "report.md").read_text()
    assert f"5 by another editor ({by}" in text
    back = ("--config", config, "--run-dir", root, "--executor", "debug", "--force")
    assert launch(*back).returncode == 0
    assert len(read_records(run_dir(root), "edit")) == 10, "what the first one made is the first one's again"


def test_the_marks_do_not_hang_on_where_or_how_the_work_is_done(tmp_path: Path) -> None:
    root, config = begun(tmp_path)
    before = open_run(root).by
    launch("--config", config, "--run-dir", root, "--executor", "local", "gpus=4", "batch_size=2")
    assert open_run(root).by == before


def test_a_changed_judge_scores_again_and_edits_nothing(tmp_path: Path) -> None:
    judge = {"judge": {"class_path": "tests.plugins.Judge", "params": {"answers": {"s-1": 9.0}}}}
    root, _ = begun(tmp_path, scorers=judge)
    assert [row["overall"] for row in rows(root)] == ["5.0", "9.0", "5.0", "5.0", "5.0"]
    done = launch("score", root, "--executor", "debug", "scorers.judge.params.answers={s-2: 1.0}")
    assert done.returncode == 0, done.stderr
    assert [row["overall"] for row in rows(root)] == ["5.0", "9.0", "1.0", "5.0", "5.0"]
    assert len(read_records(run_dir(root), "edit")) == 5
    assert len(read_records(run_dir(root), "score")) == 10


def test_a_scorer_more_is_a_column_more(tmp_path: Path) -> None:
    root, _ = begun(tmp_path)
    before = {row["id"]: row["brightness"] for row in rows(root)}
    word = "scorers.second.class_path=slurm_bench.scorers.metrics.ReferenceMetrics"
    refused = launch("score", root, "--executor", "debug", word, "editor.params.strength=3")
    assert refused.returncode == 1
    assert "editor.params.strength" in refused.stderr
    word = "scorers.second={class_path: tests.plugins.Judge, params: {answers: {}}}"
    done = launch("score", root, "--executor", "debug", word)
    assert done.returncode == 0, done.stderr
    assert {row["id"]: row["judge.brightness"] for row in rows(root)} == before
    assert {row["second.overall"] for row in rows(root)} == {"5.0"}
    assert len([r for r in read_records(run_dir(root), "score") if r["scorer"] == "judge"]) == 5, "not judged again"


def test_score_does_not_edit_what_is_missing(tmp_path: Path) -> None:
    root, _ = begun(tmp_path)
    victim = open_run(root).state().edits["s-1"].ok
    assert victim is not None
    (root / victim["image"]).unlink()
    done = launch("score", root, "--executor", "debug")
    assert done.returncode == 3, done.stderr
    assert len(read_records(run_dir(root), "edit")) == 5


def test_the_run_folder_tells_who_a_mark_is(tmp_path: Path) -> None:
    root, _ = begun(tmp_path)
    provenance = json.loads((root / "provenance.json").read_text())
    assert provenance["makers"][provenance["by"]["editor"]]["class_path"] == "tests.plugins.Tint"
