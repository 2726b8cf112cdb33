"""Leaving in order when Slurm asks: finish or drop the samples in hand, flush, and go within the grace time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Seconds before the kill that are kept for flushing what is done.
FLUSH = 10


class Stopped(BaseException):
    """Raised inside a plug-in's call when the grace time is over. No `except Exception` swallows it."""


class StopSignals:
    """While this is entered, SIGTERM and SIGUSR2 set `reason` instead of killing.

    `warning` is the time between SIGUSR2 and the kill, in seconds; after SIGTERM Slurm waits KillWait, 30 s by
    default, `kill_wait` here. A plug-in's call inside `interruptible` may run until FLUSH seconds before the end.
    """

    def __init__(self, warning: int = 90, kill_wait: int = 30) -> None:
        self.reason: str | None = None
        self._grace = {signal.SIGUSR2: warning, signal.SIGTERM: kill_wait}
        self._deadline = float("inf")
        self._armed = False
        self._overdue = False
        self._interrupted = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in self._grace:
                self._before[number] = signal.signal(number, self._asked)
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._over)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            signal.alarm(0)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    @property
    def by_a_person(self) -> bool:
        """Whether a KeyboardInterrupt is a person's: where this is entered, no other than SIGINT's is."""
        return self._interrupted or not self._before

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        self._armed = True  # first: an alarm between the two would be heard by neither
        try:
            if self._overdue:
                raise Stopped(self.reason)
            yield
        finally:
            self._armed = False

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        signal.default_int_handler(number, frame)

    def _asked(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGTERM or self.reason is None:
            self.reason = signal.Signals(number).name
        left = max(1, self._grace[signal.Signals(number)] - FLUSH)
        self._deadline = min(self._deadline, time.monotonic() + left)  # of two signals the nearer kill counts
        signal.alarm(max(1, round(self._deadline - time.monotonic())))

    def _over(self, _: int, __: FrameType | None) -> None:
        if self.reason is None:  # an alarm that a plug-in had set
            return
        self._overdue = True
        if self._armed:
            raise Stopped(self.reason)
