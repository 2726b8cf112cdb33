"""Records: what became of each sample in each stage. They are only ever added (law 1)."""

from __future__ import annotations

import os
import re
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slurm_bench.machine import without_collection
from slurm_bench.run.durable import LineWriter, read_lines
from slurm_bench.run.layout import RunDir
from slurm_bench.run.plan import Sample

Record = dict[str, Any]

_MANIFEST = re.compile(r"(\d+)-(\d+)(?:-r(\d+))?\.jsonl")


@dataclass
class Outcome:
    """All that is known of one sample in one stage (in score: by one scorer), as far as the configured plug-in made
    it. `lost` says that an image was recorded and is no more."""

    ok: Record | None = None
    errors: list[Record] = field(default_factory=list)
    lost: bool = False

    @property
    def error(self) -> dict[str, str] | None:
        """Why it failed, if it did not come right in the end."""
        return self.errors[-1]["error"] if self.errors and self.ok is None else None

    @property
    def settled(self) -> bool:
        """Done, or failed for good: the plug-in says so, or two processes had the same failure. Processes in which
        everything failed alike count once a node: it may be the node, or a service."""
        if self.ok is not None or any(record.get("final") for record in self.errors):
            return True
        processes = Counter[tuple[str, str]]()
        nodes = set[tuple[tuple[str, str], str]]()
        for record in self.errors:
            way = failure_kind(record["error"])
            if not record.get("systematic"):
                processes[way] += 1
            elif (mark := (way, str(record.get("node", record.get("host"))))) not in nodes:
                nodes.add(mark)
                processes[way] += 1
        return any(times > 1 for times in processes.values())


@dataclass(frozen=True)
class State:
    """What the records say of the whole plan. `scores` is keyed by sample id, then by scorer; `others` counts what
    another than the configured plug-in made, by stage, name and `by`."""

    samples: Sequence[Sample]
    edits: Mapping[str, Outcome]
    scores: Mapping[str, Mapping[str, Outcome]]
    others: Mapping[tuple[str, str, str], int] = field(default_factory=dict)

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
        if edit.ok is None and edit.lost:
            return "edit: its image is lost: gone, or not what was recorded"
        failed = [f"score ({name}): {_say(o.error)}" for name, o in self.scores[sample_id].items() if o.error]
        return "; ".join(failed) or None


@without_collection()
def read_state(
    run: RunDir, samples: Sequence[Sample], scorers: Iterable[str], by: Mapping[str, str] | None = None
) -> State:
    """`by` has the configured plug-ins' marks, keyed `editor` and `scorers.<name>` (law 14); what has none, in the
    records or there, passes for the configured one's: runs of earlier versions have none."""
    others = Counter[tuple[str, str, str]]()

    def is_own(record: Record, stage: str, name: str) -> bool:
        mark, own = record.get("by"), (by or {}).get(name)
        if not mark or not own or mark == own:
            return True
        if record["status"] == "ok":
            others[stage, name, mark] += 1
        return False

    lost = read_lost(run)
    edits = {s.id: Outcome() for s in samples}
    for record in read_records(run, "edit"):
        if record["id"] not in edits or not is_own(record, "edit", "editor"):
            continue
        if lost and (record["id"], record.get("time")) in lost:
            edits[record["id"]].lost = True
        else:
            _add(edits[record["id"]], record)
    scores = {s.id: {name: Outcome() for name in scorers} for s in samples}
    for record in read_records(run, "score"):
        outcome = scores.get(record["id"], {}).get(record["scorer"])
        if outcome is not None and is_own(record, "score", f"scorers.{record['scorer']}"):
            edited = edits[record["id"]].ok
            if edited is not None and _is_of(record, edited):
                _add(outcome, record)
    return State(samples, edits, scores, others)


def _is_of(score: Record, edited: Record) -> bool:
    """A score, or a failure to score, holds for this very image and these very sources."""
    sources = score.get("source_sha256"), edited.get("source_sha256")
    return score.get("edit_sha256") == edited["sha256"] and (None in sources or sources[0] == sources[1])


def read_records(run: RunDir, stage: str) -> list[Record]:
    """Every whole record of a stage, oldest attempt first, repeats included."""
    return [record for file in manifests(run, stage) for record in read_manifest(file)]


def read_manifest(file: Path) -> list[Record]:
    """The whole records of one process. Where it failed on several samples, and on all in the same way, each says
    `systematic`: these failures are no property of the samples."""
    records = [r for r in read_lines(file) if isinstance(r.get("id"), str) and _is_whole(r)]
    if any(r["status"] == "ok" for r in records) or len({r["id"] for r in records}) < 2:
        return records
    kinds = {failure_kind(r["error"]) for r in records}
    return [{**r, "systematic": True} for r in records] if len(kinds) == 1 else records


def read_lost(run: RunDir) -> set[tuple[str, float]]:
    """The edit records whose images are no more, by id and time."""
    folder = run.records("edit")
    files = sorted(folder.glob("lost-*.jsonl")) if folder.is_dir() else []
    return {(row["id"], row["edit_time"]) for file in files for row in read_lines(file) if "edit_time" in row}


def note_lost(run: RunDir, records: Sequence[Record], why: Mapping[str, str]) -> None:
    """Say that these edit records' images are no more, so that they are made again (law 15). `why` is by id."""
    stamp = f"{time.time():.6f}-{socket.gethostname()}-{os.getpid()}"
    writer = LineWriter(run.records("edit") / f"lost-{stamp}.jsonl")
    try:
        for record in records:
            writer.write(
                {"id": record["id"], "status": "lost", "edit_time": record["time"], "why": why.get(record["id"], "")}
            )
    finally:
        writer.close()


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


def reserve_manifest(run: RunDir, stage: str, attempt: int, task: int) -> int:
    """Make a new manifest for one process of a task, empty; gives its number among the task's processes."""
    restart = 0
    while True:
        try:
            LineWriter(run.manifest(stage, attempt, task, restart)).close()
            return restart
        except FileExistsError:
            restart += 1


def _add(outcome: Outcome, record: Record) -> None:
    if record["status"] == "ok":
        outcome.ok = record
    else:
        outcome.errors.append(record)


def _is_whole(record: Record) -> bool:
    if record.get("status") == "ok":
        return isinstance(record.get("sha256"), str) or isinstance(record.get("scores"), dict)
    return record.get("status") == "error" and isinstance(record.get("error"), dict)


def failure_kind(error: Mapping[str, str]) -> tuple[str, str]:
    """How it failed, less the numbers that differ from one time to the next (bytes free, addresses)."""
    return str(error.get("type")), re.sub(r"\d+", "#", str(error.get("message")))


def _say(error: Mapping[str, str]) -> str:
    return f"{error.get('type')}: {error.get('message')}"
