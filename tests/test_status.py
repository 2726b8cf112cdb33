"""What status says comes from the records, whatever the attempts once meant to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import run_dir
from hypothesis import given
from hypothesis import strategies as st
from tasks import prepare, work

from slurm_bench.cluster.heard import hear
from slurm_bench.cluster.queue import Job
from slurm_bench.run.attempts import claim, close, note_jobs, read_attempts
from slurm_bench.run.journal import Journal, read_journals
from slurm_bench.run.manifest import Manifest, OkRecord
from slurm_bench.run.opened import open_run
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import Outcome, Scores, State, manifests
from slurm_bench.stages import takeover
from slurm_bench.stages.stop import StopSignals
from slurm_bench.stages.task import run_task
from slurm_bench.watch.by_task import by_task
from slurm_bench.watch.evidence import Hear, Heard
from slurm_bench.watch.job_logs import unborn_processes
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


def test_what_a_task_took_over_counts_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "WORTH", -1.0)
    root = prepare(tmp_path, "Tint", {})
    assert claim(run_dir(root), "edit", [f"s-{n}" for n in range(6)], 3, "slurm", 1, 1)
    run_task(open_run(root), "edit", 1, 1, StopSignals())
    (attempt,) = said(root)["attempts"]
    assert [(task["samples"], task["ok"]) for task in attempt["tasks"]] == [(0, 0), (6, 6), (0, 0)]


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


def note(root: Path, task: int, *events: dict[str, Any]) -> None:
    """The journal of a task's process that began at 100 s."""
    file = run_dir(root).journal("edit", 1, task, 0)
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"event": "start", "time": 100.0, "node": "n1"}, *events]
    file.write_text("".join(json.dumps({"time": 101.0, **row}) + "\n" for row in rows))


