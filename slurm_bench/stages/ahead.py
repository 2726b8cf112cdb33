"""Samples read ahead of the plug-in, in threads, bounded by count and by the memory that pictures take."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from slurm_bench.logs import log
from slurm_bench.machine import GIB
from slurm_bench.run.plan import Sample
from slurm_bench.stages.stop import StopSignals

# A megapixel PNG takes 20 to 60 ms of a core to decode, and a judge wants two or three every 80 ms.
READERS = 4
# Pictures decoded ahead take at most about so much memory, whatever the batch.
MOST = GIB


class Readable(Protocol):
    def read(self, sample: Sample) -> Any:
        """All that a call needs of the sample; runs ahead, in a thread. Each call gets inputs of its own."""

    def weight(self, given: Any) -> int:
        """The bytes that what `read` gave takes."""

    def expect(self, coming: Callable[[], Sequence[Any]]) -> None:
        """Before each batch is called: what was read for the one after it, once it is; a head start, no promise."""


class ReadAhead:
    """`begun` are the ids that were begun here and not yet taken out by whoever finishes them. `settle` waits until
    what was given out is finished."""

    def __init__(self, work: Readable, stop: StopSignals, settle: Callable[[], None]) -> None:
        self._work, self._stop, self.settle = work, stop, settle
        self._heaviest = 0  # bytes of the largest sample so far
        self.begun: dict[str, None] = {}

    def batches(
        self, samples: Iterable[Sample], size: Callable[[], int], ahead: Callable[[], bool]
    ) -> Iterator[list[tuple[Sample, Any, Exception | None]]]:
        """Each sample with what was read, or why it could not be; while `ahead` says so, the batch after it is read
        meanwhile. Ends early when told to stop."""
        reading: deque[tuple[Sample, Future[Any]]] = deque()
        waiting, held = iter(samples), None
        with ThreadPoolExecutor(READERS, "read") as reader:
            try:
                while self._stop.reason is None:
                    most = self._most(size(), ahead())
                    while len(reading) < most and (sample := held or next(waiting, None)) is not None:
                        held = sample if sample.follows in self.begun else None
                        if held is not None:  # its source is still to be made
                            if reading:
                                break
                            self.settle()
                            held = None
                        self.begun[sample.id] = None
                        reading.append((sample, reader.submit(self._work.read, sample)))
                    if not reading:
                        return
                    if not self._heaviest:  # the first one tells how many are to be read
                        self._outcome(reading[0][1])
                        continue
                    batch = [reading.popleft() for _ in range(min(len(reading), self._bounded(size())))]
                    read = [(sample, *self._outcome(future)) for sample, future in batch]
                    self._expect([future for _, future in list(reading)[: size()]])
                    yield read
            finally:
                reader.shutdown(wait=False, cancel_futures=True)

    def _most(self, size: int, ahead: bool) -> int:
        """So many are read at once; the first sample of all tells what they weigh."""
        if not self._heaviest:
            return READERS if ahead else 1
        return self._bounded(2 * size if ahead else size)

    def _bounded(self, count: int) -> int:
        return max(1, min(count, MOST // self._heaviest))

    def _outcome(self, future: Future[Any]) -> tuple[Any, Exception | None]:
        with self._stop.interruptible():
            error = future.exception()
        given = None if error else future.result()
        self._heaviest = max(1, self._heaviest, 0 if error else self._work.weight(given))
        if error is not None and not isinstance(error, Exception):
            raise error
        return given, error

    def _expect(self, coming: list[Future[Any]]) -> None:
        with self._stop.interruptible():
            try:
                self._work.expect(lambda: [future.result() for future in coming if future.exception() is None])
            except Exception as error:
                log.warning("the plug-in's head start failed, going on: %s", error, exc_info=error)
