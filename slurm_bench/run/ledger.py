"""What the records of a run say, looked at again and again: a further look costs what was added since."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from sys import intern
from typing import Any

from msgspec import UNSET

from slurm_bench.machine import without_collection
from slurm_bench.run.layout import RunDir
from slurm_bench.run.manifest import Manifest, OkRecord, Record, manifest_key, unpacked
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import Outcome, Scores, State, read_lost
from slurm_bench.run.turns import followed

STAGES = ("edit", "score")
# Of all that have no record yet: a million of them take no memory.
_NOTHING = Outcome()


def read_state(
    run: RunDir, samples: Sequence[Sample], scorers: Iterable[str], by: Mapping[str, str] | None = None
) -> State:
    """What the records say now. For the arguments see Ledger."""
    return Ledger(run, samples, scorers, by).look()


class Ledger:
    """`by` has the configured plug-ins' marks, keyed `editor` and `scorers.<name>` (law 14); what has none, in the
    records or there, passes for the configured one's: runs of earlier versions have none. Who asks of no record what
    its image, scores and `info` are needn't have them `whole`."""

    def __init__(
        self,
        run: RunDir,
        samples: Sequence[Sample],
        scorers: Iterable[str],
        by: Mapping[str, str] | None = None,
        whole: bool = True,
    ) -> None:
        self._run, self._samples, self._whole, marks = run, samples, whole, by or {}
        self._follows = followed(samples)
        self._editor = marks.get("editor")
        self._scorers = {name: marks.get(f"scorers.{name}") for name in scorers}
        self._scorer_of = {mark: name for name, mark in self._scorers.items()}
        self._begin({})

    def _begin(self, lost_files: Mapping[str, int]) -> None:
        self._ids = {sample.id: sample.id for sample in self._samples}  # for the first look: one text for all
        self._edits = dict.fromkeys(self._ids, _NOTHING)
        self._scores = Scores({name: self._edits.copy() for name in self._scorers})  # each hash is made once
        self._others = Counter[tuple[str, str, str]]()
        self._files: dict[tuple[str, str], Manifest] = {}
        self._astray: dict[str, list[Record]] = {}  # scores of another image than the one that counts now
        self._scored = False
        self._done, self._failed = Counter[str](), Counter[str]()
        self._lost_files = lost_files
        self._lost = read_lost(self._run) if lost_files else set()

    @without_collection()
    def look(self) -> State:
        """What is known now; an earlier look's holds no more. Raises OSError. Files that have shrunk or gone, and
        images that were noted as lost, have everything read again: both are rare."""
        listed = {stage: _sizes(self._run, stage) for stage in STAGES}
        lost = {name: size for name, size in listed["edit"].items() if name.startswith("lost-")}
        shrunk = any(listed[stage].get(name, -1) < file.read for (stage, name), file in self._files.items())
        if shrunk or lost != self._lost_files:
            self._begin(lost)
        for stage, add in (("edit", self._add_edits), ("score", self._add_scores)):
            for key, name in sorted((key, name) for name in listed[stage] if (key := manifest_key(name))):
                known = self._files.get((stage, name))
                file = known or Manifest(self._run.records(stage) / name, key, self._whole)
                if known is None or listed[stage][name] > file.read:
                    self._files[stage, name] = file
                    add(*file.news())
        self._ids = {}
        stale = self._stale()
        edits: dict[str, Outcome] = self._edits
        scores = self._scores
        if stale:
            edits = edits | {i: Outcome(None, edits[i].errors) for i in stale}
            none = dict.fromkeys(stale, _NOTHING)
            scores = Scores({name: outcomes | none for name, outcomes in scores.by_scorer.items()})
        return State(self._samples, edits, scores, self._others)

    def _stale(self) -> set[str]:
        """What follows a sample, was made from another image of it than it has now, and holds no more. While the
        turn before has no image, the same may come again."""
        stale = set[str]()
        for sample_id, before in self._follows.items():
            own, source = self._edits[sample_id].ok, self._edits.get(before, _NOTHING).ok
            other = own is not None and source is not None and own.get("source_sha256") != source["sha256"]
            if own is not None and (other or before in stale):
                stale.add(sample_id)
        return stale

    def counts(self) -> dict[str, tuple[int, int, int]]:
        """As of the last look: done, total and failed, by stage; a sample counts once for each scorer."""
        totals = {"edit": len(self._samples), "score": len(self._samples) * len(self._scorers)}
        return {stage: (self._done[stage], totals[stage], self._failed[stage]) for stage in STAGES}

    def _add_edits(self, done: Iterable[OkRecord], errors: Iterable[Record]) -> None:
        own, edits = self._editor, self._edits
        for record in done:
            sample_id, by = record.id, record.by
            if sample_id not in edits or (own and by != own and not self._is_own(record, "edit", "editor", by, own)):
                continue
            record.id, record.by = self._ids.get(sample_id, sample_id), own or _shared(by)
            record.pack()
            if self._lost and (sample_id, record.get("time")) in self._lost:
                _of(edits, sample_id).lost = True
            elif self._add_ok("edit", edits, sample_id, record) and self._scored:
                self._match_again(sample_id)
        for error in errors:
            if error["id"] in self._edits and self._is_own(error, "edit", "editor", error.get("by"), own):
                self._add_error("edit", _of(self._edits, error["id"]), error)

    def _add_scores(self, done: Iterable[OkRecord], errors: Iterable[Record]) -> None:
        for record in done:
            self._add_score(record, record.id, record.scorer, record.by, record.edit_sha256, record.source_sha256)
        for error in errors:
            facts = (error.get(name) for name in ("scorer", "by", "edit_sha256", "source_sha256"))
            self._add_score(error, error["id"], *facts)

    def _add_score(self, record: Record, sample_id: str, scorer: Any, by: Any, image: Any, source: Any) -> None:
        """A score, or a failure to score, holds for this very image (its sha256) and these very sources, as far as it
        says which. One that doesn't name its scorer is of the one who made it, or of the only one."""
        self._scored = True
        name = intern(str(scorer)) if scorer else self._scorer_of.get(by, next(iter(self._scorers), ""))
        outcomes = self._scores.by_scorer.get(name)
        if outcomes is None or sample_id not in outcomes:
            return
        own = self._scorers[name]
        if own and by != own and not self._is_own(record, "score", f"scorers.{name}", by, own):
            return
        if type(record) is OkRecord:
            record.pack()
        edited = self._edits[sample_id].ok
        if type(edited) is not OkRecord or not _is_of(edited, image, source):
            self._astray.setdefault(sample_id, []).append(record)
            return
        if type(record) is OkRecord:
            record.id, record.edit_sha256 = edited.id, edited.sha256 if image else UNSET  # one text for all
            record.scorer, record.by = name, own or _shared(by)
            record.source_sha256 = edited.source_sha256 if source else UNSET
            self._add_ok("score", outcomes, sample_id, record)
        else:
            self._add_error("score", _of(outcomes, sample_id), record)

    def _is_own(self, record: Record, stage: str, name: str, by: Any, own: str | None) -> bool:
        """What another plug-in made is counted, and not taken for done (law 14)."""
        if not by or not own or by == own:
            return True
        if isinstance(record, OkRecord):
            self._others[stage, name, str(by)] += 1
        return False

    def _add_ok(self, stage: str, outcomes: dict[str, Outcome], key: str, record: OkRecord) -> bool:
        """True where it is the newest, that of the newest process."""
        outcome = outcomes[key]
        if outcome is _NOTHING:
            outcomes[key] = Outcome(record)
            self._done[stage] += 1
            return True
        if type(outcome.ok) is not OkRecord:
            self._done[stage] += 1
            self._failed[stage] -= bool(outcome.errors)
        elif outcome.ok.manifest.key > record.manifest.key:
            return False
        outcome.ok = record
        return True

    def _add_error(self, stage: str, outcome: Outcome, record: Record) -> None:
        self._failed[stage] += outcome.ok is None and not outcome.errors
        outcome.errors = [*outcome.errors, record]

    def _match_again(self, sample_id: str) -> None:
        """Its image is another: what was a score of it may hold no more, and what was none may."""
        astray = self._astray.pop(sample_id, [])
        for outcomes in self._scores.by_scorer.values():
            outcome = outcomes[sample_id]
            outcomes[sample_id] = _NOTHING
            self._done["score"] -= outcome.ok is not None
            self._failed["score"] -= outcome.error is not None
            astray += [*outcome.errors, *([outcome.ok] if outcome.ok else [])]
        self._add_scores(
            [record for record in astray if isinstance(record, OkRecord)],
            [record for record in astray if not isinstance(record, OkRecord)],
        )


def _of(outcomes: dict[str, Outcome], key: str) -> Outcome:
    outcome = outcomes[key]
    if outcome is _NOTHING:
        outcome = outcomes[key] = Outcome()
    return outcome


def _shared(by: Any) -> Any:
    """One text for all."""
    return intern(by) if type(by) is str else by


def _is_of(edited: OkRecord, image: Any, source: Any) -> bool:
    own, own_source = unpacked(edited.sha256), edited.source_sha256
    return bool((not image or image == own) and (not source or not own_source or source == unpacked(own_source)))


def _is_file_of_lines(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(".jsonl") and entry.is_file()


def _sizes(run: RunDir, stage: str) -> dict[str, int]:
    """Of the files with records, by name."""
    folder = run.records(stage)
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        return {entry.name: entry.stat().st_size for entry in entries if _is_file_of_lines(entry)}
