"""The process that does a task's work: `python -m slurm_bench.cluster.worker RUN STAGE ATTEMPT TASK RESTART PARENT`.

The shard is an argument. Nothing here reads a task id from the environment (law 7).
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from pathlib import Path

from slurm_bench.errors import UserError
from slurm_bench.logs import log, log_to_stderr
from slurm_bench.run.journal import ORDERLY
from slurm_bench.run.opened import open_run
from slurm_bench.stages.stop import StopSignals
from slurm_bench.stages.task import run_task


def main(words: list[str]) -> int:
    root, stage, number, task, restart, warning, parent = words
    die_with(int(parent))
    log_to_stderr()
    with StopSignals(int(warning)) as stop:
        try:
            run = open_run(Path(root))
        except (UserError, OSError) as error:
            log.error("%s", error)
            return ORDERLY
        try:
            tally = run_task(run, stage, int(number), int(task), stop, int(restart))
        except (Exception, SystemExit):  # run_task has logged and journalled it
            return ORDERLY
    return ORDERLY if tally.stopped else 0


def die_with(parent: int) -> None:
    """Have the kernel send SIGTERM when the supervisor dies, so that no worker outlives it unseen."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a plug-in's thread that never ends must not keep the task
