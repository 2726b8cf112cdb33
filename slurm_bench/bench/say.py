"""What a bench is at, for the person who waits."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)
