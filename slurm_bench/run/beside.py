"""Reference and mask images that were replaced after samples were scored by them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from slurm_bench.run.images import READERS
from slurm_bench.run.layout import RunDir
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import State

BESIDE = ("reference", "mask")


def replaced_since(run: RunDir, state: State) -> list[str]:
    """The ids of samples with a score for which the scorer saw another file than lies there now. A file is read only
    where it was written after the score; one that is gone says nothing."""

    def is_other(sample: Sample) -> bool:
        scores = [outcome.ok for outcome in state.scores[sample.id].values() if outcome.ok is not None]
        seen = [(name, path) for name in BESIDE if (path := getattr(sample, name))]
        return bool(scores) and any(_differs(run.root / path, f"{name}_sha256", scores) for name, path in seen)

    with ThreadPoolExecutor(READERS) as readers:
        others = readers.map(is_other, state.samples)
        return [sample.id for sample, other in zip(state.samples, others, strict=True) if other]


def _differs(file: Path, field: str, scores: list[Mapping[str, Any]]) -> bool:
    try:
        changed = file.stat().st_ctime
        known = {record.get(field) for record in scores if record.get("time", changed) < changed} - {None}
        return bool(known) and known != {hashlib.sha256(file.read_bytes()).hexdigest()}
    except OSError:
        return False
