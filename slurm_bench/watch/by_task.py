"""What each task of a run has done, of all its records in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
    """The samples that are done with (all scorers have had them), by stage, attempt and task."""
    found: dict[tuple[str, Any, Any], Part] = {}
    by_scorer = [outcomes.values() for outcomes in state.by_scorer().values()]
    _Stage("edit", found).add_each(state.edits.values())
    if len(by_scorer) == 1:
        _Stage("score", found).add_each(by_scorer[0])
    else:
        _Stage("score", found).add_together(zip(*by_scorer, strict=True))
    return found


class _Stage:
    def __init__(self, name: str, found: dict[tuple[str, Any, Any], Part]) -> None:
        self._name, self._found = name, found
        self._by_file: dict[Manifest, Part] = {}  # a file is one task's

    def add_each(self, outcomes: Iterable[Outcome]) -> None:
        """What `add_together` does, where one plug-in alone has to have had a sample: with a million each step
        counts."""
        add_to: dict[Manifest, Callable[[Record], None]] = {}
        for outcome in outcomes:
            record = outcome.ok
            if type(record) is OkRecord and (add := add_to.get(record.manifest)) is not None:
                add(record)
            elif record is not None or outcome.errors:
                newest = outcome.errors[-1] if record is None else record
                part = self._part(newest)
                part.records.append(newest)
                part.failed += record is None
                if type(record) is OkRecord:
                    add_to[record.manifest] = part.records.append
        for (stage, _, _), part in self._found.items():
            if stage == self._name:
                part.ok = len(part.records) - part.failed

    def add_together(self, samples: Iterable[tuple[Outcome, ...]]) -> None:
        """Each sample's outcomes, by all plug-ins."""
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
                part = self._part(record)
                part.records.append(record)
                if part not in parts:
                    parts.append(part)
                    part.ok += ok
                    part.failed += not ok

    def _part(self, record: Record) -> Part:
        file = record.manifest if type(record) is OkRecord else None
        if file is not None and file in self._by_file:
            return self._by_file[file]
        key = (self._name, record.get("attempt", 0), record.get("task", 0))
        part = self._found.setdefault(key, Part())
        if file is not None:
            self._by_file[file] = part
        return part
