"""Which task works on what."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

# So many tasks are told one by one; of more the first ones and the last.
TOLD, FIRST = 128, 8


def slice_of(items: Sequence[T], task: int, slices: int) -> Sequence[T]:
    """What task k of N works on: idx % N == k."""
    return items[task::slices]


def seed_of(sample_id: str, base_seed: int) -> int:
    """A sample's seed, 32 bits: from its id and the base seed alone, the same on every machine for ever."""
    text = f"{base_seed}\0{sample_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big")


def describe_slices(slices: Iterable[Sequence[int]]) -> list[str]:
    """A line a task: how many samples, and which indices of the plan; of many tasks the first ones and the last."""
    mine = list(slices)
    if len(mine) <= TOLD:
        return [_describe(task, indices) for task, indices in enumerate(mine)]
    last = len(mine) - 1
    sizes = {len(indices) for indices in mine[FIRST:last]}
    each = f"{min(sizes)}" if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}"
    between = f"tasks {FIRST} to {last - 1}: {each} samples each"
    return [
        *(_describe(task, mine[task]) for task in range(FIRST)),
        f"{between}, every {len(mine)}th sample likewise",
        _describe(last, mine[last]),
    ]


def _describe(task: int, indices: Sequence[int]) -> str:
    mine = [str(i) for i in indices]
    shown = ", ".join(mine if len(mine) <= 8 else [*mine[:6], "…", mine[-1]])
    return f"task {task}: {len(mine)} samples, indices {shown}"
