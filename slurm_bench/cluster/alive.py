"""Is somebody at work on this run? (law 8)"""

from __future__ import annotations

import time
from collections.abc import Sequence

from slurm_bench.cluster.queue import has_slurm, jobs_named
from slurm_bench.run.attempts import CLAIM_GRACE, Attempt
from slurm_bench.run.layout import RunDir


def alive(run: RunDir, attempts: Sequence[Attempt]) -> list[str]:
    """What is waiting or at work, for a person to read; empty where nobody is. Raises UserError where the queue
    can't be asked."""
    open_attempts = [a for a in attempts if not a.closed]
    names = [name for a in attempts if a.executor == "slurm" for name in a.job_names(run)]
    queued = jobs_named(names) if names and has_slurm() else []
    busy = [str(job) for job in queued]
    for attempt in open_attempts:
        if any(job.name in attempt.job_names(run) for job in queued):
            continue
        if launcher := _launcher(attempt):
            busy.append(launcher)
    return busy


def _launcher(attempt: Attempt) -> str | None:
    """The launcher of an attempt that isn't in the queue, if it may still be at work."""
    lives = attempt.launcher_lives()
    where = f"launcher of {attempt.name} (pid {attempt.pid} on {attempt.host})"
    if attempt.executor != "slurm":
        return None if lives is False else where
    if attempt.job_id or attempt.finish_job_id:
        if has_slurm():
            return None
        return f"job {attempt.job_id or attempt.finish_job_id} of {attempt.name}, which can't be asked from here"
    fresh = time.time() - attempt.time < CLAIM_GRACE
    return where if lives or (lives is None and fresh) else None
