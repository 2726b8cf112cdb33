"""One task of one attempt, from its slice to its records. It doesn't know where it runs."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, suppress
from typing import Any

from slurm_bench import marks
from slurm_bench.editors.base import EditRequest
from slurm_bench.errors import LostGpu, SampleError, UserError, words_of
from slurm_bench.logs import log, log_to_file
from slurm_bench.machine import free_memory
from slurm_bench.plugins import make_editor, make_rewriter, make_scorer
from slurm_bench.run.attempts import Attempt, each_attempt, read_attempt
from slurm_bench.run.claims import Holder, blocks_of
from slurm_bench.run.durable import LineWriter
from slurm_bench.run.journal import DONE, FAILED, LOST, REFUSED, STOPPED, Journal, read_journals, stamp
from slurm_bench.run.ledger import read_state
from slurm_bench.run.opened import Run
from slurm_bench.run.plan import Sample
from slurm_bench.run.provenance import read_provenance
from slurm_bench.run.records import (
    Record,
    State,
    manifests,
    note_lost,
    read_manifest,
    read_records,
    reserve_manifest,
)
from slurm_bench.run.suspects import ProcessDied, Suspect, died_before, find_suspects
from slurm_bench.run.turns import followed, less_what_follows
from slurm_bench.stages.behind import StorageFailed
from slurm_bench.stages.engine import Engine, GpuLost, Tally, Work
from slurm_bench.stages.faults import drop_frames, in_words
from slurm_bench.stages.loading import load_plugin
from slurm_bench.stages.rewriting import Rewriting
from slurm_bench.stages.stop import Stopped, StopSignals
from slurm_bench.stages.takeover import Picker, Share, may_share
from slurm_bench.stages.work import EditWork, ScoreWork


def run_task(run: Run, stage: str, number: int, task: int, stop: StopSignals, restart: int | None = None) -> Tally:
    """Do what is left of this task's slice, as the process `restart` of the task (by its supervisor's count; else the
    next). A bad sample becomes a record; raises only where the task as a whole can't go on (UserError, StorageFailed,
    GpuLost, SystematicFailure, a model that doesn't load)."""
    if restart is None:
        restart = reserve_manifest(run.folder, stage, number, task)
    journal = Journal(run.folder.journal(stage, number, task, restart))
    journal.start()
    handler = log_to_file(run.folder.log(stage, number, task))
    try:
        attempt = read_attempt(run.folder.attempt(stage, number))
        manifest = LineWriter(run.folder.manifest(stage, number, task, restart), reserved=True)
        with closing(manifest), marks.listening(journal.part):
            tally = _Task(run, attempt, task, restart, manifest, journal, stop).run()
        journal.end(STOPPED if tally.stopped else DONE, tally.stopped or "", tally.ok, tally.failed)
        level, why = (logging.WARNING, f", left early: {tally.stopped}") if tally.stopped else (logging.INFO, "")
        log.log(level, "task %d: %d ok, %d failed%s", task, tally.ok, tally.failed, why)
        return tally
    except (Exception, SystemExit) as error:
        told, said = in_words(error), f"{type(error).__name__}: {words_of(error)}"
        log.error("task %d ends: %s", task, said, exc_info=None if told else error)
        how = REFUSED if isinstance(error, UserError) else LOST if isinstance(error, GpuLost | LostGpu) else FAILED
        journal.end(how, said)
        raise
    except KeyboardInterrupt:  # of a person, at a breakpoint say: what is in hand is no suspect
        journal.end(STOPPED, "SIGINT")
        raise
    finally:
        journal.close()
        log.removeHandler(handler)
        with suppress(OSError):
            handler.close()


