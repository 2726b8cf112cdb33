"""Counts by stage and task, from the records. Needs neither torch nor Slurm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slurm_bench.run.attempts import Attempt, read_attempts
from slurm_bench.run.journal import read_journals
from slurm_bench.run.layout import RunDir
from slurm_bench.run.opened import Run
from slurm_bench.run.records import State, manifests, read_manifest


def status_of(run: Run) -> dict[str, Any]:
    """What `status --json` prints."""
    state = run.state()
    planned = len(run.samples)
    edited = sum(outcome.ok is not None for outcome in state.edits.values())
    scored = len(state.scored())
    failed = sum(bool(state.failure(s.id)) for s in run.samples) - _failed_but_scored(state)
    return {
        "run": str(run.root),
        "counts": {
            "planned": planned,
            "edited": edited,
            "scored": scored,
            "failed": failed,
            "missing": planned - scored - failed,
        },
        "report": (run.folder.report / "summary.json").exists(),
        "attempts": [_attempt_row(run.folder, attempt) for attempt in read_attempts(run.folder)],
    }


def _failed_but_scored(state: State) -> int:
    return sum(bool(state.failure(sample_id)) for sample_id in state.scored())


def _attempt_row(run: RunDir, attempt: Attempt) -> dict[str, Any]:
    ends = {end.task: end for end in read_journals(run, attempt.stage, attempt.number)}
    tasks = []
    for task in range(attempt.slices):
        records = [r for file in manifests(run, attempt.stage, attempt.number, task) for r in read_manifest(file)]
        done = Counter({r["id"]: r["status"] for r in records}.values())
        end = ends.get(task)
        tasks.append(
            {
                "task": task,
                "samples": len(attempt.slice(task)),
                "ok": done["ok"],
                "error": done["error"],
                "node": end.node if end else None,
                "end": end.end if end else None,
                "message": end.message if end else "",
            }
        )
    return {
        "attempt": attempt.name,
        "executor": attempt.executor,
        "job_id": attempt.job_id,
        "finish_job_id": attempt.finish_job_id,
        "closed": attempt.closed,
        "retry": attempt.retry,
        "samples": len(attempt.samples),
        "tasks": tasks,
    }


def render_status(status: Mapping[str, Any]) -> str:
    lines = [f"run      {status['run']}"]
    lines.append("counts   " + ", ".join(f"{value} {name}" for name, value in status["counts"].items()))
    for attempt in status["attempts"]:
        jobs = " → ".join(job for job in (attempt["job_id"], attempt["finish_job_id"]) if job)
        lines.append(
            f"{attempt['attempt']}  {attempt['samples']} samples on {attempt['executor']}"
            + (f", job {jobs}" if jobs else "")
            + (f", retry {attempt['retry']}" if attempt["retry"] else "")
            + (", over" if attempt["closed"] else "")
        )
        for task in attempt["tasks"]:
            done = f"{task['ok'] + task['error']}/{task['samples']}"
            failed = f", {task['error']} failed" if task["error"] else ""
            where = f" on {task['node']}: {task['end'] or 'at work, or killed'}" if task["node"] else ": not started"
            why = f" ({task['message'][:120]})" if task["message"] else ""
            lines.append(f"  task {task['task']:<4d} {done:>9}{failed}{where}{why}")
    if status["report"]:
        lines.append(f"report   {Path(status['run']) / 'report' / 'report.md'}")
    return "\n".join(lines)
