"""Ctrl-C and SIGTERM, put off for as long as something must not be left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from slurm_bench.logs import log

_PUT_OFF = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def postponed() -> Iterator[None]:
    """What arrives meanwhile is delivered at the end, to the handlers of before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if not arrived:
            log.warning("%s: all jobs are submitted or none; that is finished first", signal.Signals(number).name)
        arrived.append(number)

    before = {number: signal.signal(number, note) for number in _PUT_OFF}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
        for number in dict.fromkeys(arrived):
            signal.raise_signal(number)
