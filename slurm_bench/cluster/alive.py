"""Is somebody at work on this run? (law 8)"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from slurm_bench.cluster.queue import Job, has_slurm, jobs_of, old_ids
from slurm_bench.logs import log
from slurm_bench.run.attempts import CLAIM_GRACE, Attempt, read_attempts
from slurm_bench.run.layout import RunDir

# Seconds that a job which was told to stop gets to end, Slurm's 30 and some more; and those between two looks at it.
ENDING, PAUSE = 60, 0.5


def attempts_and_jobs(run: RunDir) -> tuple[list[Attempt], list[Job]]:
    """The attempts, and what is in the queue of them. Raises UserError where the queue can't be asked.

    While the queue answers, a finishing job may submit the next attempt and end: the attempts are read again
    afterwards, until there is none that the queue wasn't asked for.
    """
    attempts = read_attempts(run)
    while True:
        submitted = [a for a in attempts if a.executor == "slurm"]
        if not submitted or not has_slurm():
            return attempts, []
        names = [name for a in submitted for name in a.job_names]
        queued = jobs_of(names, [job_id for a in submitted for job_id in old_ids(a)])
        queued = [job for job in queued if not _works_elsewhere(job, run)]
        again = read_attempts(run)
        if [(a.name, a.job_ids) for a in again] == [(a.name, a.job_ids) for a in attempts]:
            return again, queued
        attempts = again


def _works_elsewhere(job: Job, run: RunDir) -> bool:
    """A copy of a run has its attempts, whose jobs are the other's, as long as that one is where they were submitted.
    Where it was moved they are whose attempts name them."""
    above = len(run.submitit.relative_to(run.root).parts)
    folders = Path(job.script).parents
    return len(folders) > above and run.is_copy_of(folders[above])


def at_work(run: RunDir, patience: float = 0.0) -> list[str]:
    """What is waiting or at work, for a person to read; empty where nobody is. Where all that there is has been told to
    end (by `cancel`, say), that is waited for so many seconds. Raises UserError where the queue can't be asked."""
    deadline, told = time.monotonic() + patience, False
    while True:
        attempts, queued = attempts_and_jobs(run)
        ending = bool(queued) and all(job.state == "COMPLETING" for job in queued)
        if not ending or time.monotonic() >= deadline:
            return alive(attempts, queued)
        if not told:
            numbers = ", ".join(dict.fromkeys(job.number for job in queued))
            log.warning("its last jobs are ending (%s): waiting for that, up to %d s", numbers, patience)
            told = True
        time.sleep(PAUSE)


def leftovers(attempts: Sequence[Attempt], queued: Sequence[Job]) -> list[Job]:
    """Jobs of a launcher that died while it submitted: they are held, or wait for one that is, and nobody will let them
    go."""
    found: list[Job] = []
    for attempt in attempts:
        jobs = [job for job in queued if job.belongs_to(attempt)] if not attempt.submitted else []
        stands_still = any(job.held for job in jobs) and all(job.state == "PENDING" for job in jobs)
        found += jobs if stands_still and _launcher(attempt) is None else []
    return found


def alive(attempts: Sequence[Attempt], queued: Sequence[Job]) -> list[str]:
    abandoned = leftovers(attempts, queued)
    queued = [job for job in queued if job not in abandoned]
    busy = [str(job) for job in queued]
    for attempt in attempts:
        if attempt.closed or any(job.belongs_to(attempt) for job in queued):
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
    if attempt.submitted:
        if has_slurm():
            return None
        return f"job {attempt.job_id or attempt.finish_job_id} of {attempt.name}, which can't be asked from here"
    fresh = time.time() - attempt.time < CLAIM_GRACE
    return where if lives or (lives is None and fresh) else None
