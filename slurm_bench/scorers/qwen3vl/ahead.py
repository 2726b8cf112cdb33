"""Micro-batches, each prepared in a thread while the model works on the one before: also across two calls of the
scorer, so that the GPU waits for the first one of a task alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar


class Item(Protocol):
    @property
    def key(self) -> Hashable:
        """Equal for items of which one will do for the other."""

    @property
    def length(self) -> int:
        """About how much work it is, to keep like with like."""


T = TypeVar("T", bound=Item)


class MicroBatches(Generic[T]):
    """`size` items at once; the very first are `first`, fewer, so that there soon is work."""

    def __init__(self, prepare: Callable[[Sequence[T]], Any], size: int, first: int) -> None:
        self._prepare = prepare
        self._size = size
        self._first = first
        self._thread = ThreadPoolExecutor(1, "prepare")
        self._coming: Callable[[], Sequence[T]] | None = None
        self._begun: Future[tuple[Sequence[T], Any]] | None = None

    def expect(self, coming: Callable[[], Sequence[T]]) -> None:
        """What the next `of` will be asked for, as a function that may wait for it. A head start, no promise."""
        self._coming = coming

    def of(self, items: Sequence[T]) -> Iterator[tuple[Sequence[T], Any]]:
        """The items in micro-batches, each with what `prepare` made of it."""
        waiting = self._take_begun(items)
        begun = {item.key for item in waiting.result()[0]} if waiting else set()
        rest = sorted((item for item in items if item.key not in begun), key=lambda item: item.length)
        parts = list(self._cut(rest, self._size if waiting else self._first))
        if waiting is None and parts:
            waiting = self._thread.submit(self._with_inputs, parts.pop(0))
        while waiting is not None:
            part, inputs = waiting.result()
            waiting = self._thread.submit(self._with_inputs, parts.pop(0)) if parts else None
            if waiting is None and self._coming is not None:
                self._begun, self._coming = self._thread.submit(self._begin, self._coming), None
            yield part, inputs

    def close(self) -> None:
        self._thread.shutdown()

    def _cut(self, items: Sequence[T], first: int) -> Iterator[Sequence[T]]:
        while items:
            yield items[:first]
            items, first = items[first:], self._size

    def _with_inputs(self, part: Sequence[T]) -> tuple[Sequence[T], Any]:
        return part, self._prepare(part)

    def _begin(self, coming: Callable[[], Sequence[T]]) -> tuple[Sequence[T], Any]:
        part = sorted(coming(), key=lambda item: item.length)[: self._size]
        return self._with_inputs(part) if part else (part, None)

    def _take_begun(self, items: Sequence[T]) -> Future[tuple[Sequence[T], Any]] | None:
        """What was begun for these items. If it failed they are prepared again, and may fail where it is seen."""
        begun, self._begun = self._begun, None
        if begun is None or begun.exception() is not None:
            return None
        keys = {item.key for item in begun.result()[0]}
        return begun if keys and keys <= {item.key for item in items} else None
