"""Reference and mask images that were replaced after samples were scored by them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from slurm_bench.data.images import file_bytes
from slurm_bench.errors import SampleError
from slurm_bench.run.images import READERS
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import State

BESIDE = ("reference", "mask")
_TOGETHER = 4096  # of a million samples not all wait at once


def replaced_since(state: State) -> list[str]:
    """The ids of samples with a score for which the scorer saw another file than lies there now. A file is read only
    where it was written after the score; one that is gone says nothing, and what was unpacked into the run stays."""

    def is_other(sample: Sample) -> bool:
        scores = [outcome.ok for outcome in state.scores[sample.id].values() if outcome.ok is not None]
        return bool(scores) and any(_differs(file, f"{name}_sha256", scores) for name, file in _files(sample))

    asked = [sample for sample in state.samples if any(_files(sample))]
    found: list[str] = []
    with ThreadPoolExecutor(READERS) as readers:
        for first in range(0, len(asked), _TOGETHER):
            some = asked[first : first + _TOGETHER]
            found += [sample.id for sample, other in zip(some, readers.map(is_other, some), strict=True) if other]
    return found


def _files(sample: Sample) -> Iterator[tuple[str, Path]]:
    for name in BESIDE:
        if (path := getattr(sample, name)) and os.path.isabs(path):
            yield name, Path(path)


def _differs(file: Path, field: str, scores: list[Mapping[str, Any]]) -> bool:
    try:
        changed = file.stat().st_ctime
        known = {record.get(field) for record in scores if record.get("time", changed) < changed} - {None}
        return bool(known) and known != {hashlib.sha256(file_bytes(file)).hexdigest()}
    except (OSError, SampleError):
        return False
