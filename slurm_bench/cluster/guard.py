"""Stays when the launcher has left: `python -m slurm_bench.cluster.guard RUN STAGE ATTEMPT` looks, once the controller
has had time to write down what the launcher told it, whether it still knows the jobs (law 11)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from slurm_bench.cluster import job
from slurm_bench.cluster.kept import see_it_kept
from slurm_bench.cluster.slot import PACKAGE_ROOT
from slurm_bench.cluster.slurm import Slurm
from slurm_bench.errors import UserError
from slurm_bench.logs import log, log_to_file
from slurm_bench.run.attempts import Attempt, read_attempt
from slurm_bench.run.layout import RunDir
from slurm_bench.run.opened import open_run
from slurm_bench.stages.stop import StopSignals

# Seconds between two tries while the controller doesn't answer: after a crash somebody has to start it.
PAUSES = (5, 15, 40, 120, 300, 600)


def start_guard(run: RunDir, attempt: Attempt) -> subprocess.Popen[bytes]:
    """In a session of its own, so that it outlives the terminal."""
    path = os.pathsep.join(filter(None, [PACKAGE_ROOT, os.environ.get("PYTHONPATH")]))
    null = subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, "-m", __name__, str(run.root), attempt.stage, str(attempt.number)],
        env={**os.environ, "PYTHONPATH": path},
        stdin=null,
        stdout=null,
        stderr=null,
        start_new_session=True,
    )


def main(words: list[str]) -> None:
    root, stage, number = Path(words[0]), words[1], int(words[2])
    log_to_file(RunDir(root).submit_log(stage, number))
    try:
        run = open_run(root)
        attempt = read_attempt(run.folder.attempt(stage, number))
        see_it_kept(run, attempt, Slurm(job.task, job.finish), StopSignals(), PAUSES)
        log.info("the controller knows the jobs of %s", attempt.name)
    except (UserError, OSError) as error:
        log.error("nobody knows whether the controller has kept what was submitted: %s", error)


if __name__ == "__main__":
    main(sys.argv[1:])
