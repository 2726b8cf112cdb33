"""Ctrl-C and SIGTERM, put off for as long as something must not be left half done; and a Ctrl-C that got lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from slurm_bench.errors import UserError
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


@contextmanager
def remembered() -> Iterator[None]:
    """Python raises a Ctrl-C wherever it is. In the middle of an import somebody may swallow it, and what is half
    imported then fails otherwise: such a failure is that Ctrl-C still. What the user is told of in a line stays."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        if came:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