def record(root: Path, task: int, ids: Sequence[str], every: float) -> None:
    file = run_dir(root).manifest("edit", 1, task, 0)
    file.parent.mkdir(parents=True, exist_ok=True)
    facts = {"status": "ok", "sha256": "0", "image": "i", "attempt": 1, "task": task, "seconds": every}
    lines = [{"id": name, "time": 102.0 + every * n, **facts} for n, name in enumerate(ids)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


LOADED = ({"event": "waits"}, {"event": "loads"}, {"event": "loaded", "took": 1.0, "time": 101.5})


def test_what_each_task_is_doing_is_told_by_its_journal(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    assert claim(run_dir(root), "edit", [f"s-{n}" for n in range(6)], 6, "local", 0, 1)
    note(root, 1)
    note(root, 2, {"event": "waits"})
    note(root, 3, {"event": "loads"}, {"event": "part", "name": "import torch", "begin": 100.5, "seconds": 0.5})
    note(root, 4, *LOADED, {"event": "works", "time": 101.6})
    note(root, 5, *LOADED, {"event": "works", "time": 101.6}, {"event": "memory", "peak": 61 << 30})
    record(root, 5, ["s-5"], 1.0)
    (attempt,) = said(root)["attempts"]
    assert [task["state"] for task in attempt["tasks"]] == [
        "not started",
        "starting",
        "waiting for its load slot",
        "loading",
        "warming up",
        "working",
    ]
    assert [task["gpu_memory"] for task in attempt["tasks"]] == [None] * 5 + [61 << 30]
    assert "working on n1, 1 s each, 61.0 GiB" in render_status(said(root))


def test_a_standby_that_took_over_is_at_work_and_whoever_stands_behind_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = prepare(tmp_path, "Tint", {})
    work(root)
    close(run_dir(root), read_attempts(run_dir(root))[0])
    attempt = claim(run_dir(root), "score", [f"s-{n}" for n in range(6)], 1, "slurm", 0, 1, open_run(root).by)
    assert attempt is not None
    attempt = note_jobs(run_dir(root), attempt, (), "42", "43", "44")
    names = attempt.job_names
    behind = Job("44", names.standby, "PENDING", "Dependency")
    queue = [behind, Job("43", names.standby, "RUNNING")]

    def seen(hear: Hear) -> dict[str, Any]:
        found = status_of(open_run(root), hear)
        return {**found["attempts"][-1]["tasks"][0], "causes": found["causes"]}

    def began(restart: int) -> None:
        monkeypatch.setenv("SLURM_JOB_ID", str(42 + restart))
        journal = Journal(run_dir(root).journal("score", 1, 0, restart))
        journal.start()
        journal.note("works")

    began(0)
    at_work = lambda run, over: Heard(read_attempts(run), queue)  # noqa: E731
    assert (seen(at_work)["job"], seen(at_work)["causes"]) == ("43", []), "it is about to begin"
    began(1)
    assert (seen(at_work)["job"], seen(at_work)["state"], seen(at_work)["causes"]) == ("43", "working", [])

    waiting = lambda run, over: Heard(read_attempts(run), [behind], ended=lambda: [("43", "OUT_OF_MEMORY")])  # noqa: E731
    assert "memory was not enough" in seen(waiting)["causes"][0], "what is said of the job that had it last"

    run_dir(root).submitit.mkdir(parents=True)
    (run_dir(root).submitit / "44_0_log.err").write_text("job 44 on node n7\nbash: python: command not found\n")
    over = lambda run, over: Heard(read_attempts(run))  # noqa: E731
    assert any("python: command not found" in line for line in seen(over)["causes"])
    born = read_journals(run_dir(root), "score")
    assert [process.node for process in unborn_processes(run_dir(root), born)] == ["n7"]


def test_what_a_finishing_job_scores_itself_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That job and its standby go by the name of the attempt that they followed."""
    root = prepare(tmp_path, "Tint", {})
    work(root)
    folder, ids = run_dir(root), [f"s-{n}" for n in range(6)]
    close(folder, read_attempts(folder)[0])
    edited = claim(folder, "edit", ids, 1, "slurm", 0, 2, open_run(root).by)
    assert edited is not None
    edited = note_jobs(folder, edited, ("41",), "42", "43")
    close(folder, edited)
    scoring = claim(folder, "score", ids, 1, "slurm", 0, 1, open_run(root).by)
    assert scoring is not None
    note_jobs(folder, scoring, (), "42", None)
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    journal = Journal(folder.journal("score", 1, 0, 0))
    journal.start()
    journal.note("works")
    names = edited.job_names
    behind = Job("43", names.standby, "PENDING", "Dependency")
    for queue, state in (([Job("42", names.finish, "RUNNING"), behind], "working"), ([behind], "over: ended without")):
        found = status_of(open_run(root), lambda run, over, queue=queue: Heard(read_attempts(run), queue))
        assert found["attempts"][-1]["tasks"][0]["state"].startswith(state)
        assert bool(found["causes"]) == (state != "working")


def test_a_task_that_is_far_slower_than_its_peers_is_marked(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {}, count=20)
    assert claim(run_dir(root), "edit", [f"s-{n}" for n in range(20)], 4, "local", 0, 1)
    for task, every in enumerate((1.0, 1.2, 4.0, 0.9)):
        note(root, task, {"event": "works"})
        record(root, task, [f"s-{n}" for n in range(task, 16, 4)], every)
    found = said(root)
    assert [task["times_slower"] for task in found["attempts"][0]["tasks"]] == [None, None, 4.0, None]
    assert found["stages"]["edit"]["eta"] == 4.0, "the slowest task's one sample"
    lines = render_status(found, 40).splitlines()
    assert "left     at least 4 s: edit 4 s, score" in lines
    assert "as slow as the others" in " ".join(" ".join(lines).split())
    found["eta"] = found["stages"]["edit"]["eta"] = 0.0
    assert "left     not known yet" in render_status(found).splitlines(), "all is edited, nothing is scored"
    assert max(map(len, lines[1:])) <= 40


def test_the_time_that_a_task_waited_to_be_run_again_is_no_pace(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    assert claim(run_dir(root), "edit", [f"s-{n}" for n in range(6)], 1, "local", 0, 1)
    note(root, 0, {"event": "works"})
    record(root, 0, ["s-0", "s-1"], 1.0)
    again = run_dir(root).journal("edit", 1, 0, 1)
    again.write_text(json.dumps({"event": "start", "time": 5000.0, "node": "n1"}) + "\n")
    facts = {"status": "ok", "sha256": "0", "image": "i", "attempt": 1, "task": 0, "seconds": 1.0}
    lines = [{"id": f"s-{n}", "time": 5000.0 + n, **facts} for n in (2, 3, 4)]
    run_dir(root).manifest("edit", 1, 0, 1).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert said(root)["stages"]["edit"]["seconds_a_sample"] == 1.0


def test_a_node_whose_tasks_are_at_work_still_is_not_called_bad(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    assert claim(run_dir(root), "edit", [f"s-{n}" for n in range(6)], 2, "local", 0, 1)
    note(root, 0, {"event": "works"})
    note(root, 1, {"event": "works"}, {"event": "end", "how": "done", "ok": 3})
    journal = run_dir(root).journal("edit", 1, 1, 0)
    journal.write_text(journal.read_text().replace('"n1"', '"n2"'))
    assert [line for line in said(root)["causes"] if "node" in line] == []


@given(st.lists(st.tuples(st.sampled_from([None, 0, 1]), st.sampled_from([None, 0, 1])), max_size=12))
def test_what_a_task_has_done_is_counted_alike_for_one_scorer_and_for_several(
    made: list[tuple[int | None, int | None]],
) -> None:
    """By the task whose record came right, and the one whose failed."""
    files = [Manifest(Path(f"001-000{task}.jsonl"), (1, task, 0)) for task in (0, 1)]

    def outcome(ok: int | None, failed: int | None) -> Outcome:
        came_right = None if ok is None else OkRecord("s", attempt=1, task=ok, manifest=files[ok])
        return Outcome(came_right, [] if failed is None else [{"id": "s", "attempt": 1, "task": failed}])

    scores = {str(n): outcome(*by) for n, by in enumerate(made)}
    samples = [Sample(n, str(n), "c", "do", (), 0) for n in range(len(made))]
    found = []
    for names in ("s", "st"):
        state = State(samples, dict.fromkeys(scores, Outcome()), Scores(dict.fromkeys(names, scores)))
        parts = by_task(state).items()
        found.append({key: (part.ok, part.failed, len(part.records) / len(names)) for key, part in parts})
        assert [*state.scored(), *state.unscored()] == sorted(scores, key=lambda i: (scores[i].ok is None, int(i)))
    assert found[0] == found[1]
