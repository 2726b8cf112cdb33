"""One task of one attempt, from its slice to its records. It doesn't know where it runs."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from slurm_bench.errors import UserError
from slurm_bench.logs import log, log_to_file
from slurm_bench.plugins import make_editor, make_scorer
from slurm_bench.run.attempts import Attempt, read_attempt
from slurm_bench.run.journal import DONE, FAILED, REFUSED, STOPPED, Journal
from slurm_bench.run.opened import Run
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import manifests, open_manifest, read_manifest, read_state
from slurm_bench.stages.engine import Engine, Tally, Work
from slurm_bench.stages.loading import load_slot
from slurm_bench.stages.stop import Stopped, StopSignals
from slurm_bench.stages.work import EditWork, ScoreWork


def run_task(run: Run, stage: str, number: int, task: int, stop: StopSignals) -> Tally:
    """Do what is left of this task's slice. A bad sample becomes a record; raises only where the task as a
    whole can't go on (UserError, StorageFailed, a model that doesn't load)."""
    manifest, restart = open_manifest(run.folder, stage, number, task)
    journal = Journal(run.folder.journal(stage, number, task, restart))
    journal.start()
    handler = log_to_file(run.folder.log(stage, number, task))
    try:
        attempt = read_attempt(run.folder.attempt(stage, number))
        try:
            tally = _Task(run, attempt, task, manifest, journal, stop).run()
        except Stopped:
            tally = Tally(stopped=stop.reason)
        journal.note("end", how=STOPPED if tally.stopped else DONE, message=tally.stopped or "")
        log.info("task %d: %d ok, %d failed%s", task, tally.ok, tally.failed, _because(tally.stopped))
        return tally
    except Exception as error:
        log.error("task %d ends: %s: %s", task, type(error).__name__, error, exc_info=error)
        how = REFUSED if isinstance(error, UserError) else FAILED
        journal.note("end", how=how, message=f"{type(error).__name__}: {error}"[:2000])
        raise
    finally:
        manifest.close()
        log.removeHandler(handler)
        with suppress(OSError):
            handler.close()


class _Task:
    def __init__(self, run: Run, attempt: Attempt, task: int, manifest: Any, journal: Journal, stop: StopSignals):
        self.folder, self.config = run.folder, run.config
        self.attempt, self.task = attempt, task
        self.manifest, self.journal, self.stop = manifest, journal, stop
        samples = {s.id: s for s in run.samples}
        self.slice = [samples[i] for i in attempt.slice(task)]

    def run(self) -> Tally:
        log.info(
            "%s attempt %d, task %d of %d: %d samples, idx %% %d == %d, on %s",
            *(self.attempt.stage, self.attempt.number, self.task, self.attempt.slices, len(self.slice)),
            *(self.attempt.slices, self.task, socket.gethostname()),
        )
        return self._edit() if self.attempt.stage == "edit" else self._score()

    def _edit(self) -> Tally:
        done = {r["id"] for r in self._own_records() if r["status"] == "ok"}
        todo = [s for s in self.slice if s.id not in done]
        editor = make_editor(self.config)
        return self._work(editor, todo, EditWork(self.folder, editor), self.config.batch_size)

    def _score(self) -> Tally:
        """Scorer after scorer, so that one model at a time is in memory."""
        total = Tally()
        for name in self.config.scorers:
            state = read_state(self.folder, self.slice, self.config.scorers)
            todo = [s for s in self.slice if state.edits[s.id].ok and state.scores[s.id][name].ok is None]
            edits = {s.id: ok for s in todo if (ok := state.edits[s.id].ok)}
            scorer = make_scorer(self.config, name)
            work = ScoreWork(self.folder, name, scorer, edits)
            tally = self._work(scorer, todo, work, self.config.score_batch_size)
            total.ok, total.failed = total.ok + tally.ok, total.failed + tally.failed
            if tally.stopped:
                total.stopped = tally.stopped
                break
        return total

    def _own_records(self) -> list[dict[str, Any]]:
        """What this task's earlier processes did, where Slurm restarted it; slices share no sample."""
        files = manifests(self.folder, self.attempt.stage, self.attempt.number, self.task)
        return [record for file in files for record in read_manifest(file)]

    def _work(self, plugin: Any, todo: Sequence[Sample], work: Work, batch_size: int) -> Tally:
        if not todo:
            return Tally()
        if self.stop.reason:
            return Tally(stopped=self.stop.reason)
        self._load(plugin)
        self._prepare(plugin, todo, work)
        stamp = {"attempt": self.attempt.number, "task": self.task, "host": socket.gethostname()}
        engine = Engine(work, self.manifest, stamp, batch_size, self.stop, _Progress(len(todo)))
        try:
            return engine.run(todo)
        finally:
            if hasattr(plugin, "close"):
                plugin.close()

    def _load(self, plugin: Any) -> None:
        if not hasattr(plugin, "load"):
            return
        with load_slot(self.config.load_concurrency) as waited:
            start = time.monotonic()
            with self.stop.interruptible():
                plugin.load()
            took = time.monotonic() - start
        log.info("waited %.1f s for this node's load slot, loaded in %.1f s", waited, took)
        self.journal.note("loaded", waited=round(waited, 3), took=round(took, 3))

    def _prepare(self, plugin: Any, todo: Sequence[Sample], work: Work) -> None:
        """A head start over the whole task; what fails in it will fail again, and be recorded, where it belongs."""
        if not hasattr(plugin, "prepare"):
            return
        try:
            with self.stop.interruptible():
                plugin.prepare(_readable(work, todo))
        except Exception as error:
            log.warning("prepare failed, going on without: %s: %s", type(error).__name__, error, exc_info=error)


class _Progress:
    """A line a sample in the log, with the time that is left."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.start = total, 0, time.monotonic()

    def __call__(self, record: dict[str, Any]) -> None:
        self.done += 1
        left = (time.monotonic() - self.start) / self.done * (self.total - self.done)
        log.info(
            "[%d/%d] %r %s in %.2f s, about %.0f s left",
            *(self.done, self.total, record["id"], record["status"], record["seconds"], left),
        )


def _readable(work: Work, samples: Sequence[Sample]) -> Iterator[Any]:
    for sample in samples:
        with suppress(Exception):
            yield work.read(sample)


def _because(stopped: str | None) -> str:
    return f", left early: {stopped}" if stopped else ""
