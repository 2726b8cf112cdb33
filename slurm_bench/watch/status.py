"""`status`: how far a run is, by stage and task, and what keeps it from being further. From the records, the journals
and the queue; needs neither torch nor Slurm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from slurm_bench.data.text import printable
from slurm_bench.errors import COMPLETE, INCOMPLETE
from slurm_bench.machine import GIB, without_collection
from slurm_bench.run.attempts import Attempt
from slurm_bench.run.hours import by_stage, hours_of
from slurm_bench.run.journal import DONE
from slurm_bench.run.opened import Run
from slurm_bench.run.records import State
from slurm_bench.run.timeline import read_timeline
from slurm_bench.watch.evidence import STAGES, Evidence, Hear, Task, gather
from slurm_bench.watch.explain import LINE, explain, lines_of, next_of
from slurm_bench.watch.symptoms import QUIET
from slurm_bench.watch.wording import duration, fit, within

# So many tasks of an attempt are told one by one, those that aren't done first.
TOLD = 40
# So much of what a task is doing, or how it ended, stands in its line.
STATE = 160
# A task whose samples take so many times as long as those of its attempt's other tasks is marked, where so many tell.
SLOWER, PEERS = 1.5, 2
# Of so few samples the first, in which a model warms up, may be one too many.
FEW = 2


@without_collection()
def status_of(run: Run, hear: Hear, hours: bool = False, look: Callable[[], State] | None = None) -> dict[str, Any]:
    """What `status --json` prints. Seconds and counts are numbers, what isn't known is null. With `hours` it says where
    those of the tasks went, too."""
    seen = gather(run, hear, look)
    state = seen.state
    planned, scored = len(run.samples), len(state.scored())
    failed = sum(bool(state.failure(sample_id)) for sample_id in state.unscored())
    stages, causes = {stage: _stage(seen, stage) for stage in STAGES}, explain(seen)
    return {
        "run": str(run.root),
        "counts": {
            "planned": planned,
            "edited": stages["edit"]["done"],
            "scored": scored,
            "failed": failed,
            "missing": planned - scored - failed,
        },
        "alive": seen.alive,
        "queue": seen.silent or None,
        "over": _is_over(seen),
        "exit_code": COMPLETE if scored == planned else INCOMPLETE,
        "stages": stages,
        "eta": _sum(row["eta"] for row in stages.values()),
        "last_error": _last_error(state),
        "causes": lines_of(causes),
        "next": next_of(causes),
        "report": (run.folder.report / "summary.json").exists(),
        "attempts": [_attempt(seen, attempt) for attempt in seen.attempts],
        **({"hours": _hours(seen)} if hours else {}),
    }


def _hours(seen: Evidence) -> dict[str, Any]:
    rows = hours_of(seen.attempts, read_timeline(seen.run.folder), seen.run.folder)
    return {
        "stages": {stage: hours.as_json() for stage, hours in by_stage(rows, seen.state).items()},
        "tasks": [row.as_json() for row in rows],
    }


def _is_over(seen: Evidence) -> bool:
    """Nobody is at work any more, nor about to be: a local launcher goes on from stage to stage. Where that can't be
    seen from here, a long silence has to do."""
    latest = seen.attempts[-1] if seen.attempts else None
    if seen.alive is None:
        return seen.now - max((task.heard for task in seen.tasks), default=0.0) > QUIET
    return not (seen.alive or (latest and latest.executor != "slurm" and latest.launcher_lives()))


def _stage(seen: Evidence, stage: str) -> dict[str, Any]:
    state = seen.state
    done = len(state.samples) - len(state.to_edit()) if stage == "edit" else len(state.scored())
    attempt = seen.latest(stage)
    tasks = [task for task in seen.tasks if task.attempt == attempt]
    paces = [task.pace for task in tasks if task.pace is not None]
    pace = sum(paces) / len(paces) if paces else None
    taken = _taken(tasks)
    left = [_left(task, taken) * (task.pace or pace) for task in tasks if pace is not None and task.alive is not False]
    at_once = max(1, sum(task.working for task in tasks))
    return {
        "total": len(state.samples),
        "done": done,
        "failed": state.failed(stage),
        "seconds_a_sample": _rounded(pace, 3),
        "eta": _rounded(max(*left, sum(left) / at_once), 1) if left else None,
    }


def _attempt(seen: Evidence, attempt: Attempt) -> dict[str, Any]:
    tasks = [task for task in seen.tasks if task.attempt == attempt]
    taken = _taken(tasks)
    slower = _slower([task.pace if len(task.records) > FEW else None for task in tasks])
    return {
        "attempt": attempt.name,
        "executor": attempt.executor,
        "job_id": attempt.job_id,
        "array_job_ids": list(attempt.arrays),
        "finish_job_id": attempt.finish_job_id,
        "closed": attempt.closed,
        "retry": attempt.retry,
        "samples": len(attempt.samples),
        "tasks": [_task(task, times, taken) for task, times in zip(tasks, slower, strict=True)],
    }


def _slower(paces: Sequence[float | None]) -> list[float | None]:
    """How many times as long each task's samples take as its peers' do, where that is far too long."""
    found: list[float | None] = []
    for number, pace in enumerate(paces):
        peers = [other for n, other in enumerate(paces) if n != number and other]
        times = pace / median(peers) if pace and len(peers) >= PEERS else 0.0
        found.append(round(times, 1) if times >= SLOWER else None)
    return found


def _task(task: Task, slower: float | None, taken: Mapping[int, int]) -> dict[str, Any]:
    last = task.last
    return {
        "task": task.number,
        "samples": len(task.ids) + taken[task.number],
        "ok": task.ok,
        "error": task.failed,
        "state": _phase(task),
        "job": task.job.id if task.job else None,
        "node": last.node if last else None,
        "end": last.end if last else None,
        "message": last.message if last else "",
        "seconds_a_sample": _rounded(task.pace, 3),
        "times_slower": slower,
        "gpu_memory": max((p.memory for p in task.processes if p.memory is not None), default=None),
        "eta": _rounded(_left(task, taken) * task.pace, 1) if task.working and task.pace is not None else None,
    }


def _taken(tasks: Sequence[Task]) -> Mapping[int, int]:
    """By task of an attempt: how many more samples it took over than others took of its slice."""
    taken = Counter[int]()
    if not any(task.of_others for task in tasks):
        return taken
    slice_of = {sample_id: task.number for task in tasks for sample_id in task.ids}
    for task in tasks:
        for sample_id in task.of_others & slice_of.keys():
            taken[task.number] += 1
            taken[slice_of[sample_id]] -= 1
    return taken


def _left(task: Task, taken: Mapping[int, int]) -> int:
    return max(0, len(task.ids) + taken[task.number] - task.ok - task.failed)


def _phase(task: Task) -> str:
    """What it is doing, in words."""
    last, waits = task.last, task.job is not None and task.job.state == "PENDING"
    if waits and task.job is not None:
        return f"{'requeued' if last else 'pending'} ({task.job.reason})"
    if last is None:
        submitted = task.attempt.submitted or task.attempt.executor != "slurm"
        return "starting" if task.job else "never began" if submitted and task.alive is False else "not started"
    if last.end == DONE:
        return "over"
    if not task.working:
        return f"over: {last.how}"
    unseen = "" if task.alive else ", or killed: that can't be seen from here"
    if last.last == "waits":
        return "waiting for its load slot" + unseen
    if last.last == "loads":
        return "loading" + unseen
    if last.last == "loaded" or (last.last == "works" and last.load_seconds is not None):
        began = any(record.get("time", 0.0) >= last.since for record in task.records)
        return ("working" if began else "warming up") + unseen
    return ("working" if last.last == "works" or last.in_hand else "starting") + unseen


def _last_error(state: State) -> str | None:
    if not (errors := state.errors()):
        return None
    newest = max(errors, key=lambda record: record.get("time", 0.0))
    return f"{newest['id']!r}: {newest['error'].get('type')}: {newest['error'].get('message')}"


def _sum(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def render_status(status: Mapping[str, Any], width: int | None = None) -> str:
    """Lines are broken at `width`, for a terminal, but for what a person copies: paths and commands."""
    lines = ["counts   " + ", ".join(f"{value} {name}" for name, value in status["counts"].items())]
    lines += [f"{stage:7}  {stage_line(row)}" for stage, row in status["stages"].items()]
    lines += [line for attempt in status["attempts"] for line in _attempt_lines(attempt)]
    lines += _left_line(status)
    lines += [f"queue    {status['queue']}"] if status["queue"] else []
    lines += (
        [f"error    {within(status['last_error'], LINE)}"]
        if status["last_error"] and status["counts"]["failed"]
        else []
    )
    lines += [f"why      {line}" for line in status["causes"]]
    report = Path(status["run"]) / "report" / "report.html"
    return "\n".join(
        [
            f"run      {printable(status['run'])}",
            *(fit(printable(line), width) for line in lines),
            *([f"next     {status['next']}"] if status["next"] else []),
            *([f"report   {printable(str(report))}"] if status["report"] else []),
        ]
    )


def _left_line(status: Mapping[str, Any]) -> list[str]:
    """`left     about 5 min: edit 4 min, score 1 min`; at least so long, where a stage has nothing yet to tell by."""
    stages = status["stages"].items()
    unknown = [stage for stage, row in stages if row["eta"] is None and row["done"] < row["total"]]
    parts = [f"{stage} {duration(row['eta'])}" for stage, row in stages if row["eta"]]
    parts += [f"{stage} not known yet" for stage in unknown]
    if status["over"] or not parts:
        return []
    if not status["eta"]:
        return ["left     not known yet"]
    return [f"left     {'at least' if unknown else 'about'} {duration(status['eta'])}: {', '.join(parts)}"]


def stage_line(row: Mapping[str, Any]) -> str:
    """`12/24, 1 failed, 1.2 s each, about 3 min left`"""
    parts = [f"{row['done']}/{row['total']}"]
    parts += [f"{row['failed']} failed"] if row["failed"] else []
    parts += [f"{row['seconds_a_sample']:.3g} s each"] if row["seconds_a_sample"] else []
    parts += [f"about {duration(row['eta'])} left"] if row["eta"] else []
    return ", ".join(parts)


def _attempt_lines(attempt: Mapping[str, Any]) -> list[str]:
    jobs = " → ".join(job for job in (", ".join(attempt["array_job_ids"]), attempt["finish_job_id"]) if job)
    lines = [
        f"{attempt['attempt']}  {attempt['samples']} samples on {attempt['executor']}"
        + (f", job {jobs}" if jobs else "")
        + (f", retry {attempt['retry']}" if attempt["retry"] else "")
        + (", over" if attempt["closed"] else "")
    ]
    tasks: Sequence[Mapping[str, Any]] = attempt["tasks"]
    told = sorted(tasks, key=lambda task: task["state"] == "over")[:TOLD]
    for task in sorted(told, key=lambda task: task["task"]):
        done = f"{task['ok'] + task['error']}/{task['samples']}"
        failed = f", {task['error']} failed" if task["error"] else ""
        where = f" on {task['node']}" if task["node"] else ""
        pace = (
            f", {task['seconds_a_sample']:.3g} s each" if task["seconds_a_sample"] and task["eta"] is not None else ""
        )
        memory = f", {task['gpu_memory'] / GIB:.1f} GiB" if task["gpu_memory"] else ""
        left = f", about {duration(task['eta'])} left" if task["eta"] else ""
        slow = f", {task['times_slower']:g} × as slow as the others" if task["times_slower"] else ""
        facts = f"{within(task['state'], STATE)}{where}{pace}{memory}{left}{slow}"
        lines.append(f"  task {task['task']:<3d} {done}{failed}: {facts}")
    if len(tasks) > len(told):
        lines.append(f"  and {len(tasks) - len(told)} more tasks: --json has them all")
    return lines
