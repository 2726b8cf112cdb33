"""Stop a run's work: the standby first, then the job that would heal it, then the arrays, or the local launcher."""

from __future__ import annotations

import os
import signal
import time

from slurm_bench.cluster.alive import ENDING, PAUSE, attempts_and_jobs
from slurm_bench.cluster.queue import Job, cancel_jobs
from slurm_bench.errors import UserError
from slurm_bench.logs import log
from slurm_bench.run.attempts import Attempt, close
from slurm_bench.run.layout import RunDir

# The turn of an array, which submits nothing by itself.
ARRAY = 2


def cancel_run(run: RunDir) -> list[str]:
    """Lines that say what was stopped. Raises UserError where the queue can't be asked."""
    stopped: dict[str, str] = {}
    deadline = time.monotonic() + ENDING
    while True:  # a job may submit while it is being cancelled, and until it has ended
        attempts, queued = attempts_and_jobs(run)
        fresh = [job for job in queued if job.number not in stopped]
        for job in sorted(fresh, key=lambda job: (_turn(job), -int(job.number))):  # an array may wait for another one
            if job.number not in stopped:
                cancel_jobs([job.id])
                states = dict.fromkeys(one.state for one in fresh if one.number == job.number)
                stopped[job.number] = f"cancelled job {job.number} ({', '.join(states)})"
        ending = [job for job in queued if _turn(job) < ARRAY and job.state != "PENDING"]
        if not fresh and (not ending or time.monotonic() > deadline):
            break
        time.sleep(0 if fresh else PAUSE)
    lines = [*stopped.values(), *(f"{job} has not ended yet: look again in a minute" for job in ending)]
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
            try:
                os.kill(attempt.pid, signal.SIGTERM)
                lines.append(f"stopped {where}")
                os.kill(attempt.pid, signal.SIGCONT)  # by Ctrl-Z it may be stopped, and hears nothing
                if not _ended(attempt, where):
                    lines.append(f"{where} has not ended yet: look again in a minute")
            except ProcessLookupError:  # it has ended since
                pass
            except PermissionError:
                raise UserError(f"{where} is somebody else's process: have them stop it") from None
        elif lives is None:
            close(run, attempt)
            lines.append(f"forgot {where}, which can't be reached from here: if it still works, stop it there")
    return lines


def _ended(attempt: Attempt, where: str) -> bool:
    """Waits for it: it finishes what is in hand, and until then a `resubmit` is refused."""
    deadline, told = time.monotonic() + ENDING, False
    while attempt.launcher_lives():
        if time.monotonic() > deadline:
            return False
        if not told:
            log.warning("%s finishes what is in hand: waiting for that, up to %d s", where, ENDING)
            told = True
        time.sleep(PAUSE)
    return True


def _turn(job: Job) -> int:
    return 0 if job.name.endswith(".standby") else 1 if job.name.endswith(".finish") else ARRAY
