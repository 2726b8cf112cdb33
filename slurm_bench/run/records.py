"""Records: what became of each sample in each stage. They are only ever added (law 1)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slurm_bench.run.durable import LineWriter, read_lines
from slurm_bench.run.layout import RunDir
from slurm_bench.run.plan import Sample

Record = dict[str, Any]

_MANIFEST = re.compile(r"(\d+)-(\d+)(?:-r(\d+))?\.jsonl")


@dataclass
class Outcome:
    """All that is known of one sample in one stage (in score: by one scorer)."""

    ok: Record | None = None
    errors: list[Record] = field(default_factory=list)

    @property
    def error(self) -> dict[str, str] | None:
        """Why it failed, if it did not come right in the end."""
        return self.errors[-1]["error"] if self.errors and self.ok is None else None

    @property
    def settled(self) -> bool:
        """Done, or failed for good, or the same way twice: another try would waste a GPU."""
        failures = Counter[tuple[str, str]]()
        for record in self.errors:
            failures[_way(record["error"])] += int(record.get("tries", 1))
        final = any(record.get("final") for record in self.errors)
        return self.ok is not None or final or any(times > 1 for times in failures.values())


@dataclass(frozen=True)
class State:
    """What the records say of the whole plan. `scores` is keyed by sample id, then by scorer."""

    samples: Sequence[Sample]
    edits: Mapping[str, Outcome]
    scores: Mapping[str, Mapping[str, Outcome]]

    def to_edit(self) -> list[str]:
        return [s.id for s in self.samples if self.edits[s.id].ok is None]

    def to_score(self) -> list[str]:
        """Edited, and not yet scored by every scorer."""
        return [
            s.id
            for s in self.samples
            if self.edits[s.id].ok is not None and any(o.ok is None for o in self.scores[s.id].values())
        ]

    def scored(self) -> list[str]:
        return [s.id for s in self.samples if all(o.ok is not None for o in self.scores[s.id].values())]

    def worth_editing(self) -> list[str]:
        return [i for i in self.to_edit() if not self.edits[i].settled]

    def worth_scoring(self) -> list[str]:
        return [i for i in self.to_score() if not all(o.settled for o in self.scores[i].values())]

    def failure(self, sample_id: str) -> str | None:
        """One line why this sample has no (whole) score, or None if nothing has failed."""
        edit = self.edits[sample_id]
        if edit.error is not None:
            return f"edit: {_say(edit.error)}"
        failed = [f"score ({name}): {_say(o.error)}" for name, o in self.scores[sample_id].items() if o.error]
        return "; ".join(failed) or None


def read_state(run: RunDir, samples: Sequence[Sample], scorers: Iterable[str]) -> State:
    edits = {s.id: Outcome() for s in samples}
    for record in read_records(run, "edit"):
        _add(edits.get(record["id"]), record)
    scores = {s.id: {name: Outcome() for name in scorers} for s in samples}
    for record in read_records(run, "score"):
        edited = edits[record["id"]].ok if record["id"] in edits else None
        if edited is not None and record.get("edit_sha256") == edited["sha256"]:
            _add(scores[record["id"]].get(record["scorer"]), record)
    return State(samples, edits, scores)


def read_records(run: RunDir, stage: str) -> list[Record]:
    """Every whole record of a stage, oldest attempt first, repeats included."""
    return [record for file in manifests(run, stage) for record in read_manifest(file)]


def read_manifest(file: Path) -> list[Record]:
    return [r for r in read_lines(file) if isinstance(r.get("id"), str) and _is_whole(r)]


def manifests(run: RunDir, stage: str, attempt: int | None = None, task: int | None = None) -> list[Path]:
    """The manifests of a stage (of an attempt, of a task), oldest first."""
    found = []
    folder = run.records(stage)
    for file in folder.iterdir() if folder.is_dir() else ():
        match = _MANIFEST.fullmatch(file.name)
        if not match:
            continue
        key = tuple(int(number or 0) for number in match.groups())
        if attempt in (None, key[0]) and task in (None, key[1]):
            found.append((key, file))
    return [file for _, file in sorted(found)]


def open_manifest(run: RunDir, stage: str, attempt: int, task: int) -> tuple[LineWriter, int]:
    """A new manifest of this process's own, and how often this task was restarted before."""
    restart = 0
    while True:
        try:
            return LineWriter(run.manifest(stage, attempt, task, restart)), restart
        except FileExistsError:
            restart += 1


def _add(outcome: Outcome | None, record: Record) -> None:
    if outcome is None:
        return
    if record["status"] == "ok":
        outcome.ok = record
    else:
        outcome.errors.append(record)


def _is_whole(record: Record) -> bool:
    if record.get("status") == "ok":
        return isinstance(record.get("sha256"), str) or isinstance(record.get("scores"), dict)
    return record.get("status") == "error" and isinstance(record.get("error"), dict)


def _way(error: Mapping[str, str]) -> tuple[str, str]:
    """How it failed, less the numbers that differ from one time to the next (bytes free, addresses)."""
    return str(error.get("type")), re.sub(r"\d+", "#", str(error.get("message")))


def _say(error: Mapping[str, str]) -> str:
    return f"{error.get('type')}: {error.get('message')}"
