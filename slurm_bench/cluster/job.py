"""What Slurm runs on a node: one task of an array, or the job that follows an attempt.

The shard is an argument. Nothing here reads a task id from the environment (law 7).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from slurm_bench.cluster.chain import carry_on, resubmit_line
from slurm_bench.cluster.here import InJob
from slurm_bench.cluster.requeue import TaskIncomplete, leave
from slurm_bench.cluster.slot import Slot
from slurm_bench.cluster.slurm import scores_itself
from slurm_bench.errors import COMPLETE, INCOMPLETE
from slurm_bench.logs import log, log_to_stderr
from slurm_bench.run.attempts import conclude_once, is_concluded, read_attempt
from slurm_bench.run.layout import RunDir
from slurm_bench.run.opened import open_run
from slurm_bench.run.records import read_records
from slurm_bench.stages.stop import StopSignals


def task(root: str, stage: str, number: int, index: int, warning: int) -> None:
    """One array task. Told to stop in time (SIGUSR2) after it got something done, it asks to be run again, and the
    job that follows goes on waiting; in every other case the chain takes over what is left."""
    log_to_stderr()
    run = open_run(Path(root))
    attempt = read_attempt(run.folder.attempt(stage, number))
    with StopSignals(warning) as stop:
        slot = Slot(run.folder, attempt, index, os.environ, warning=warning)
        tally = slot.wait(stop)
        if tally.stopped or stop.reason:
            leave(stop, tally)
    if slot.failed:
        raise TaskIncomplete("its processes died; the chain takes over what is left")
    if run.config.strict and (failed := _failed(run.folder, stage, number, index)):
        raise TaskIncomplete(f"{failed} samples failed")


def finish(root: str, stage: str, number: int, warning: int, generation: int) -> None:
    """The job after an attempt, and its standbys: look, heal, score, report. Ends with the run's exit code."""
    log_to_stderr()
    run = open_run(Path(root))
    attempt = read_attempt(run.folder.attempt(stage, number))
    if is_concluded(run.folder, attempt):
        log.info("the run was concluded after %s: nothing to take over", attempt.name)
        return
    with StopSignals(warning) as stop:
        executor = InJob(task, finish, stop, warning, generation)
        executor.stand_by(run, attempt)
        latest = executor.follow_up(run, attempt)
        if latest is None:
            return
        if run.config.strict and generation and run.state().to_edit():
            log.error(
                "strict: not every image is there, so none is scored; to go on, type: %s", resubmit_line(run.root)
            )
            conclude_once(run.folder, attempt)
            executor.dismiss_standby(attempt)
            sys.exit(INCOMPLETE)
        if latest == attempt and scores_itself(attempt) and not attempt.closed:
            executor.execute(run, attempt)
        code = carry_on(run, latest, executor)
        if code is not None:
            conclude_once(run.folder, attempt)
            executor.dismiss_standby(attempt)
    sys.exit(code or COMPLETE)


def _failed(run: RunDir, stage: str, number: int, index: int) -> int:
    records = [r for r in read_records(run, stage) if (r["attempt"], r["task"]) == (number, index)]
    latest = {r["id"]: r["status"] for r in records}
    return sum(status == "error" for status in latest.values())
