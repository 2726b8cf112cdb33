"""What runs on a node: one task of an array, or the job that follows the array. Also the entry of local slots:
`python -m slurm_bench.cluster.job RUN STAGE ATTEMPT TASK PARENT`.

The shard is an argument. Nothing here reads a task id from the environment (law 7).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

from slurm_bench.cluster.chain import carry_on
from slurm_bench.cluster.here import InJob
from slurm_bench.cluster.requeue import TaskIncomplete, leave
from slurm_bench.cluster.slurm import scores_itself
from slurm_bench.logs import log_to_stderr
from slurm_bench.run.attempts import read_attempt
from slurm_bench.run.opened import open_run
from slurm_bench.stages.stop import StopSignals
from slurm_bench.stages.task import run_task


def task(root: str, stage: str, number: int, index: int, warning: int) -> None:
    """One array task. Told to stop in time (SIGUSR2) after it got something done, it asks to be run again, and the
    job that follows goes on waiting; in every other case the chain takes over what is left."""
    log_to_stderr()
    run = open_run(Path(root))
    with StopSignals(warning) as stop:
        tally = run_task(run, stage, number, index, stop)
        if tally.stopped:
            leave(stop, tally)
    if run.config.strict and tally.failed:
        raise TaskIncomplete(f"{tally.failed} samples failed")


def finish(root: str, stage: str, number: int, warning: int) -> None:
    """The job after an attempt: look, heal, score, report. Ends with the run's exit code."""
    log_to_stderr()
    run = open_run(Path(root))
    attempt = read_attempt(run.folder.attempt(stage, number))
    with StopSignals(warning) as stop:
        executor = InJob(task, finish, stop)
        if scores_itself(attempt):
            executor.execute(run, attempt)
        code = carry_on(run, attempt, executor)
    sys.exit(code or 0)


def die_with(parent: int) -> None:
    """Have the kernel send SIGTERM when the launcher dies, so that none of its tasks outlives it unseen."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)


def main(words: list[str]) -> int:
    root, stage, number, index, parent = words
    die_with(int(parent))
    log_to_stderr()
    with StopSignals() as stop:
        tally = run_task(open_run(Path(root)), stage, int(number), int(index), stop)
    return 1 if tally.stopped else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
