"""What status says comes from the records, whatever the attempts once meant to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers import run_dir
from tasks import prepare, work

from slurm_bench.cluster.heard import hear
from slurm_bench.run.attempts import claim, close
from slurm_bench.run.opened import open_run
from slurm_bench.run.records import manifests
from slurm_bench.stages.stop import StopSignals
from slurm_bench.stages.task import run_task
from slurm_bench.watch.status import render_status, status_of

TWO = {
    "judge": {"class_path": "tests.plugins.Judge", "params": {"answers": {"s-2": "no idea"}}},
    "light": {"class_path": "tests.plugins.Brightness"},
}


def said(root: Path) -> dict[str, Any]:
    run = run_dir(root)
    return status_of(open_run(run.root), hear)


def counts(root: Path) -> tuple[int, ...]:
    found = said(root)["counts"]
    return tuple(found[name] for name in ("planned", "edited", "scored", "failed", "missing"))


def test_every_sample_is_counted_once_at_every_moment(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {"fail": ["s-1"]}, scorers=TWO)
    run = run_dir(root)
    assert counts(root) == (6, 0, 0, 0, 6)
    attempt = claim(run, "edit", [f"s-{n}" for n in range(6)], 2, "debug", 0, 1)
    assert attempt is not None
    assert counts(root) == (6, 0, 0, 0, 6), "claimed is not done"
    run_task(open_run(run.root), "edit", 1, 1, StopSignals())
    assert counts(root) == (6, 2, 0, 1, 5)
    run_task(open_run(run.root), "edit", 1, 0, StopSignals())
    close(run, attempt)
    assert counts(root) == (6, 5, 0, 1, 5)
    work(root, "score")
    assert counts(root) == (6, 5, 4, 2, 0), "a sample that one of two scorers failed has no score"


def test_a_sample_that_came_right_in_the_end_is_no_failure(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    work(root)
    (file,) = manifests(run_dir(root), "edit")
    line = '{"id": "s-0", "status": "error", "error": {"type": "E", "message": "before"}, "tries": 1}\n'
    file.write_text(line + file.read_text())
    work(root, "score")
    assert counts(root) == (6, 6, 6, 0, 0)
    (task,) = said(root)["attempts"][0]["tasks"]
    assert (task["samples"], task["ok"], task["error"], task["end"]) == (6, 6, 0, "done")


def test_each_task_says_what_it_did_and_how_it_ended(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {"fail": ["s-1"]})
    run = run_dir(root)
    assert claim(run, "edit", [f"s-{n}" for n in range(6)], 3, "slurm", 1, 1)
    run_task(open_run(run.root), "edit", 1, 1, StopSignals())
    (attempt,) = said(root)["attempts"]
    assert [(task["samples"], task["ok"], task["error"]) for task in attempt["tasks"]] == [
        (2, 0, 0),
        (2, 1, 1),
        (2, 0, 0),
    ]
    assert [task["end"] for task in attempt["tasks"]] == [None, "done", None]
    assert (attempt["executor"], attempt["retry"], attempt["closed"]) == ("slurm", 1, False)
    lines = render_status(said(root)).splitlines()
    assert lines[1] == "counts   6 planned, 1 edited, 0 scored, 1 failed, 5 missing"
    assert lines[2].startswith("edit     1/6, 1 failed")
    assert "retry 1" in lines[4]
    assert "not started" in lines[5]
    assert "2/2, 1 failed" in lines[6]
