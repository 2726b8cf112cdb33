"""One run, as it is compared with others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from slurm_bench.config import nearest
from slurm_bench.errors import UserError
from slurm_bench.report.table import Declared, column_of, declared_in, headline, score_table, split_column
from slurm_bench.run.opened import Run, open_run
from slurm_bench.run.plan import Sample
from slurm_bench.run.provenance import read_provenance
from slurm_bench.run.records import State
from slurm_bench.scorers.base import Score, declared_score

WITHOUT = "without this score"


@dataclass(frozen=True)
class Side:
    """`scorer` is this run's name for the one that gave the score."""

    name: str
    run: Run
    state: State
    provenance: Mapping[str, Any]
    scorer: str = ""
    score: str = ""

    @property
    def declared(self) -> Declared:
        return declared_in(self.provenance)

    @property
    def scale(self) -> Score | None:
        return declared_score(self.declared.get(self.scorer), self.score)

    @property
    def key(self) -> str:
        return f"scorers.{self.scorer}"

    @cached_property
    def repeats(self) -> dict[str, list[Sample]]:
        """The lines of the plan that each sample has, by the id that the data gave it: one a seed."""
        found: dict[str, list[Sample]] = {}
        for sample in self.run.samples:
            found.setdefault(sample.data_id, []).append(sample)
        return found

    @cached_property
    def samples(self) -> dict[str, Sample]:
        """Each sample as it is under its first seed."""
        return {i: lines[0] for i, lines in self.repeats.items()}

    @cached_property
    def scores(self) -> dict[str, dict[int, float]]:
        """The score of each sample by repeat; {} for a sample that has it under none."""
        found: dict[str, dict[int, float]] = {i: {} for i in self.repeats}
        for sample in self.run.samples:
            ok = self.state.scores[sample.id][self.scorer].ok
            if ok and self.score in ok["scores"]:
                found[sample.data_id][sample.repeat] = float(ok["scores"][self.score])
        return found

    @cached_property
    def values(self) -> dict[str, float]:
        """The mean over the seeds of each sample that has this score."""
        return {i: fmean(by.values()) for i, by in self.scores.items() if by}

    def values_with(self, worst: float) -> dict[str, float]:
        """The mean over the seeds of each sample, with each failure as `worst`."""
        found = {}
        for i, lines in self.repeats.items():
            failed = [line for line in lines if line.repeat not in self.scores[i] and self._lacks(line) != WITHOUT]
            if numbers := [*self.scores[i].values(), *(worst for _ in failed)]:
                found[i] = fmean(numbers)
        return found

    def seeds_without(self, ids: Iterable[str]) -> int:
        """How many seeds lack this score, of samples that have it under another: their means are over fewer."""
        return sum(len(self.repeats[i]) - len(self.scores[i]) for i in ids)

    def without_value(self, sample_id: str) -> str:
        """Why a sample has no such score under any seed: scored without it, failed, or not there yet."""
        whys = {self._lacks(line) for line in self.repeats[sample_id]}
        return next(why for why in ("failed", "missing", WITHOUT) if why in whys)

    def _lacks(self, line: Sample) -> str:
        if self.state.scores[line.id][self.scorer].ok is not None:
            return WITHOUT
        return "failed" if self.state.failure(line.id) else "missing"

    def gives(self, score: str) -> list[str]:
        """The scorers of this run that gave it."""
        found = {
            name
            for by in self.state.scores.values()
            for name, outcome in by.items()
            if outcome.ok and score in outcome.ok["scores"]
        }
        return [name for name in self.run.config.scorers if name in found]

    def says(self, key: str) -> Mapping[str, Any]:
        """What a plug-in said of itself when the run was begun."""
        return self.provenance.get("models", {}).get(key, {})

    def about(self) -> dict[str, Any]:
        editor = self.run.config.editor
        return {
            "name": self.name,
            "folder": str(self.run.root),
            "editor": {"class_path": editor.class_path, "params": editor.params, "says": self.says("editor")},
            "scorer": self.scorer,
            "planned": len(self.samples),
            "scored": len(self.values),
            "seeds": max(map(len, self.repeats.values())),
        }


def open_sides(roots: Sequence[Path]) -> list[Side]:
    names = [root.resolve().name for root in roots]
    if len(set(names)) < len(names):
        names = [str(root) for root in roots]
    sides = []
    for name, root in zip(names, roots, strict=True):
        run = open_run(root)
        sides.append(Side(name, run, run.state(), read_provenance(run.folder)))
    return sides


def with_score(sides: Sequence[Side], wanted: str | None) -> list[Side]:
    """Each run's own scorer for the score that is compared: the first run's headline, unless another is wanted."""
    first = sides[0]
    config, declared = first.run.config, first.declared
    table = score_table(config, first.state)
    column = column_of(wanted, config, table, declared) if wanted else headline(config, table, declared)[0]
    if column is None:
        raise UserError(f"{first.run.root}: nothing is scored there; nothing to compare")
    scorer, score = split_column(column, config)
    if not score:  # a score that none of several scorers gave
        scorer, score = "", scorer
    return [_named(side, scorer, score) for side in sides]


def _named(side: Side, scorer: str, score: str) -> Side:
    """Where nothing of that scorer came right, every sample is a failure of it."""
    found = side.gives(score)
    known = sorted({n for by in side.state.scores.values() for o in by.values() if o.ok for n in o.ok["scores"]})
    if not known and scorer in side.run.config.scorers:
        return replace(side, scorer=scorer, score=score)
    if scorer not in found and len(found) != 1:
        several = f"; the scorers {', '.join(found)} give it" if found else f"; {nearest(score, known)}"
        who = f"no scorer '{scorer}'" if scorer else "no scorer"
        raise UserError(f"{side.run.root}: {who} gave the score '{score}' there{several}")
    return replace(side, scorer=scorer if scorer in found else found[0], score=score)
