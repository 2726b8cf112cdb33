"""What each task of a run has done, of all its records in one pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slurm_bench.run.manifest import Manifest, OkRecord
from slurm_bench.run.records import Outcome, Record, State


@dataclass(eq=False)
class Part:
    """What the newest records by one task come to."""

    ok: int = 0
    failed: int = 0
    records: list[Record] = field(default_factory=list)


def by_task(state: State) -> Mapping[tuple[str, Any, Any], Part]:
    """By stage, attempt and task, the samples that are done with: all scorers have had them."""
    found: dict[tuple[str, Any, Any], Part] = defaultdict(Part)
    by_file: dict[Manifest, Part] = {}
    scores = zip(*(outcomes.values() for outcomes in state.by_scorer().values()), strict=True)
    stages: Sequence[tuple[str, Iterable[tuple[Outcome, ...]]]] = (
        ("edit", zip(state.edits.values())),
        ("score", scores),
    )
    for stage, samples in stages:
        for outcomes in samples:
            newest, ok, parts = list[Record](), True, list[Part]()
            for outcome in outcomes:
                if outcome.ok is not None:
                    newest.append(outcome.ok)
                elif outcome.errors:
                    newest.append(outcome.errors[-1])
                    ok = False
            if len(newest) < len(outcomes):
                continue
            for record in newest:
                if type(record) is not OkRecord:
                    part = found[stage, record.get("attempt", 0), record.get("task", 0)]
                elif (known := by_file.get(record.manifest)) is not None:
                    part = known
                else:  # a file is one task's
                    part = by_file[record.manifest] = found[stage, record.attempt, record.task]
                part.records.append(record)
                if part not in parts:  # of several scorers
                    parts.append(part)
                    part.ok += ok
                    part.failed += not ok
    return found
