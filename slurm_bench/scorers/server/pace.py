"""How fast a server may be asked, by how many at once, and how long it wants to be left alone."""

from __future__ import annotations

import email.utils
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Pace:
    """At most `per_minute` starts within any minute, over all threads; None for no limit."""

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._starts: deque[float] = deque()
        self._lock = threading.Lock()

    def reserve(self) -> float:
        """Take the next free place; gives the seconds to wait for it."""
        if self.per_minute is None:
            return 0.0
        with self._lock:
            now = self._clock()
            while self._starts and self._starts[0] <= now - 60:
                self._starts.popleft()
            busy = len(self._starts) - self.per_minute
            start = now if busy < 0 else max(now, self._starts[busy] + 60)
            self._starts.append(start)
            return start - now


class Turns:
    """Many at once, or one alone: who wants to be alone waits until all others are done, and keeps new ones waiting."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._at_work, self._alone, self._wish_to_be = 0, False, 0

    @contextmanager
    def taken(self, alone: bool) -> Iterator[None]:
        with self._changed:
            self._wish_to_be += alone
            self._changed.wait_for(lambda: not (self._at_work if alone else self._alone or self._wish_to_be))
            self._wish_to_be -= alone
            self._at_work += 1
            self._alone = alone
        try:
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._alone = False
                self._changed.notify_all()


def retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for, said in seconds or as a date; 0 without a usable one."""
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
