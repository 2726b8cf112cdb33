"""How far reading has come, on stderr: for a file that takes longer than a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


def counted(things: Iterator[T], label: str) -> Iterator[T]:
    """The same things. On a terminal one line is written over and over, elsewhere (a log) a new one now and then."""
    terminal = sys.stderr.isatty()
    begin = time.monotonic()
    due, count = begin + 1, 0
    try:
        for count, thing in enumerate(things, 1):
            yield thing
            now = time.monotonic()
            if now >= due:
                line = f"{label}: {count} read, {now - begin:.0f} s"
                print(
                    f"\r{line}\x1b[K" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True
                )
                due = now + (0.2 if terminal else 10)
    finally:
        if terminal and due > begin + 1:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
