"""One process's work on a task: its samples through a plug-in in batches, each to a record, whatever some of them do.

Some threads read ahead, this one calls the plug-in, one encodes and writes behind it, so that the GPU waits for no
disk. What they hold is bounded.
"""

from __future__ import annotations

import time
from bdb import BdbQuit
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

from slurm_bench.errors import FinalError, LostGpu, ServiceDown, UserError, words_of
from slurm_bench.logs import log
from slurm_bench.machine import free_memory
from slurm_bench.run.durable import LineWriter
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import failure_kind
from slurm_bench.stages.ahead import Readable, ReadAhead
from slurm_bench.stages.behind import WriteBehind
from slurm_bench.stages.faults import (
    as_exception,
    describe,
    drop_frames,
    failed,
    in_words,
    is_of_data,
    is_out_of_files,
    is_out_of_memory,
    is_poisoned,
    line_of,
)
from slurm_bench.stages.stop import Stopped, StopSignals

# A failed sample gets one more try at the task's end: what failed it may have passed.
TRIES = 2
# A sample that takes so many seconds isn't read ahead where others wait for it: it would be kept from them for longer
# than reading it takes.
SLOW = 0.5
# When so many of a task's first samples fail in the same way and none comes right, the task ends.
SYSTEMATIC = 10


class Work(Readable, Protocol):
    """What differs between editing and scoring. Any exception hurts its own sample alone, but for an OSError
    out of `keep`: that is the storage."""

    def about(self, sample: Sample) -> dict[str, Any]:
        """What every record of the sample says, whether it comes right or fails."""

    def call(self, batch: Sequence[Any]) -> Sequence[Any]:
        """The plug-in: for each input a result or an exception."""

    def take(self, given: Any, result: Any) -> Any:
        """What `keep` needs, apart from the plug-in's own memory: it may use that again in its next call."""

    def keep(self, sample: Sample, taken: Any) -> dict[str, Any]:
        """Put the result's data on disk, and give the record's fields; runs behind, in a thread."""


@dataclass
class Tally:
    """How a process's work ended. `stopped` says why it left early, if it did."""

    ok: int = 0
    failed: int = 0
    stopped: str | None = None


class SystematicFailure(Exception):
    """The first samples all failed in the same way: the task can't be blamed on its samples."""


class GpuLost(Exception):
    """The process can't use its GPU any more. What it has in hand has no record."""


class _Away(Exception):
    """A service that the plug-in needs is down. What is in hand has no record."""


@dataclass
class _Job:
    """A sample on its way through."""

    sample: Sample
    given: Any = None
    taken: Any = None
    error: Exception | None = None
    seconds: float = 0.0
    tries: int = 0
    unread: bool = False


