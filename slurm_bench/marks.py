"""Moments of a process from which its timeline is drawn. Who does the work marks them; a task writes them into its
journal. Importing this is light."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

Listener = Callable[[str, float, float], None]  # name, begin and end, on time.time's clock

_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextmanager
def part(name: str) -> Iterator[None]:
    """The seconds inside are this part's, also if it raises."""
    begin = time.time()
    try:
        yield
    finally:
        passed(name, begin, time.time())


def passed(name: str, begin: float, end: float) -> None:
    for listener in _listeners:
        listener(name, begin, end)


def passed_in_turn(seconds: Mapping[str, float]) -> None:
    """Parts of which one followed the other, the last of them until now."""
    begin = time.time() - sum(seconds.values())
    for name, took in seconds.items():
        passed(name, begin, begin + took)
        begin += took


def process_began() -> float:
    """When this process was started, on time.time's clock: Python and the first imports come before any code of ours.
    Without /proc, now."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)
    except (OSError, ValueError, AttributeError):
        return time.time()
