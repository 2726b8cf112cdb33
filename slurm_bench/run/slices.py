"""Which task works on what."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def slice_of(items: Sequence[T], task: int, slices: int) -> Sequence[T]:
    """What task k of N works on: idx % N == k."""
    return items[task::slices]


def seed_of(sample_id: str, base_seed: int) -> int:
    """A sample's seed, 32 bits: from its id and the base seed alone, the same on every machine for ever."""
    text = f"{base_seed}\0{sample_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big")


def describe_slices(slices: Iterable[Sequence[int]]) -> list[str]:
    """A line a task: how many samples, and which indices of the plan."""
    lines = []
    for task, indices in enumerate(slices):
        mine = [str(i) for i in indices]
        shown = ", ".join(mine if len(mine) <= 8 else [*mine[:6], "…", mine[-1]])
        lines.append(f"task {task}: {len(mine)} samples, indices {shown}")
    return lines