@dataclass
class Engine:
    """`hold` is told what has been begun and not finished, before each call; `wanted` says whether others wait for
    what is read ahead."""

    work: Work
    manifest: LineWriter
    stamp: dict[str, Any]
    batch_size: int
    stop: StopSignals
    progress: Callable[[dict[str, Any]], None] = lambda record: None
    hold: Callable[[Iterable[str]], None] = lambda ids: None
    wanted: Callable[[], bool] = lambda: False
    tally: Tally = field(default_factory=Tally)
    _again: list[_Job] = field(default_factory=list)
    _kinds: list[tuple[str, str]] | None = field(default_factory=list)
    _logged: set[tuple[str, str]] = field(default_factory=set)
    _pace: float | None = None  # seconds a sample of the last call
    _faults: int = 0  # samples that failed at first

    def __post_init__(self) -> None:
        self._ahead = ReadAhead(self.work, self.stop, lambda: self._writer.drain())

    def run(self, samples: Iterable[Sample], suspects: Sequence[Sample] = (), others: Iterable[Sample] = ()) -> Tally:
        """Every sample to a record, unless told to stop; then those of `others`, which are this task's once they are
        asked for; suspects last, each alone. Raises StorageFailed, SystematicFailure, GpuLost, UserError (the plug-in
        can't work at all)."""
        with WriteBehind(2 * self.batch_size) as writer:
            self._writer = writer
            try:
                self._pass(samples)
                self._pass(self._while_well(others))
                for suspect in suspects:
                    writer.drain()
                    self._pass([suspect])
            except Stopped:
                pass
            except _Away as error:
                self.tally.stopped = str(error)
            finally:
                self.tally.stopped = self.tally.stopped or self.stop.reason
                for job in self._again:
                    writer.put(_bound(self._record, job))
        return self.tally

    def give_up(self, sample: Sample, error: Exception) -> None:
        """A record without a try."""
        self._record(_Job(sample, error=error))

    def _while_well(self, others: Iterable[Sample]) -> Iterator[Sample]:
        """A process in which more fails than comes right is soon done with its own: it spoils nobody else's."""
        waiting = iter(others)
        self._writer.drain()
        while self._faults <= self.tally.ok and (sample := next(waiting, None)) is not None:
            yield sample

    def _pass(self, samples: Iterable[Sample]) -> None:
        for batch in self._read(samples):
            self._process(batch)
        while self._again and (batch := next(self._read([self._again[0].sample]), [])):
            batch[0].tries = self._again.pop(0).tries
            self._process(batch)

    def _read(self, samples: Iterable[Sample]) -> Iterator[list[_Job]]:
        """Batches of what was read ahead. The batch size may shrink on the way."""
        for batch in self._ahead.batches(samples, lambda: self.batch_size, self._may_read_ahead):
            yield [_Job(sample, given, error=error, unread=is_of_data(error)) for sample, given, error in batch]

    def _may_read_ahead(self) -> bool:
        return not (self.wanted() and (self._pace is None or self._pace >= SLOW))

    def _process(self, batch: Sequence[_Job]) -> None:
        for job in batch:
            job.tries += 1
        self.hold(list(self._ahead.begun))
        try:
            self._refuse_unread([job for job in batch if job.error is not None])
            self._call([job for job in batch if job.error is None])
        except (GpuLost, UserError, _Away):
            for job in batch:  # what came right before it is kept
                if job.taken is not None:
                    self._writer.put(_bound(self._record, job))
            raise
        for job in batch:
            if job.error is not None and job.tries < TRIES and not isinstance(job.error, FinalError):
                log.warning("%r failed, one more try later: %s", job.sample.id, line_of(job.error))
                self._ahead.begun.pop(job.sample.id, None)
                self._again.append(replace(job, given=None, taken=None))
            else:
                self._writer.put(_bound(self._record, job))
        self._pace = batch[-1].seconds
        self._faults += sum(job.error is not None and job.tries == 1 for job in batch)
        self._refuse_systematic(batch)

    def _refuse_unread(self, failed: Sequence[_Job]) -> None:
        """Of what was read ahead, and of what reads for it. After a plug-in that leaves files open all that follows
        would fail in this process; the next one goes on."""
        self._raise_if_none_is_to_blame(failed)
        for job in failed:
            if job.error is not None and is_out_of_files(job.error):
                raise job.error

    def _refuse_systematic(self, batch: Sequence[_Job]) -> None:
        """Raises SystematicFailure. From the first success on a failure is its sample's, as is what its data say, or
        the plug-in of them: the first ten may be all that are so."""
        if self._kinds is None:
            return
        self._kinds += [
            failure_kind(describe(job.error))
            for job in batch
            if job.error is not None and job.tries == 1 and not job.sample.problem and not _is_its_own(job)
        ]
        if any(job.error is None for job in batch):
            self._kinds = None
        elif len(self._kinds) >= SYSTEMATIC and len(set(self._kinds)) == 1:
            error = batch[-1].error
            assert error is not None
            raise SystematicFailure(
                f"the first {len(self._kinds)} samples all failed alike: {line_of(error)}"
            ) from error

    def _call(self, jobs: Sequence[_Job]) -> None:
        """Give each job its result or error. What failed as a batch, or for memory, is tried in smaller ones."""
        if not jobs:
            return
        start, raised = time.monotonic(), False
        try:
            with self.stop.interruptible():
                given = self.work.call([job.given for job in jobs])
                results = list(islice(given, len(jobs) + 1))  # an iterator may have no end
            if len(results) != len(jobs):
                count = f"more than {len(jobs)}" if len(results) > len(jobs) else len(results)
                raise ValueError(f"the plug-in gave {count} results for {len(jobs)} samples")
        except SystemExit as error:  # a plug-in's way of giving up; its words are the sample's error
            results, raised = [RuntimeError(f"the plug-in called sys.exit: {words_of(error.code)}")] * len(jobs), True
        except Stopped:
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | BdbQuit) and self.stop.by_a_person:
                raise KeyboardInterrupt from None  # at a breakpoint, say: no sample's fault
            results, raised = [as_exception(error)] * len(jobs), True
        seconds = (time.monotonic() - start) / len(jobs)
        for job, result in zip(jobs, results, strict=True):
            job.seconds, job.taken, job.error = seconds, None, None
            self._settle(job, result)
        failed = [job for job in jobs if job.error is not None]
        self._raise_if_none_is_to_blame(failed)
        starved = [job for job in failed if _starved(job)]
        if starved:
            free_memory()
        if len(jobs) > 1 and (starved or raised):
            size = (len(jobs) + 1) // 2 if starved else 1
            for first in range(0, len(failed), size):
                self._call([job for job in failed[first : first + size] if self._read_again(job)])
            if starved and not any(_starved(job) for job in failed) and size < self.batch_size:
                log.warning("out of memory at a batch of %d; going on with %d", len(jobs), size)
                self.batch_size = size

    def _settle(self, job: _Job, result: Any) -> None:
        try:
            if isinstance(result, Exception):
                raise result
            job.taken = self.work.take(job.given, result)
        except Exception as error:
            drop_frames(error)
            job.error = error
        job.given = None

    def _read_again(self, job: _Job) -> bool:
        """Inputs of its own for another try: the plug-in may have changed the first ones."""
        try:
            job.given = self.work.read(job.sample)
            return True
        except Exception as error:
            job.error = error
            return False

    def _raise_if_none_is_to_blame(self, failed: Sequence[_Job]) -> None:
        for job in failed:
            assert job.error is not None
            if isinstance(job.error, LostGpu) or is_poisoned(job.error):
                raise GpuLost(line_of(job.error))
            if isinstance(job.error, ServiceDown):
                raise _Away(line_of(job.error))
            if isinstance(job.error, UserError):  # no sample of the task can come right as things are
                raise job.error

    def _record(self, job: _Job) -> None:
        """Data before record (law 2): `keep` has written the image when its record is."""
        fields: dict[str, Any] = {}
        if job.error is None:
            try:
                fields = self.work.keep(job.sample, job.taken)
            except OSError:
                raise
            except Exception as error:
                job.error = error
        record: dict[str, Any] = {
            "id": job.sample.id,
            "status": "ok",
            "seconds": round(job.seconds, 4),
            **fields,
        }
        if job.error is not None:
            record |= failed(job.sample, job.error, job.tries, job.unread)
        record |= {**self.work.about(job.sample), **self.stamp, "time": time.time()}
        self.manifest.write(record)
        self._ahead.begun.pop(job.sample.id, None)
        if job.error is None:
            self.tally.ok += 1
        else:
            self.tally.failed += 1
            self._log_failure(job.sample, job.error)
        self.progress(record)

    def _log_failure(self, sample: Sample, error: Exception) -> None:
        """A failure's traceback once, as a hundred samples may fail alike. What is said in words has none."""
        kind = failure_kind(describe(error))
        told = kind in self._logged or in_words(error)
        log.error("%r: %s", sample.id, line_of(error), exc_info=None if told else error)
        self._logged.add(kind)


def _is_its_own(job: _Job) -> bool:
    """It is said of the sample, and soon: to go on costs nothing, where it holds for all of them."""
    told = is_of_data(job.error) and job.seconds < SLOW
    return told or isinstance(job.error, FinalError)


def _starved(job: _Job) -> bool:
    return job.error is not None and is_out_of_memory(job.error)


def _bound(function: Callable[[_Job], None], job: _Job) -> Callable[[], None]:
    return lambda: function(job)
