"""What Slurm runs on a node: one task of an array, or the job that follows an attempt.

The shard is an argument. Nothing here reads a task id from the environment (law 7).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from slurm_bench.cluster.chain import carry_on, resubmit_line
from slurm_bench.cluster.here import InJob
from slurm_bench.cluster.kept import patiently
from slurm_bench.cluster.pack import slots_of
from slurm_bench.cluster.requeue import TaskIncomplete, leave
from slurm_bench.cluster.slot import wait_for
from slurm_bench.cluster.slurm import scores_itself
from slurm_bench.errors import COMPLETE, INCOMPLETE, USER_ERROR, UserError, storage_problem
from slurm_bench.logs import log, log_to_stderr
from slurm_bench.run.attempts import Attempt, conclude_once, is_concluded, read_attempt
from slurm_bench.run.layout import RunDir
from slurm_bench.run.opened import open_run
from slurm_bench.run.records import manifests, read_manifest
from slurm_bench.stages.stop import StopSignals

# Seconds between two tries where the storage fails: a full disk is often mended by somebody, a file server comes back.
STORAGE_PATIENCE = (5, 15, 40, 120, 300, 600)


def task(root: str, stage: str, number: int, job: int, warning: int) -> None:
    """One job of an array: a task, or those that are packed into it. Told to stop in time (SIGUSR2) after it got
    something done, it asks to be run again, and the job that follows goes on waiting; in every other case the chain
    takes over what is left."""
    log_to_stderr()
    with _failures_in_a_line(), StopSignals(warning) as stop:
        run = open_run(Path(root))
        attempt = read_attempt(run.folder.attempt(stage, number))
        slots = slots_of(run.folder, attempt, job, os.environ, warning)
        tally = wait_for(slots, stop)
        if tally.stopped or (stop.reason and not all(slot.done for slot in slots)):
            leave(stop, tally)
        if any(slot.failed for slot in slots):
            raise TaskIncomplete("its processes died; the chain takes over what is left")
        if run.config.strict and (failed := _failed(run.folder, attempt, attempt.tasks_of(job))):
            raise TaskIncomplete(f"{failed} samples failed")


def finish(root: str, stage: str, number: int, warning: int, generation: int) -> None:
    """The job after an attempt, and its standbys: look, heal, score, report. Ends with the run's exit code. Where the
    storage fails for a while it waits, and begins anew: every step of it may be done twice."""
    log_to_stderr()
    with _failures_in_a_line(), StopSignals(warning) as stop:
        executor = InJob(task, finish, stop, warning, generation)
        code = patiently(lambda: _follow(Path(root), stage, number, executor), stop, OSError, STORAGE_PATIENCE)
    sys.exit(code)


def _follow(root: Path, stage: str, number: int, executor: InJob) -> int:
    run = open_run(root)
    attempt = read_attempt(run.folder.attempt(stage, number))
    if is_concluded(run.folder, attempt):
        log.info("the run was concluded after %s: nothing to take over", attempt.name)
        return COMPLETE
    attempt = executor.stand_by(run, attempt)
    if executor.waits_again(run, attempt):
        return COMPLETE
    latest = executor.follow_up(run, attempt)
    if latest is None:
        return COMPLETE
    if run.config.strict and executor.takes_over and run.state().to_edit():
        log.error("strict: not every image is there, so none is scored; to go on, type: %s", resubmit_line(run.root))
        code: int | None = INCOMPLETE
    else:
        if latest == attempt and scores_itself(attempt) and not attempt.closed:
            executor.execute(run, attempt)
        code = carry_on(run, latest, executor)
    if code is not None:
        conclude_once(run.folder, attempt)  # which its standby asks
        executor.dismiss_standby(attempt)
    return code or COMPLETE


@contextmanager
def _failures_in_a_line() -> Iterator[None]:
    """What a person can mend is said without a traceback; the job shows as failed."""
    try:
        yield
    except OSError as error:
        log.error("%s", storage_problem(error))
        sys.exit(USER_ERROR)
    except (UserError, TaskIncomplete) as error:
        log.error("%s", error)
        sys.exit(USER_ERROR)


def _failed(run: RunDir, attempt: Attempt, tasks: Collection[int]) -> int:
    files = [file for task in tasks for file in manifests(run, attempt.stage, attempt.number, task)]
    latest = {record["id"]: record["status"] for file in files for record in read_manifest(file)}
    return sum(status == "error" for status in latest.values())
