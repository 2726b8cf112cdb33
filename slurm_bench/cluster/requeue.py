"""Leaving a job in order: run again by Slurm where that was asked for in time and would get further."""

from __future__ import annotations

import time

from slurm_bench.cluster.queue import requeue_self
from slurm_bench.logs import log
from slurm_bench.stages.engine import Tally
from slurm_bench.stages.stop import StopSignals


class TaskIncomplete(Exception):
    """Some of the slice has no result; the job has to show as failed."""


def leave(stop: StopSignals, tally: Tally) -> None:
    """Raises TaskIncomplete, unless Slurm kills this job to run it again."""
    if stop.reason == "SIGUSR2" and tally.ok and requeue_self():
        log.info("asked Slurm to run this job again")
        time.sleep(60)
    raise TaskIncomplete(f"left early: {tally.stopped}")
