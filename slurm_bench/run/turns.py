"""Samples that follow others: a sample's source may be what was made of the one before it, its turn before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import TypeVar

from slurm_bench.errors import SampleError
from slurm_bench.run.layout import RunDir
from slurm_bench.run.plan import Sample

T = TypeVar("T")


class NoTurnBefore(SampleError):
    """The turn before has no image, so this one has no source. It says nothing about this sample."""


def sources_of(run: RunDir, sample: Sample, by: str) -> tuple[str, ...]:
    """Where a sample's source images are, absolute or from the run folder: of one that follows another, what that
    editor made of it."""
    return (run.image(sample.follows, by),) if sample.follows else sample.sources


def followed(samples: Iterable[Sample]) -> dict[str, str]:
    """The ids of samples that follow others, each with the one that it follows."""
    return {sample.id: sample.follows for sample in samples if sample.follows}


def chains_of(ids: Sequence[str], follows: Mapping[str, str]) -> list[list[str]]:
    """What belongs into one task: each chain's turns in their order, as far as they are among the ids. A chain has
    the place of its first one."""
    chains: dict[str, list[str]] = {}
    for sample_id in ids:
        first = sample_id
        while first in follows:
            first = follows[first]
        chains.setdefault(first, []).append(sample_id)
    return list(chains.values())


def in_turns(chains: Iterable[Sequence[T]]) -> list[T]:
    """The first turn of each, then the second of each: so that a batch may have several chains in it."""
    nothing = object()
    return [turn for turns in zip_longest(*chains, fillvalue=nothing) for turn in turns if turn is not nothing]  # type: ignore[misc]


def less_what_follows(samples: Sequence[Sample], suspects: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Those that follow no suspect, and those that do: their turn comes after."""
    behind = {suspect.id: False for suspect in suspects}
    for sample in samples:
        if sample.follows in behind:
            behind[sample.id] = True
    return [s for s in samples if s.id not in behind], [s for s in samples if behind.get(s.id)]
