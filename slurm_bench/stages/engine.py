"""One task's work: its samples through a plug-in in batches, each to a record, whatever some of them do.

Some threads read ahead, this one calls the plug-in, one encodes and writes behind it, so that the GPU waits for no
disk. What they hold is bounded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from slurm_bench.logs import log
from slurm_bench.machine import free_memory
from slurm_bench.run.durable import LineWriter
from slurm_bench.run.plan import Sample
from slurm_bench.stages.behind import WriteBehind
from slurm_bench.stages.faults import describe, is_out_of_memory, is_poisoned, let_go
from slurm_bench.stages.stop import Stopped, StopSignals

# A failed sample gets one more try at the task's end: what failed it may have passed.
TRIES = 2
# A megapixel PNG takes 20 to 60 ms of a core to decode, and a judge wants two or three every 80 ms.
READERS = 4


class Work(Protocol):
    """What differs between editing and scoring. Any exception hurts its own sample alone, but for an OSError
    out of `keep`: that is the storage."""

    def about(self, sample: Sample) -> dict[str, Any]:
        """What every record of the sample says, whether it comes right or fails."""

    def read(self, sample: Sample) -> Any:
        """The plug-in's input; runs ahead, in a thread."""

    def expect(self, coming: Callable[[], Sequence[Any]]) -> None:
        """Before each `call`: the inputs of the one after it, once they are read; a head start, no promise."""

    def call(self, batch: Sequence[Any]) -> Sequence[Any]:
        """The plug-in: for each input a result or an exception."""

    def keep(self, sample: Sample, request: Any, result: Any) -> dict[str, Any]:
        """Check the result, put its data on disk, and give the record's fields; runs behind, in a thread."""


@dataclass
class Tally:
    """How a task's work ended. `stopped` says why it left early, if it did."""

    ok: int = 0
    failed: int = 0
    stopped: str | None = None


class _Poisoned(Exception):
    """The process can't use its GPU any more."""


@dataclass
class _Item:
    sample: Sample
    request: Any = None
    result: Any = None
    error: Exception | None = None
    seconds: float = 0.0
    tries: int = 0


