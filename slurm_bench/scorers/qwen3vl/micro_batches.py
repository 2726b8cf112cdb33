"""Micro-batches, each preprocessed in a thread while the model works on the one before, also across two calls of the
scorer: so the GPU waits for the first micro-batch of a task alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar


class HasLength(Protocol):
    @property
    def key(self) -> Hashable:
        """Equal for two inputs of which one can stand for the other."""

    @property
    def length(self) -> int:
        """Roughly the amount of work: inputs of similar length are batched together, for little padding."""

    @property
    def alike(self) -> Hashable:
        """Equal for inputs that have much in common, which costs less in one batch."""


T = TypeVar("T", bound=HasLength)


class MicroBatches(Generic[T]):
    """At most `size` inputs at once; the first micro-batch of all has `first`, fewer, so that the model can start soon,
    or all that are alike."""

    def __init__(self, preprocess: Callable[[Sequence[T]], Any], size: int, first: int) -> None:
        self._preprocess = preprocess
        self._size = size
        self._first = first
        self._thread = ThreadPoolExecutor(1, "preprocess")
        self._next_inputs: Callable[[], Sequence[T]] | None = None
        self._prefetched: Future[tuple[Sequence[T], Any]] | None = None

    def prefetch(self, next_inputs: Callable[[], Sequence[T]]) -> None:
        """What the next `split` will be given, as a function that may block. Another input is allowed to come."""
        self._next_inputs = next_inputs

    def split(self, inputs: Sequence[T]) -> Iterator[tuple[Sequence[T], Any]]:
        """The inputs in micro-batches, each with what `preprocess` made of it."""
        pending = self._take_prefetched(inputs)
        done = {one.key for one in pending.result()[0]} if pending else set()
        rest = [one for one in inputs if one.key not in done]
        batches = list(self._cut(rest, self._size if pending else self._first))
        if pending is None and batches:
            pending = self._thread.submit(self._with_tensors, batches.pop(0))
        while pending is not None:
            batch, tensors = pending.result()
            pending = self._thread.submit(self._with_tensors, batches.pop(0)) if batches else None
            if pending is None and self._next_inputs is not None:
                self._prefetched = self._thread.submit(self._first_of, self._next_inputs)
                self._next_inputs = None
            yield batch, tensors

    def close(self) -> None:
        self._thread.shutdown()

    def _cut(self, inputs: Sequence[T], first: int) -> Iterator[Sequence[T]]:
        groups: dict[Hashable, list[T]] = {}
        for one in sorted(inputs, key=lambda one: one.length):
            groups.setdefault(one.alike, []).append(one)
        batch: list[T] = []
        most = first
        for group in groups.values():
            for start in range(0, len(group), self._size):
                part = group[start : start + self._size]
                if batch and len(batch) + len(part) > most:
                    yield batch
                    batch, most = [], self._size
                batch = batch + part
        if batch:
            yield batch

    def _with_tensors(self, batch: Sequence[T]) -> tuple[Sequence[T], Any]:
        return batch, self._preprocess(batch)

    def _first_of(self, next_inputs: Callable[[], Sequence[T]]) -> tuple[Sequence[T], Any]:
        batch = next(self._cut(next_inputs(), self._size), [])
        return self._with_tensors(batch) if batch else (batch, None)

    def _take_prefetched(self, inputs: Sequence[T]) -> Future[tuple[Sequence[T], Any]] | None:
        """The prefetched micro-batch if it belongs to `inputs`. One that failed is dropped: its inputs are
        preprocessed again, and may fail where the failure is seen."""
        prefetched, self._prefetched = self._prefetched, None
        if prefetched is None or prefetched.exception() is not None:
            return None
        keys = {one.key for one in prefetched.result()[0]}
        return prefetched if keys and keys <= {one.key for one in inputs} else None
