"""Executors of this very process: `debug`, and the scoring inside the job that follows an array."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from slurm_bench.cluster.requeue import leave
from slurm_bench.cluster.slurm import Slurm, scores_itself
from slurm_bench.config import Config
from slurm_bench.errors import UserError
from slurm_bench.run.attempts import Attempt
from slurm_bench.run.opened import Run
from slurm_bench.stages.engine import Tally
from slurm_bench.stages.stop import StopSignals
from slurm_bench.stages.task import run_task


class Debug:
    """Every task in this process, in order, without handlers of signals: a breakpoint works, and Ctrl-C stops."""

    name = "debug"

    def slices(self, stage: str, config: Config) -> int:
        return config.gpus if stage == "edit" else config.score_gpus

    def execute(self, run: Run, attempt: Attempt) -> bool:
        for task in range(attempt.slices):
            with suppress(Exception):  # run_task has logged and journalled it; the other tasks go on
                run_task(run, attempt.stage, attempt.number, task, StopSignals())
        return True


class InJob(Slurm):
    """Scores a single slice here, on this job's GPU; submits everything else."""

    def __init__(self, task: Callable[..., None], finish: Callable[..., None], stop: StopSignals) -> None:
        super().__init__(task, finish)
        self.stop = stop

    def execute(self, run: Run, attempt: Attempt) -> bool:
        if not scores_itself(attempt):
            return super().execute(run, attempt)
        tally = Tally()
        with suppress(Exception):  # as above: the chain looks at what is there
            tally = run_task(run, attempt.stage, attempt.number, 0, self.stop)
        if self.stop.reason:
            leave(self.stop, tally)
        return True

    def _submit(self, *job: Any) -> str:
        if self.stop.reason:  # a cancelled run must not go on by itself
            raise UserError(f"this job was told to stop ({self.stop.reason})")
        return super()._submit(*job)
