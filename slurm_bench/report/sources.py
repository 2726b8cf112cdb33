"""Which samples share their source images, and so aren't independent."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from slurm_bench.report.statistics import numbered
from slurm_bench.run.records import State

if TYPE_CHECKING:
    import numpy as np


def source_marks(state: State) -> dict[str, Hashable]:
    """Which samples share their source images, or follow one that does: by the files' sha256 where one of them was
    edited, else by path."""
    known = {
        sample.source: _hashable(sha256)
        for sample in state.samples
        if (edit := state.edits[sample.id].ok) is not None and (sha256 := edit.get("source_sha256"))
    }
    marks: dict[str, Hashable] = {}
    for sample in state.samples:
        own = known.get(sample.source, sample.sources) if sample.source else sample.data_id
        marks[sample.id] = marks[sample.follows] if sample.follows else own
    return marks


def source_numbers(state: State) -> np.ndarray:
    """The marks of `source_marks` as numbers, in the plan's order: of a million samples the texts by id take 100 MB."""
    return numbered(list(source_marks(state).values()))


def _hashable(mark: Any) -> Hashable:
    return tuple(mark) if isinstance(mark, list) else mark
