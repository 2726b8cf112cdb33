"""Executors of this very process: `debug`, and the work inside the job that follows an array."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from slurm_bench.cluster.kept import patiently, rest, see_it_kept
from slurm_bench.cluster.queue import cancel_jobs, has_slurm, jobs_of, old_ids, release
from slurm_bench.cluster.requeue import TaskIncomplete, leave
from slurm_bench.cluster.slot import Slot, wait_for
from slurm_bench.cluster.slurm import Slurm, after_arrays, scores_itself
from slurm_bench.config import Config, tasks_of
from slurm_bench.errors import UserError
from slurm_bench.logs import log
from slurm_bench.report.write import import_ahead
from slurm_bench.run.attempts import Attempt, close, note_jobs, read_attempts
from slurm_bench.run.opened import Run
from slurm_bench.stages.engine import Tally
from slurm_bench.stages.stop import StopSignals
from slurm_bench.stages.task import run_task

# Seconds between two tries of what the controller didn't answer or sbatch refused; after the last one the job does the
# work itself.
PATIENCE = (5, 15)
# Seconds between two looks at the queue.
QUEUE_POLL = 30
# A standby's standby, and so on: so many jobs in a row may die before nobody takes over any more.
GENERATIONS = 8


class Debug:
    """Every task in this process, in order, without handlers of signals: a breakpoint works, and Ctrl-C stops."""

    name = "debug"

    def slices(self, stage: str, config: Config) -> int:
        return tasks_of(config, stage)

    def execute(self, run: Run, attempt: Attempt) -> bool:
        for task in range(attempt.slices):
            run.folder.check_there()
            with suppress(Exception, SystemExit):  # run_task has logged and journalled it; the other tasks go on
                run_task(run, attempt.stage, attempt.number, task, StopSignals())
        return True


class InJob(Slurm):
    """What the job that follows an attempt, or its standby, can do: score a single slice on its own GPU, submit
    everything else, and where that is refused do it itself. `generation` is 0 for the following job, 1 for its standby,
    2 for the standby's."""

    def __init__(
        self, task: Callable[..., None], finish: Callable[..., None], stop: StopSignals, warning: int, generation: int
    ) -> None:
        super().__init__(task, finish)
        self.stop, self._warning, self._generation = stop, warning, generation
        self._own = os.environ.get("SLURM_JOB_ID", "")

    @property
    def takes_over(self) -> bool:
        """This job is a standby, and what it stood behind has died."""
        return self._generation > 0

    def execute(self, run: Run, attempt: Attempt) -> bool:
        if not scores_itself(attempt):
            try:
                self._patiently(lambda: self.submit(run, attempt))
            except UserError as error:
                log.error("cannot submit %s: %s; this job does its work itself", attempt.name, error)
            else:
                if self.stop.reason == "SIGTERM":  # which came while they were submitted: `cancel` may not see them
                    self.withdraw(attempt)
                self._see_it_kept(run, attempt)
                return False
        if not attempt.submitted:
            attempt = note_jobs(run.folder, attempt, (), self._own or "this job", None)
        tally = Tally()
        import_ahead()
        for task in range(attempt.slices):
            tally = wait_for([Slot(run.folder, attempt, task, os.environ, warning=self._warning)], self.stop)
            if self.stop.reason:
                leave(self.stop, tally)
        return True

    def _see_it_kept(self, run: Run, attempt: Attempt) -> None:
        """Raises TaskIncomplete where the controller can't be asked: the standby will, when this job has failed."""
        try:
            see_it_kept(run, attempt, self, self.stop, self._pauses)
        except UserError as error:
            raise TaskIncomplete(
                f"{attempt.name} was submitted, but nobody knows whether it was kept: {error}"
            ) from None

    def stand_by(self, run: Run, attempt: Attempt) -> Attempt:
        """Whoever takes over is not alone either: its own standby comes first. So is who lost the one it had. Gives the
        attempt with that one noted."""
        if not self._own:
            return attempt
        if self._generation >= GENERATIONS:
            log.error("%d jobs have died one after the other; nobody is behind this one", self._generation)
            return attempt
        try:
            others = [job for job in jobs_of([attempt.job_names.standby]) if job.number != self._own]
            if not others:
                new = self._patiently(lambda: self._submit_standby(run, attempt, self._own, self._generation + 1))
                known = attempt.arrays, attempt.finish_job_id, attempt.standby_job_id
                return note_jobs(run.folder, attempt, *known, *attempt.more_standby_job_ids, new)
        except Exception as error:
            log.error("no standby could be submitted: %s", error)
        return attempt

    def waits_again(self, run: Run, attempt: Attempt) -> bool:
        """Where this job came before its time, for the one that waited for the array was cancelled: another one is
        queued to wait, with a standby. Where that is refused this one waits, beside a GPU that does nothing."""
        if not self._own or attempt.job_id is None:
            return False
        names = attempt.job_names
        try:
            jobs = self._patiently(lambda: jobs_of(names))
        except UserError as error:  # what may be done twice thereby comes out the same (law 4)
            log.warning("going on without knowing whether %s is still at work: %s", attempt.name, error)
            return False
        arrays = [job for job in jobs if job.name == names.array and job.state != "COMPLETING"]
        if not arrays:
            return False
        log.info("%s is at work still: %s", attempt.name, ", ".join(map(str, arrays)))
        waiting = any(job.name == names.finish and job.number != self._own for job in jobs)
        try:
            if not waiting:
                self._patiently(lambda: self._submit_waiting(run, attempt))
                waiting = True
        except UserError as error:
            log.error("cannot submit a job that waits for %s: %s; this one waits", attempt.name, error)
        if held := {job.number for job in arrays if job.held}:
            self._patiently(lambda: release(held))
        if not waiting:
            self._wait_for(names.array)
        return waiting

    def _submit_waiting(self, run: Run, attempt: Attempt) -> None:
        """Where a standby for it is refused, it submits one itself when it begins."""
        after, standby = after_arrays(run.config, attempt.arrays), None
        finish = self._submit_following(run, attempt, attempt.job_names.finish, after, self._generation)
        try:
            standby = self._patiently(lambda: self._submit_standby(run, attempt, finish, self._generation + 1))
        except UserError as error:
            log.error("no standby could be submitted: %s", error)
        note_jobs(run.folder, attempt, attempt.arrays, finish, standby)

    def _wait_for(self, array: str) -> None:
        """Until no job of that name is left. Raises UserError where the queue can't be asked for long."""
        while self._patiently(lambda: jobs_of([array])):
            rest(self.stop, QUEUE_POLL)

    def dismiss_standby(self, attempt: Attempt) -> None:
        """The run has ended, if not well: there is nothing to take over."""
        with suppress(UserError):
            cancel_jobs(job.id for job in jobs_of([attempt.job_names.standby]) if job.number != self._own)

    def follow_up(self, run: Run, attempt: Attempt) -> Attempt | None:
        """The attempt to go on from: `attempt`, or what a predecessor of this job (another, or this one before it was
        requeued) has begun after it. None where jobs of that one are at work."""
        later = [a for a in read_attempts(run.folder) if a.time > attempt.time]
        if not later:
            return attempt
        latest = later[-1]
        jobs = self._patiently(lambda: jobs_of(latest.job_names, old_ids(latest)))
        others = [job for job in jobs if job.number != self._own]
        if others and latest.submitted:
            log.info("%s is at work already: %s", latest.name, ", ".join(map(str, others)))
            with suppress(UserError):
                release(latest.arrays or filter(None, [latest.finish_job_id]))
            return None
        # Held, by a predecessor that died while it submitted.
        self._patiently(lambda: cancel_jobs(job.id for job in others))
        close(run.folder, latest)
        return latest

    @property
    def _pauses(self) -> Sequence[float]:
        return PATIENCE if has_slurm() else ()  # a container may lack its commands

    def _patiently(self, act: Callable[[], Any]) -> Any:
        return patiently(act, self.stop, UserError, self._pauses)