class _Task:
    def __init__(
        self,
        run: Run,
        attempt: Attempt,
        task: int,
        restart: int,
        manifest: LineWriter,
        journal: Journal,
        stop: StopSignals,
    ) -> None:
        self.folder, self.config = run.folder, run.config
        self.said = read_provenance(run.folder).get("models", {})
        self.attempt, self.task, self.restart = attempt, task, restart
        self.manifest, self.journal, self.stop = manifest, journal, stop
        self.total = Tally()
        self.samples = {s.id: s for s in run.samples}
        batch_size = run.config.batch_size if attempt.stage == "edit" else run.config.score_batch_size
        blocks = blocks_of(attempt.units(task), batch_size)
        self.slice = [self.samples[i] for block in blocks for i in block]

    def run(self) -> Tally:
        log.info(
            "%s attempt %d, task %d of %d: %d samples, idx %% %d == %d, on %s",
            *(self.attempt.stage, self.attempt.number, self.task, self.attempt.slices, len(self.slice)),
            *(self.attempt.slices, self.task, socket.gethostname()),
        )
        try:
            if self.attempt.stage == "edit":
                self._edit()
            else:
                self._score()
        except Stopped:  # out of a load, say; what was done until then is counted
            self.total.stopped = self.stop.reason
        return self.total

    def _edit(self) -> None:
        done = self._finished("editor")
        todo = [s for s in self.slice if s.id not in done]
        editor, rewriter = make_editor(self.config, self.said), make_rewriter(self.config, self.said)
        rewriting = (
            None if rewriter is None else Rewriting(self.folder, rewriter, self._mark("rewriter"), self.config.seed)
        )
        turns = self._turns()
        work = EditWork(self.folder, editor, self._mark("editor"), rewriting, turns, self._note_lost)

        def pick(ids: Sequence[str]) -> list[Sample]:
            found = [self.samples[i] for i in ids if i not in done]
            if turns is not None and not {s.follows for s in found if s.follows} <= turns.keys() | set(ids):
                turns.update(self._turns() or {})  # whoever had the turns before is dead
            return found

        share = self._share("editor", editor, pick)
        try:
            self._work("editor", editor, todo, work, self.config.batch_size, share)
        finally:
            if rewriting is not None:
                rewriting.close()

    def _turns(self) -> dict[str, Record] | None:
        """The records of what may be followed; None where no sample follows another."""
        samples = list(self.samples.values())
        if not followed(samples):
            return None
        state = read_state(self.folder, samples, (), self.attempt.by)
        return {sample_id: edit.ok for sample_id, edit in state.edits.items() if edit.ok is not None}

    def _score(self) -> None:
        """Scorer after scorer, so that one model at a time is in memory. Where one can't work, or its server is away,
        the task ends with that once the others have done theirs."""
        failed: Exception | None = None
        away: str | None = None
        for number, name in enumerate(self.config.scorers):
            if number:
                free_memory()  # of the one before it, which may have no `close`
            try:
                self._score_by(name)
            except (GpuLost, LostGpu, StorageFailed):  # no scorer's fault
                raise
            except Exception as error:
                log.error("scorer %s can't go on: %s: %s", name, type(error).__name__, words_of(error))
                drop_frames(error)  # they hold what it had loaded
                failed = failed or error
            if self.stop.reason and self.total.stopped:
                break
            away = away or self.total.stopped
        self.total.stopped = self.total.stopped or away
        if failed is not None:
            raise failed

    def _score_by(self, name: str) -> None:
        state = read_state(self.folder, self.slice, self.config.scorers, self.attempt.by)
        done = self._finished(f"scorers.{name}")
        edits: dict[str, Record] = {}
        todo = _to_score(self.slice, state, name, done, edits)
        scorer = make_scorer(self.config, name, self.said)
        work = ScoreWork(self.folder, name, scorer, self._mark(f"scorers.{name}"), edits, self._note_lost)
        share = self._share(f"scorers.{name}", scorer, self._picker(name, done, edits))
        self._work(f"scorers.{name}", scorer, todo, work, self.config.score_batch_size, share)

    def _picker(self, name: str, done: Collection[str], edits: dict[str, Record]) -> Picker:
        """What is to be scored of other tasks' samples. Only who comes to take some reads what became of them."""
        state: list[State] = []

        def pick(ids: Sequence[str]) -> list[Sample]:
            if not state:
                samples = [self.samples[i] for i in self.attempt.samples]
                state.append(read_state(self.folder, samples, self.config.scorers, self.attempt.by))
            return _to_score([self.samples[i] for i in ids], state[0], name, done, edits)

        return pick

    def _share(self, key: str, plugin: Any, pick: Picker) -> Share:
        me = Holder(self.task, self.restart)
        shared = may_share(self.config, self.attempt, plugin)
        died_with = died_before(self.folder, self.attempt.stage, self.attempt.number, key) if shared else ()
        return Share(self.folder, self.config, self.attempt, me, key, pick, shared, died_with)

    def _mark(self, key: str) -> str:
        return self.attempt.by.get(key, "")

    def _finished(self, key: str) -> set[str]:
        """What this task's processes did with that plug-in and none of it does again."""
        files = manifests(self.folder, self.attempt.stage, self.attempt.number, self.task)
        own = (r for f in files for r in read_manifest(f) if r.get("scorer", "editor") == key.removeprefix("scorers."))
        return {r["id"] for r in own if r["status"] == "ok" or r.get("final")}

    def _note_lost(self, record: Record, problem: str) -> None:
        log.error("%r: %s", record["id"], problem)
        note_lost(self.folder, [record], {record["id"]: problem})

    def _work(self, key: str, plugin: Any, todo: Sequence[Sample], work: Work, batch_size: int, share: Share) -> None:
        todo = share.left([*todo, *share.kept()])
        if not todo and not share.others_wait():
            return
        by = stamp(self.attempt.number, self.task)
        engine = Engine(work, self.manifest, by, batch_size, self.stop, _Progress(len(todo), self.journal))
        engine.hold, engine.wanted = lambda ids: self.journal.hold(key, ids), share.wanted
        taken: list[Sample] = []
        try:
            for sample in [s for s in todo if s.problem]:
                engine.give_up(sample, SampleError(sample.problem))
            todo = [s for s in todo if not s.problem]
            suspects = {suspect.id: suspect for suspect in self._suspects(key, todo)}
            for sample in [s for s in todo if s.id in suspects and suspects[s.id].convicted]:
                engine.give_up(sample, ProcessDied(suspects[sample.id].sentence))
            left = [s for s in todo if s.id not in suspects or not suspects[s.id].convicted]
            alone = sorted((s for s in left if s.id in suspects), key=lambda s: suspects[s.id].times)
            ordinary, behind = less_what_follows([s for s in left if s.id not in suspects], alone)
            alone += behind
            ordinary = _from_elsewhere(ordinary, self.attempt.retry)
            if (left or share.others_wait()) and not self.stop.reason:
                load_plugin(plugin, self.config.load_concurrency, self.journal, self.stop)
                self._prepare(key, plugin, [*ordinary, *alone], work)
                self.journal.note("works")
                try:
                    with marks.part("samples"):
                        engine.run(share.own(ordinary), alone, _noted(share.others(), taken))
                finally:
                    self.journal.memory()
                    if hasattr(plugin, "close"):
                        plugin.close()
        finally:
            self.total.ok += engine.tally.ok
            self.total.failed += engine.tally.failed
            self.total.stopped = engine.tally.stopped or self.stop.reason
        # Told to stop while it did its last sample, it has nothing to be started again for.
        if self.total.stopped and {s.id for s in [*share.left(todo), *taken]} <= self._finished(key):
            self.total.stopped = None

    def _suspects(self, key: str, todo: Sequence[Sample]) -> list[Suspect]:
        own = (self.attempt.number, self.task, self.restart)
        holding = [
            process
            for process in read_journals(self.folder, self.attempt.stage, holding=True)
            if process.in_hand and (process.attempt, process.task, process.restart) != own
        ]
        if not holding:
            return []
        others = {a.number for a in each_attempt(self.folder) if a.by.get(key, self._mark(key)) != self._mark(key)}
        holding = [process for process in holding if process.attempt not in others]
        records = read_records(self.folder, self.attempt.stage)
        suspects = find_suspects(holding, records, key, {s.id for s in todo})
        for suspect in suspects:
            log.warning("%r was in hand when its process died: it goes last and alone", suspect.id)
        return suspects

    def _prepare(self, key: str, plugin: Any, todo: Sequence[Sample], work: Work) -> None:
        """A head start over the whole task; what fails in it will fail again, and be recorded, where it belongs."""
        if not hasattr(plugin, "prepare"):
            return
        try:
            with self.stop.interruptible(), marks.part("prepare"):
                plugin.prepare(self._readable(key, work, todo))
        except Exception as error:
            log.warning("prepare failed, going on without: %s: %s", type(error).__name__, error, exc_info=error)
        finally:
            self.journal.hold(key, ())

    def _readable(self, key: str, work: Work, samples: Sequence[Sample]) -> Iterator[EditRequest]:
        """An editor alone has a `prepare`. What it does when it has read them all is no one sample's doing."""
        for sample in samples:
            with suppress(Exception):
                self.journal.hold(key, [sample.id])
                yield work.read(sample).request
        self.journal.hold(key, ())


