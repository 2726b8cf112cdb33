"""What was measured before a bench is ended: by a time limit, by Ctrl-C, or by what fails later."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from slurm_bench.bench.say import say


def tell_last(growing: Iterable[Mapping[str, Any]], tell: Callable[[Mapping[str, Any]], None]) -> None:
    """Of results that grow, all of them; those that there are, `interrupted`, before whatever ended it goes on."""
    results: Mapping[str, Any] = {}
    with _told_of_sigterm():
        try:
            for grown in growing:
                results = grown
        except BaseException:
            if results:
                say("ended before it was through; what it has measured:")
                tell({**results, "interrupted": True})
            raise
    tell(results)


class _Terminated(BaseException):
    pass


@contextmanager
def _told_of_sigterm() -> Iterator[None]:
    """SIGTERM unwinds what is inside, and then ends the process as ever."""

    def unwind(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one doesn't wait
        raise _Terminated

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    except _Terminated:
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
