"""Stop a run's work: the standby first, then the job that would heal it, then the arrays, or the local launcher."""

from __future__ import annotations

import os
import signal

from slurm_bench.cluster.alive import attempts_and_jobs
from slurm_bench.cluster.queue import Job, cancel_jobs
from slurm_bench.run.attempts import close
from slurm_bench.run.layout import RunDir


def cancel_run(run: RunDir) -> list[str]:
    """Lines that say what was stopped. Raises UserError where the queue can't be asked."""
    stopped: dict[str, str] = {}
    while True:  # a job may have submitted while it was being cancelled
        attempts, queued = attempts_and_jobs(run)
        fresh = [job for job in queued if job.number not in stopped]
        if not fresh:
            break
        for job in sorted(fresh, key=lambda job: (_turn(job), -int(job.number))):  # an array may wait for another one
            cancel_jobs([job.id])
            stopped.setdefault(job.number, f"cancelled {job}")
    lines = list(stopped.values())
    for attempt in attempts:
        if attempt.closed:
            continue
        if attempt.executor == "slurm":
            if any(number in stopped for number in attempt.job_ids):
                close(run, attempt)  # else who sees its jobs kept would take them for lost, once the queue forgets them
            continue
        lives = attempt.launcher_lives()
        where = f"the launcher of {attempt.name} (pid {attempt.pid} on {attempt.host})"
        if lives:
            os.kill(attempt.pid, signal.SIGTERM)
            lines.append(f"stopped {where}")
        elif lives is None:
            close(run, attempt)
            lines.append(f"forgot {where}, which can't be reached from here: if it still works, stop it there")
    return lines


def _turn(job: Job) -> int:
    return 0 if job.name.endswith(".standby") else 1 if job.name.endswith(".finish") else 2
