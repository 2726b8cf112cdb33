"""What was submitted, looked at again: a controller that crashes forgets what it was told last, though it gave the
jobs' ids."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from slurm_bench.cluster.queue import known_jobs, release
from slurm_bench.cluster.requeue import leave
from slurm_bench.cluster.slurm import Slurm
from slurm_bench.errors import UserError, storage_problem
from slurm_bench.logs import log
from slurm_bench.run.attempts import Attempt, is_concluded, read_attempt, read_attempts
from slurm_bench.run.opened import Run
from slurm_bench.stages.engine import Tally
from slurm_bench.stages.stop import StopSignals

# Seconds within which the controller has written down what it was told (SAVE_MAX_WAIT in its source is 5).
CONTROLLER_SAVES = 7


def see_it_kept(run: Run, attempt: Attempt, executor: Slurm, stop: StopSignals, pauses: Sequence[float]) -> None:
    """Submit it again where the controller knows nothing of it any more, also not as cancelled; let go what it has
    forgotten to let go. Raises UserError where it can't be asked."""

    def ask(act: Callable[[], Any]) -> Any:
        return patiently(act, stop, UserError, pauses)

    rest(stop, CONTROLLER_SAVES)
    jobs = ask(lambda: known_jobs(attempt.job_names))
    if held := {job.number for job in jobs if job.held and job.state == "PENDING"}:
        ask(lambda: release(held))
    if any(job.name == attempt.job_names.finish for job in jobs) or _is_over(run, attempt):
        return
    log.warning("the controller has lost jobs of %s; submitting it again", attempt.name)
    executor.withdraw(attempt)
    ask(lambda: executor.submit(run, attempt))


def _is_over(run: Run, attempt: Attempt) -> bool:
    """Whether the attempt is over, also because somebody has gone on to another one."""
    if read_attempt(run.folder.attempt(attempt.stage, attempt.number)).closed or is_concluded(run.folder, attempt):
        return True
    return any(later.time > attempt.time for later in read_attempts(run.folder))


def patiently(act: Callable[[], Any], stop: StopSignals, failure: type[Exception], pauses: Sequence[float]) -> Any:
    """Again after each of `pauses` (seconds), where `act` raises `failure`; raises that of the last try."""
    for pause in (*pauses, None):
        if stop.reason:  # a cancelled run must not go on by itself
            leave(stop, Tally(stopped=stop.reason))
        try:
            return act()
        except failure as error:
            if pause is None:
                raise
            said = storage_problem(error) if isinstance(error, OSError) else error
            log.warning("%s; once more in %d s", said, pause)
            rest(stop, pause)
    raise AssertionError


def rest(stop: StopSignals, seconds: float) -> None:
    """Sleep, unless told to stop."""
    end = time.monotonic() + seconds
    while not stop.reason and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.2))
