"""Stop a run's work: the job that would heal it first, then the arrays, or the local launcher."""

from __future__ import annotations

import os
import signal

from slurm_bench.cluster.queue import cancel_named, has_slurm
from slurm_bench.run.attempts import read_attempts
from slurm_bench.run.layout import RunDir


def cancel_run(run: RunDir) -> list[str]:
    """Lines that say what was stopped."""
    stopped = []
    attempts = read_attempts(run)
    open_attempts = [attempt for attempt in attempts if not attempt.closed]
    names = [attempt.job_names(run) for attempt in attempts if attempt.executor == "slurm"]
    if names and has_slurm():
        for which in (1, 0):
            stopped += [f"cancelled {job}" for job in cancel_named([pair[which] for pair in names])]
    for attempt in open_attempts:
        if attempt.executor != "slurm" and attempt.launcher_lives():
            os.kill(attempt.pid, signal.SIGTERM)
            stopped.append(f"stopped the launcher of {attempt.name} (pid {attempt.pid})")
    return stopped
