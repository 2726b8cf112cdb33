"""How fast a server may be asked, and how long it wants to be left alone."""

from __future__ import annotations

import email.utils
import math
import threading
import time
from collections import deque
from collections.abc import Callable


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