class _Progress:
    """A line a sample in the log, with the time that is left; now and then, ever more seldom, the memory it took."""

    def __init__(self, total: int, journal: Journal) -> None:
        self.total, self.done, self.start, self.journal = total, 0, time.monotonic(), journal

    def __call__(self, record: dict[str, Any]) -> None:
        self.done += 1
        if self.done == 1:
            marks.passed("first record", time.time(), time.time())
        if self.done & (self.done - 1) == 0:
            self.journal.memory()
        self.total = max(self.total, self.done)  # some may be others' samples
        left = (time.monotonic() - self.start) / self.done * (self.total - self.done)
        log.info(
            "[%d/%d] %r %s in %.2f s, about %.0f s left",
            *(self.done, self.total, record["id"], record["status"], record["seconds"], left),
        )


def _to_score(
    samples: Sequence[Sample], state: State, name: str, done: Collection[str], edits: dict[str, Record]
) -> list[Sample]:
    """Those of `samples` that are edited and not scored by that scorer yet; their edit records go into `edits`."""
    todo = []
    for sample in samples:
        edited = state.edits[sample.id].ok
        if edited and not state.scores[sample.id][name].ok and sample.id not in done:
            edits[sample.id] = edited
            todo.append(sample)
    return todo


def _from_elsewhere(samples: Sequence[Sample], retry: int) -> list[Sample]:
    """After attempts that brought nothing forward the next begins in the middle, then in a quarter: the first ones may
    be all that fail, and enough of them that fail alike end a task. What follows one another stays together."""
    quarter = (0, 2, 1, 3)[retry % 4]
    first = len(samples) * quarter // 4
    while first < len(samples) and samples[first].follows:
        first += 1
    return [*samples[first:], *samples[:first]]


def _noted(samples: Iterator[Sample], taken: list[Sample]) -> Iterator[Sample]:
    for sample in samples:
        taken.append(sample)
        yield sample