@dataclass
class Engine:
    work: Work
    manifest: LineWriter
    stamp: dict[str, Any]
    batch_size: int
    stop: StopSignals
    progress: Callable[[dict[str, Any]], None] = lambda record: None
    tally: Tally = field(default_factory=Tally)
    _again: list[_Item] = field(default_factory=list)
    _in_hand: Sequence[_Item] = ()

    def run(self, samples: Sequence[Sample]) -> Tally:
        """Every sample to a record, unless told to stop. Raises StorageFailed."""
        with WriteBehind(2 * self.batch_size) as writer:
            try:
                for batch in self._read(samples):
                    self._process(batch, writer)
                while self._again and (batch := next(self._read([self._again[0].sample]), [])):
                    batch[0].tries = self._again.pop(0).tries
                    self._process(batch, writer)
            except Stopped:
                self.tally.stopped = self.stop.reason
            except _Poisoned as error:
                self.tally.stopped = f"the GPU's context is lost: {error}"
                self._again += self._in_hand
            for item in self._again:
                writer.put(_bound(self._record, item))
        return self.tally

    def _read(self, samples: Sequence[Sample]) -> Iterator[list[_Item]]:
        """Batches, read ahead; ends early when told to stop. The batch size may shrink on the way."""
        ahead: list[tuple[Sample, Future[Any]]] = []
        waiting = iter(samples)
        with ThreadPoolExecutor(READERS, "read") as reader:
            try:
                while not self._told_to_stop():
                    while len(ahead) < 2 * self.batch_size and (sample := next(waiting, None)) is not None:
                        ahead.append((sample, reader.submit(self.work.read, sample)))
                    if not ahead:
                        return
                    batch, ahead = ahead[: self.batch_size], ahead[self.batch_size :]
                    with self.stop.interruptible():
                        items = [_item(sample, future) for sample, future in batch]
                        self._expect([future for _, future in ahead[: self.batch_size]])
                    yield items
            finally:
                reader.shutdown(wait=False, cancel_futures=True)

    def _expect(self, coming: list[Future[Any]]) -> None:
        try:
            self.work.expect(lambda: [future.result() for future in coming if future.exception() is None])
        except Exception as error:
            log.warning("the plug-in's expect failed, going on: %s", _line(error), exc_info=error)

    def _told_to_stop(self) -> bool:
        self.tally.stopped = self.stop.reason
        return self.tally.stopped is not None

    def _process(self, batch: Sequence[_Item], writer: WriteBehind) -> None:
        for item in batch:
            item.tries += 1
        self._in_hand = batch
        self._call([item for item in batch if item.error is None])
        self._in_hand = ()
        for item in batch:
            if item.error is not None and item.tries < TRIES:
                log.warning("%r failed, one more try later: %s", item.sample.id, _line(item.error))
                self._again.append(_Item(item.sample, error=item.error, seconds=item.seconds, tries=item.tries))
            else:
                writer.put(_bound(self._record, item))

    def _call(self, items: Sequence[_Item]) -> None:
        """Give each item its result or error. What failed as a batch, or for memory, is tried in smaller ones."""
        if not items:
            return
        start, raised = time.monotonic(), False
        try:
            with self.stop.interruptible():
                results = list(self.work.call([item.request for item in items]))
            if len(results) != len(items):
                raise ValueError(f"the plug-in gave {len(results)} results for {len(items)} samples")
        except Exception as error:
            results, raised = [error] * len(items), True
        seconds = (time.monotonic() - start) / len(items)
        for item, result in zip(items, results, strict=True):
            item.seconds, item.result, item.error = seconds, None, None
            if isinstance(result, Exception):
                let_go(result)
                item.error = result
            else:
                item.result = result
        failed = [item for item in items if item.error is not None]
        starved = [item for item in failed if item.error and is_out_of_memory(item.error)]
        if starved:
            free_memory()
        for item in failed:
            if item.error and is_poisoned(item.error):
                raise _Poisoned(_line(item.error))
        if len(items) > 1 and (starved or raised):
            size = (len(items) + 1) // 2 if starved else 1
            if starved:
                self.batch_size = min(self.batch_size, size)
                log.warning("out of memory at a batch of %d; going on with %d", len(items), self.batch_size)
            for start_at in range(0, len(failed), size):
                self._call(failed[start_at : start_at + size])

    def _record(self, item: _Item) -> None:
        """Data before record (law 2): `keep` has written the image when its record is."""
        fields: dict[str, Any] = {}
        if item.error is None:
            try:
                fields = self.work.keep(item.sample, item.request, item.result)
            except OSError:
                raise
            except Exception as error:
                item.error = error
        record: dict[str, Any] = {
            "id": item.sample.id,
            "status": "ok",
            "seconds": round(item.seconds, 4),
            **fields,
        }
        if item.error is not None:
            record |= {"status": "error", "error": describe(item.error), "tries": item.tries}
            record |= getattr(item.error, "fields", {})
        record |= {**self.work.about(item.sample), **self.stamp, "time": time.time()}
        self.manifest.write(record)
        if item.error is None:
            self.tally.ok += 1
        else:
            self.tally.failed += 1
            log.error("%r: %s", item.sample.id, _line(item.error), exc_info=item.error)
        self.progress(record)


def _item(sample: Sample, future: Future[Any]) -> _Item:
    error = future.exception()
    if error is None:
        return _Item(sample, request=future.result())
    if isinstance(error, Exception):
        return _Item(sample, error=error)
    raise error


def _bound(function: Callable[[_Item], None], item: _Item) -> Callable[[], None]:
    return lambda: function(item)


def _line(error: BaseException) -> str:
    said = describe(error)
    return f"{said['type']}: {said['message']}"
