"""The local executor: one process a GPU slot, side by side; on a machine without GPUs, CPU slots."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from slurm_bench.cluster.slurm import PACKAGE_ROOT
from slurm_bench.config import Config
from slurm_bench.machine import visible_gpus
from slurm_bench.run.attempts import Attempt
from slurm_bench.run.layout import RunDir
from slurm_bench.run.opened import Run

POLL = 0.2
# Seconds that a task gets to finish what it has in hand when the launcher is told to stop.
GRACE = 40


class Local:
    """`poll` is called all the while, for the progress bars."""

    name = "local"

    def __init__(self, poll: Callable[[], None] = lambda: None) -> None:
        self.poll = poll
        self._gpus = gpu_slots()

    def slices(self, stage: str, config: Config) -> int:
        asked = config.gpus if stage == "edit" else config.score_gpus
        return min(asked, len(self._gpus)) if self._gpus else asked

    def execute(self, run: Run, attempt: Attempt) -> bool:
        """Every slice in a process of its own, each seeing its own one GPU. A process that dies leaves its samples
        to the chain. On Ctrl-C, or SIGTERM, all are asked to leave in order."""
        run.folder.logs.mkdir(parents=True, exist_ok=True)
        tasks: list[subprocess.Popen[bytes]] = []
        try:
            for task in range(attempt.slices):
                tasks.append(self._start(run.folder, attempt, task))
            while any(process.poll() is None for process in tasks):
                self.poll()
                time.sleep(POLL)
        finally:
            _stop(tasks)
            self.poll()
        return True

    def _start(self, run: RunDir, attempt: Attempt, task: int) -> subprocess.Popen[bytes]:
        words = [str(run.root), attempt.stage, str(attempt.number), str(task), str(os.getpid())]
        path = os.pathsep.join(filter(None, [PACKAGE_ROOT, os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": path}
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[task]
        with open(run.logs / f"{attempt.name}-{task:04d}.out", "ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "slurm_bench.cluster.job", *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )


def gpu_slots() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be set to, one entry a GPU of this machine."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return [gpu.uuid for gpu in visible_gpus()]
    return [name for name in listed.split(",") if name.strip()] if visible_gpus() else []


def _stop(tasks: list[subprocess.Popen[bytes]]) -> None:
    for process in tasks:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + GRACE
    for process in tasks:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        if process.poll() is None:
            process.kill()
            process.wait()
