"""Where the hours of tasks went, from journals and records with known times: each second is told once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import launch, run_dir
from tasks import prepare, work

from slurm_bench.report.write import write_report
from slurm_bench.run.attempts import claim, read_attempts
from slurm_bench.run.hours import TaskHours, by_stage, hours_of
from slurm_bench.run.opened import open_run
from slurm_bench.run.timeline import read_timeline

CLAIMED = 1000.0
PARTS = {"text": 1.0, "denoise": 3.0, "encode": 0.5}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A planned run of six samples with an attempt of two tasks, by Slurm, that nobody has worked on."""
    root = prepare(tmp_path, "Tint", {})
    run = run_dir(root)
    attempt = claim(run, "edit", [f"s-{n}" for n in range(6)], 2, "slurm", 0, 1)
    assert attempt is not None
    line = json.loads(run.attempt("edit", 1).read_text())
    run.attempt("edit", 1).write_text(json.dumps({**line, "time": CLAIMED, "job_id": "7", "finish_job_id": "8"}))
    return root


def journal(root: Path, task: int, restart: int, *rows: dict[str, Any]) -> None:
    file = run_dir(root).journal("edit", 1, task, restart)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def records(root: Path, task: int, restart: int, *rows: tuple[int, float, float, dict[str, float]]) -> None:
    """Of sample n, at a time, so many seconds in the plug-in, and by part."""
    file = run_dir(root).manifest("edit", 1, task, restart)
    file.parent.mkdir(parents=True, exist_ok=True)
    stamp = {"status": "ok", "sha256": "0", "image": "i", "attempt": 1, "task": task}
    lines = [
        {"id": f"s-{n}", "time": time, "seconds": took, "info": {"seconds": parts}, **stamp}
        for n, time, took, parts in rows
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def at(event: str, time: float, **facts: Any) -> dict[str, Any]:
    return {"event": event, "time": time, **facts}


def hours(root: Path) -> list[TaskHours]:
    run = open_run(root)
    return hours_of(read_attempts(run.folder), read_timeline(run.folder), run.folder)


def test_each_second_of_a_task_is_told_once(root: Path) -> None:
    journal(
        root,
        0,
        0,
        at("spawn", 1102, held=1100.0),  # 100 s in the queue
        at("start", 1105, began=1103.0, node="n1", gpus=[{"name": "H100"}]),
        at("waits", 1107),  # 7 s of Python and imports
        at("loads", 1110),  # 3 s for the load slot
        at("part", 1114, name="import torch", begin=1110.0, seconds=4.0),
        at("loaded", 1120, took=10),  # 10 s, 4 of them imports
        at("works", 1122),  # 2 s of preparation
        at("part", 1142, name="samples", begin=1122.0, seconds=20.0),
        at("end", 1143, how="done"),
        at("exit", 1144, code=0),
    )
    # 20 s of work: 8 in the first sample, where 4 are usual, and 4 in each of the others; 4 s are nobody's.
    records(root, 0, 0, (0, 1131, 8, {"text": 2.0, "denoise": 6.0}), (2, 1136, 4, PARTS), (4, 1141, 4, PARTS))
    journal(root, 1, 0, at("spawn", 1150), at("start", 1151, began=1150.5), at("works", 1160), at("end", 1163))
    first, second = hours(root)
    assert (first.queue, first.held, first.tail, first.node, first.gpu) == (100, 44, 19, "n1", "H100")
    assert first.by_kind == pytest.approx(
        {"imports": 11, "load wait": 3, "load": 6, "warm-up": 6, "denoise": 9, "text": 3, "idle": 6}
    )
    assert list(first.by_kind) == ["imports", "load wait", "load", "warm-up", "denoise", "text", "idle"]
    assert first.behind == 1.0
    assert (second.queue, second.held, second.tail, second.gpu) == (150.5, 12.5, 0, "")
    whole = by_stage([first, second], open_run(root).state())["edit"]
    assert (whole.tasks, whole.samples, whole.held, whole.tail) == (2, 3, 56.5, 19)
    assert whole.a_sample == pytest.approx(56.5 / 3)


def test_work_that_was_done_again_was_work(root: Path) -> None:
    """By another task, or by another editor since: it is in no number, but its seconds weren't idle."""
    for task in (0, 1):
        journal(root, task, 0, at("start", 1100), at("works", 1100), at("end", 1120))
        records(root, task, 0, (0, 1110, 10, {}), (2, 1120, 10, {}))
    file = run_dir(root).manifest("edit", 1, 1, 0)
    file.write_text(file.read_text().replace('"info"', '"by": "another", "info"'))
    assert [task.by_kind for task in hours(root)] == [{"other work": 20}] * 2
    again = '{"id": "s-0", "status": "lost", "edit_time": 1110}\n'
    (run_dir(root).records("edit") / "lost-1.jsonl").write_text(again)
    assert [task.by_kind for task in hours(root)] == [{"other work": 20}] * 2


def test_a_record_with_half_a_character_took_its_time_and_one_without_a_time_did_not(root: Path) -> None:
    journal(root, 0, 0, at("start", 1100), at("works", 1100), at("end", 1120))
    records(root, 0, 0, (0, 1110, 10, {}), (2, 1120, 10, {}), (4, 0, 5, {}))
    file = run_dir(root).manifest("edit", 1, 0, 0)
    file.write_text(file.read_text().replace('"info"', '"raw": "\\ud83d", "info"', 1) + '{"id": "s-4", "tor')
    (task,) = hours(root)
    assert (task.by_kind, task.records) == ({"other work": 20}, 2)


def test_what_a_process_did_after_its_last_record_died_with_it(root: Path) -> None:
    begun = at("start", 1003, began=1002.0), at("works", 1004)
    journal(root, 0, 0, at("spawn", 1002, held=1001.0), *begun, at("exit", 1020, code=-9))
    journal(root, 0, 1, at("spawn", 1020.5), at("start", 1022, began=1021.0), at("works", 1023), at("end", 1030))
    # Slurm ran the job again, half an hour later.
    again = at("start", 2802, began=2801.0), at("works", 2803)
    journal(root, 0, 2, at("spawn", 2801, held=2800.0), *again, at("end", 2810))
    records(root, 0, 0, (0, 1010, 5, {}))
    records(root, 0, 1, (2, 1029, 5, {}))
    (task,) = hours(root)
    assert task.queue == 1 + (2800 - 1030)
    assert task.by_kind == {"imports": 3 + 3 + 3, "other work": 10, "idle": 1 + 2 + 7, "lost": 10}
    assert task.held == (1030 - 1001) + (2810 - 2800)


def test_text_that_was_encoded_ahead_is_no_warming_up(root: Path) -> None:
    journal(root, 0, 0, at("start", 1000), at("loaded", 1001, took=1), at("works", 1011), at("end", 1021))
    own = {"text": 2.0, "denoise": 3.0}
    records(root, 0, 0, (0, 1014, 3, own), (2, 1017, 3, own), (4, 1020, 3, own))
    (task,) = hours(root)
    assert task.by_kind == {"imports": 1, "warm-up": 4, "denoise": 9, "text": 6, "idle": 1}


@pytest.mark.parametrize(("took", "text"), [(-1.0, 1.0), (2.0, 1e308)])
def test_what_a_clock_that_was_set_back_or_a_plug_in_tells_is_no_endless_time(
    root: Path, took: float, text: float
) -> None:
    journal(root, 0, 0, at("start", 1100), at("works", 1101), at("part", 1111, name="samples", begin=1101, seconds=10))
    records(root, 0, 0, (0, 1110, took, {"text": text}))
    (row,) = hours(root)
    assert all(0 <= seconds <= 11 for seconds in row.by_kind.values()), row.by_kind
    json.dumps(row.as_json(), allow_nan=False)


def test_journals_of_before_the_work_was_noted_have_it_from_the_records(root: Path) -> None:
    journal(root, 0, 0, at("start", 1000), at("end", 1030))
    records(root, 0, 0, (0, 1010, 4, {}), (2, 1020, 4, {}))
    (task,) = hours(root)
    assert task.by_kind == {"imports": 6, "other work": 8, "idle": 16}


def test_a_task_at_work_is_told_up_to_its_last_word(root: Path) -> None:
    journal(root, 0, 0, at("start", 1000), at("works", 1001))
    records(root, 0, 0, (0, 1010, 4, {}))
    (task,) = hours(root)
    assert (task.held, task.end) == (10, 1010)
    assert "lost" not in task.by_kind


def test_a_real_task_adds_up_and_the_report_and_status_tell_it(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Parts", {})
    work(root, slices=2)
    work(root, "score")
    tasks = hours(root)
    assert [(task.stage, task.task, task.records) for task in tasks] == [
        ("edit", 0, 3),
        ("edit", 1, 3),
        ("score", 0, 6),
    ]
    for task in tasks:
        assert task.held == pytest.approx(task.end - task.begin, abs=0.01)
        assert task.tail >= 0
    assert {"load", "text", "denoise", "idle"} <= tasks[0].by_kind.keys()

    done = launch("status", root, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["hours"]
    assert told["stages"]["edit"]["by_kind"].keys() >= {"load", "text", "denoise"}
    assert [row["task"] for row in told["tasks"]] == [0, 1, 0]
    run = open_run(root)
    write_report(run, run.state())
    report, page = ((run.folder.report / name).read_text() for name in ("report.md", "report.html"))
    assert "## Where the hours went" in report
    assert "| time in all |" in report  # its parts are told from a share on, and here they take next to nothing
    assert 'class="edit load"' in page
    assert "edit, 2 tasks" in page


def test_a_run_whose_logs_are_gone_has_no_hours_and_a_report_all_the_same(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    work(root)
    run = open_run(root)
    for file in run.folder.journals.iterdir():
        file.unlink()
    assert write_report(run, run.state())["hours"] == {}
    assert "hours went" not in (run.folder.report / "report.md").read_text()


@pytest.mark.parametrize(("gpus", "unit"), [(0, ""), (1, "GPU-"), (2, "task-")])
def test_hours_are_called_gpu_hours_where_a_task_has_one_gpu(root: Path, gpus: int, unit: str) -> None:
    journal(
        root,
        0,
        0,
        at("start", 1000, gpus=[{"name": "H100", "driver": "580"}] * gpus),
        at("works", 1000),
        at("end", 1030),
    )
    run = open_run(root)
    told = write_report(run, run.state())["hours"]["edit"]
    assert (told["gpus"], told["held"]) == (gpus, 30)
    report = (run.folder.report / "report.md").read_text()
    assert f"## Where the {unit}hours went" in report
    assert f"| {unit}time in all | 30.0 s |" in report


def test_an_attempt_that_is_not_known_any_more_is_left_out(root: Path) -> None:
    journal(root, 0, 0, at("start", 1000), at("end", 1030))
    run = open_run(root)
    others = [replace(attempt, number=2) for attempt in read_attempts(run.folder)]
    assert hours_of(others, read_timeline(run.folder), run.folder) == []
