"""Who takes which part of a slice, where several tasks work on it.

A slice is cut into blocks of samples. A claim is a file named by its block, which one process alone can make. Deleting
them loses no result: what is done twice comes out the same (law 4).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from slurm_bench.run.durable import create_once, json_line, parse_line
from slurm_bench.run.turns import in_turns

T = TypeVar("T")

# A slice has at most about so many blocks, so that a folder of claims stays small; the last block of a slice of any
# length is then half a percent of its time.
BLOCKS = 256
# Seconds between two looks of a slice's own task at what others have claimed of it.
LOOK = 1.0


def blocks_of(chains: Sequence[Sequence[T]], batch_size: int) -> list[Sequence[T]]:
    """A slice's blocks: whole batches, the same for whoever asks. What follows one another is in one block, turn by
    turn."""
    size = batch_size * max(1, math.ceil(len(chains) / (BLOCKS * batch_size)))
    return [in_turns(chains[first : first + size]) for first in range(0, len(chains), size)]


@dataclass(frozen=True)
class Holder:
    """The process that made a claim, as its attempt's task and that task's restart."""

    task: int
    restart: int


class Claims:
    """The claims on one slice, as one process, `me`, sees and makes them. Raises OSError where the folder can't be
    written or listed.

    `turn` is 0 for a block's first claim, and goes up each time that it is taken again from a holder who died."""

    def __init__(self, folder: Path, me: Holder) -> None:
        self._folder, self._me = folder, me
        self._turns: dict[int, int] = {}  # block → its latest turn
        self._changed, self._looked = (-1, -1), -math.inf

    def look(self, now: bool = False) -> bool:
        """Has anybody claimed a part of the slice? Looks at most once in LOOK seconds unless it must be `now`, and
        lists nothing while nothing has changed."""
        if now or time.monotonic() - self._looked >= LOOK:
            self._list(always=now)
            self._looked = time.monotonic()
        return bool(self._turns)

    def turns(self) -> dict[int, int]:
        """The claimed blocks as of the last look."""
        return dict(self._turns)

    def take(self, block: int, turn: int = 0) -> bool:
        """True where it is this process's now; False where somebody was faster."""
        line = json_line({"task": self._me.task, "restart": self._me.restart})
        won = create_once(self._file(block, turn), line)
        self._turns[block] = max(turn, self._turns.get(block, 0))
        return won

    def holders(self, block: int) -> list[Holder]:
        """Whose a claimed block was and, last, is; without those whose claim can't be read."""
        found = []
        for turn in range(self._turns[block] + 1):
            with suppress(OSError):
                row = parse_line(self._file(block, turn).read_bytes())
                if isinstance(row, dict) and isinstance(row.get("task"), int) and isinstance(row.get("restart"), int):
                    found.append(Holder(row["task"], row["restart"]))
        return found

    def _file(self, block: int, turn: int) -> Path:
        return self._folder / f"{block:04d}-{turn}"

    def _list(self, always: bool) -> None:
        """A folder that is opened is asked for anew on NFS; one that is only looked at may be as it was a minute ago.
        What is made within the same tick of the clock doesn't show in a folder's time: the time counts once it has
        been seen twice."""
        try:
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return
        try:
            changed = os.fstat(folder).st_mtime_ns
            if not always and self._changed == (changed, changed):
                return
            for name in os.listdir(folder):
                block, _, turn = name.partition("-")
                if block.isdecimal() and turn.isdecimal():
                    self._turns[int(block)] = max(int(turn), self._turns.get(int(block), 0))
            self._changed = (self._changed[1], changed)
        finally:
            os.close(folder)
