"""Records: what became of each sample in each stage. They are only ever added (law 1)."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import msgspec

from slurm_bench.run.durable import LineWriter, read_lines
from slurm_bench.run.layout import RunDir
from slurm_bench.run.manifest import Record, failure_kind, manifest_key, read_manifest
from slurm_bench.run.plan import Sample
from slurm_bench.run.shapes import Lost, fits
from slurm_bench.run.turns import NoTurnBefore, followed


class Outcome(msgspec.Struct, gc=False):
    """All that is known of one sample in one stage (in score: by one scorer), as far as the configured plug-in made
    it. `lost` says that an image was recorded and is no more."""

    ok: Record | None = None
    errors: Sequence[Record] = ()
    lost: bool = False

    @property
    def error(self) -> dict[str, str] | None:
        """Why it failed, if it did not come right in the end."""
        return self.errors[-1]["error"] if self.errors and self.ok is None else None

    @property
    def settled(self) -> bool:
        """Done, or failed for good: the plug-in says so, or two processes had the same failure. Processes in which
        everything failed alike count once a node: it may be the node, or a service. What failed for the turn before it
        says nothing."""
        if self.ok is not None or any(record.get("final") for record in self.errors):
            return True
        processes = Counter[tuple[str, str]]()
        nodes = set[tuple[tuple[str, str], str]]()
        for record in self.errors:
            way = failure_kind(record["error"])
            if way[0] == NoTurnBefore.__name__:
                continue
            if not record.get("systematic"):
                processes[way] += 1
            elif (mark := (way, str(record.get("node", record.get("host"))))) not in nodes:
                nodes.add(mark)
                processes[way] += 1
        return any(times > 1 for times in processes.values())


@dataclass(frozen=True)
class Scores(Mapping[str, Mapping[str, Outcome]]):
    """Those of a sample, by scorer. They are kept by scorer, then by sample: a million small dicts take a GB."""

    by_scorer: Mapping[str, dict[str, Outcome]]

    def __getitem__(self, sample_id: str) -> Mapping[str, Outcome]:
        return {name: outcomes[sample_id] for name, outcomes in self.by_scorer.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(next(iter(self.by_scorer.values()), ()))

    def __len__(self) -> int:
        return len(next(iter(self.by_scorer.values()), ()))


@dataclass(frozen=True)
class State:
    """What the records said of the whole plan at one time. `edits` and `scores` have the samples' order, `scores` by
    sample id and then by scorer; `others` counts what another than the configured plug-in made, by stage, name and
    `by`."""

    samples: Sequence[Sample]
    edits: Mapping[str, Outcome]
    scores: Mapping[str, Mapping[str, Outcome]]
    others: Mapping[tuple[str, str, str], int] = field(default_factory=dict)

    def to_edit(self) -> Sequence[str]:
        return self._standing.to_edit

    def to_score(self) -> Sequence[str]:
        """Edited, and not yet scored by every scorer."""
        return self._standing.to_score

    def scored(self) -> Sequence[str]:
        return self._standing.scored

    def unscored(self) -> Sequence[str]:
        """The others, whatever they lack."""
        return self._standing.unscored

    def failed(self, stage: str) -> int:
        """How many samples failed in a stage and haven't come right since; in score: by any scorer."""
        return self._standing.failed[stage]

    def errors(self) -> Sequence[Record]:
        """All of them, also of what came right later."""
        return self._standing.errors

    def by_scorer(self) -> Mapping[str, Mapping[str, Outcome]]:
        """The scores the other way round: by scorer, then by sample id."""
        if isinstance(self.scores, Scores):
            return self.scores.by_scorer
        names = dict.fromkeys(name for outcomes in self.scores.values() for name in outcomes)
        return {name: {i: outcomes[name] for i, outcomes in self.scores.items()} for name in names}

    @cached_property
    def _standing(self) -> _Standing:
        """In one pass: a run may have a million samples, and who looks at it asks for all of these."""
        found = _Standing([], [], [], [], {"edit": 0, "score": 0}, [])
        by_scorer = [outcomes.values() for outcomes in self.by_scorer().values()]
        scores_of = zip(*by_scorer, strict=True) if by_scorer else repeat((), len(self.samples))
        for sample, edit, scores in zip(self.samples, self.edits.values(), scores_of, strict=True):
            missing = failed = False
            for score in scores:
                if score.ok is None:
                    missing = True
                    failed = failed or bool(score.errors)
                if score.errors:
                    found.errors.extend(score.errors)
            if edit.errors:
                found.errors.extend(edit.errors)
                found.failed["edit"] += edit.ok is None
            found.failed["score"] += failed
            if edit.ok is None:
                found.to_edit.append(sample.id)
            elif missing:
                found.to_score.append(sample.id)
            (found.unscored if missing else found.scored).append(sample.id)
        return found

    def worth_editing(self) -> list[str]:
        follows, worth = followed(self.samples), dict[str, None]()
        for i in self.to_edit():
            before = follows.get(i)
            hopeful = before is None or before in worth or self.edits[before].ok is not None
            if hopeful and not self.edits[i].settled:
                worth[i] = None
        return list(worth)

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

    def missing(self, sample_id: str) -> str:
        """Likewise where nothing has failed."""
        edited = self.edits[sample_id].ok is not None
        return "edited, and not scored" if edited else "no record: its task ended before it"


class _Standing(NamedTuple):
    to_edit: list[str]
    to_score: list[str]
    scored: list[str]
    unscored: list[str]
    failed: dict[str, int]
    errors: list[Record]


def read_records(run: RunDir, stage: str) -> list[Record]:
    """Every whole record of a stage, oldest attempt first, repeats included."""
    return [record for file in manifests(run, stage) for record in read_manifest(file)]


def read_lost(run: RunDir) -> set[tuple[str, float | None]]:
    """The edit records whose images are no more, by id and time."""
    folder = run.records("edit")
    files = sorted(folder.glob("lost-*.jsonl")) if folder.is_dir() else []
    return {(row["id"], row["edit_time"]) for file in files for row in read_lines(file) if fits(row, Lost)}


def note_lost(run: RunDir, records: Sequence[Record], why: Mapping[str, str]) -> None:
    """Say that these edit records' images are no more, so that they are made again (law 15). `why` is by id."""
    stamp = f"{time.time():.6f}-{socket.gethostname()}-{os.getpid()}"
    writer = LineWriter(run.records("edit") / f"lost-{stamp}.jsonl")
    try:
        for record in records:
            writer.write(
                {
                    "id": record["id"],
                    "status": "lost",
                    "edit_time": record.get("time"),
                    "why": why.get(record["id"], ""),
                }
            )
    finally:
        writer.close()


def manifests(run: RunDir, stage: str, attempt: int | None = None, task: int | None = None) -> list[Path]:
    """The manifests of a stage (of an attempt, of a task), oldest first."""
    folder = run.records(stage)
    listed = [(manifest_key(entry.name), entry) for entry in os.scandir(folder)] if folder.is_dir() else []
    found = [
        (key, folder / entry.name)
        for key, entry in listed
        if key and entry.is_file() and attempt in (None, key[0]) and task in (None, key[1])
    ]
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


def _say(error: Mapping[str, str]) -> str:
    return f"{error.get('type')}: {error.get('message')}"
