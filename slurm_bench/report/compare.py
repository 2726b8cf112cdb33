"""Several runs on the same samples, each against the first. It reads run folders alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from slurm_bench.config import PluginConfig, differences, nearest
from slurm_bench.errors import UserError
from slurm_bench.report.paired import Paired, compare_pairs, holm, verdict
from slurm_bench.report.pictures import picture_cost
from slurm_bench.report.statistics import mean_of
from slurm_bench.report.summary import UNDECLARED, source_marks
from slurm_bench.report.table import Declared, declared_in, headline, score_table, split_column
from slurm_bench.run.by import contradictions
from slurm_bench.run.opened import Run, open_run
from slurm_bench.run.plan import Sample
from slurm_bench.run.provenance import read_provenance
from slurm_bench.run.records import State
from slurm_bench.scorers.base import Score, declared_score

MARGIN = 0.05  # of the scale's length: a difference that is no larger is called none
SHOWN = 20
DECIDING = 5


@dataclass(frozen=True)
class Side:
    """One run, as it is compared. `scorer` is its own name for the one that gave the score."""

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
    def samples(self) -> dict[str, Sample]:
        return {sample.id: sample for sample in self.run.samples}

    @cached_property
    def values(self) -> dict[str, float]:
        done = {i: by[self.scorer].ok for i, by in self.state.scores.items()}
        return {i: float(ok["scores"][self.score]) for i, ok in done.items() if ok and self.score in ok["scores"]}

    def without_value(self, sample_id: str) -> str:
        """Why a sample has no such score: scored without it, failed, or not there yet."""
        outcome = self.state.scores[sample_id][self.scorer]
        if outcome.ok is not None:
            return "without this score"
        return "failed" if self.state.failure(sample_id) else "missing"

    def gives(self, score: str) -> list[str]:
        """The scorers of this run that gave it."""
        found = {
            name
            for by in self.state.scores.values()
            for name, outcome in by.items()
            if outcome.ok and score in outcome.ok["scores"]
        }
        return [name for name in self.run.config.scorers if name in found]


def compare_runs(
    roots: Sequence[Path], score: str | None = None, margin: float | None = None, pictures: bool = False
) -> dict[str, Any]:
    """Everything that `compare` says, as JSON. Raises UserError where a run has no such score."""
    if margin is not None and not 0 < margin < math.inf:
        raise UserError(f"--margin {margin}: it must be above 0")
    sides = _opened(roots)
    first, *others = _with_score(sides, score)
    shared = first.scale or UNDECLARED
    found = [_Pair(first, other) for other in others]
    for pair in found:
        if not pair.same:
            why = ", ".join(sorted(set(pair.left_out.values())))
            raise UserError(f"{first.run.root} and {pair.other.run.root} have no sample in common ({why})")
    width = margin if margin is not None else _margin(first, shared)
    corrected = holm([pair.all.p for pair in found])
    return {
        "score": {"name": first.score, **asdict(shared), "declared": first.scale is not None},
        "margin": width,
        "difference": f"the other run minus {first.name}",
        "runs": [_about(side) for side in (first, *others)],
        "comparisons": [
            pair.as_json(width, p) | ({"images": pair.pictures()} if pictures else {})
            for pair, p in zip(found, corrected, strict=True)
        ],
        "ranking": _ranking([first, *others], found, shared),
    }


def refusals(compared: Mapping[str, Any]) -> list[str]:
    """Why these numbers are not of one kind."""
    return [f"{row['other']}: {line}" for row in compared["comparisons"] for line in row["not_comparable"]]


@dataclass(frozen=True)
class _Pair:
    first: Side
    other: Side

    @property
    def higher_is_better(self) -> bool | None:
        return (self.first.scale or UNDECLARED).higher_is_better

    @cached_property
    def left_out(self) -> dict[str, str]:
        """Why, by id, of those that aren't compared."""
        a, b = self.first, self.other
        out = {i: f"only in the plan of {a.name}" for i in a.samples if i not in b.samples}
        out |= {i: f"only in the plan of {b.name}" for i in b.samples if i not in a.samples}
        for i in a.samples:
            if i not in out and (why := _differ(a, b, i)):
                out[i] = why
        return out

    @cached_property
    def same(self) -> list[str]:
        """The ids of the samples that both runs have, and have alike."""
        return [i for i in self.first.samples if i not in self.left_out]

    @cached_property
    def ids(self) -> list[str]:
        return [i for i in self.same if i in self.first.values and i in self.other.values]

    @cached_property
    def all(self) -> Paired:
        return self.of(self.ids)

    def of(self, ids: Sequence[str]) -> Paired:
        marks = source_marks(self.first.state)
        a, b = ([side.values[i] for i in ids] for side in (self.first, self.other))
        return compare_pairs(a, b, [marks[i] for i in ids], self.higher_is_better is not False)

    def with_failures(self) -> Paired | None:
        """A failure of either as the worst value; None where there is none to count, or the score has no worst."""
        worst = self.first.scale.worst if self.first.scale else 0.0
        ids = [i for i in self.same if self._counts(self.first, i) and self._counts(self.other, i)]
        if worst is None or len(ids) == len(self.ids):
            return None
        marks = source_marks(self.first.state)
        a, b = ([side.values.get(i, worst) for i in ids] for side in (self.first, self.other))
        return compare_pairs(a, b, [marks[i] for i in ids], self.higher_is_better is not False)

    @staticmethod
    def _counts(side: Side, sample_id: str) -> bool:
        return sample_id in side.values or side.without_value(sample_id) != "without this score"

    def as_json(self, margin: float, p: float | None) -> dict[str, Any]:
        out = dict(self.left_out)
        for i in self.same:
            whys = [
                f"{side.without_value(i)} in {side.name}" for side in (self.first, self.other) if i not in side.values
            ]
            if whys:
                out[i] = " and ".join(whys)
        kind, words = verdict(self.all, p, self.higher_is_better, margin, self.other.name)
        failures = self.with_failures()
        return {
            "first": self.first.name,
            "other": self.other.name,
            "verdict": kind,
            "words": words,
            **asdict(self.all),
            "p_holm": p,
            "failures_as_zero": failures and {**asdict(failures), "failure_counts_as": _worst(self.first)},
            "left_out": dict(Counter(out.values())),
            "left_out_ids": {i: out[i] for i in list(out)[:SHOWN]},
            "categories": self._by_category(margin),
            "largest": self._largest(),
            "not_comparable": _not_comparable(self.first, self.other),
            "cautions": _cautions(self.first, self.other, self.same),
            "editors_differ_in": _editors_differ(self.first, self.other),
        }

    def pictures(self) -> dict[str, Any]:
        edits = [(self.first.state.edits[i].ok, self.other.state.edits[i].ok) for i in self.same]
        both = [(a, b) for a, b in edits if a is not None and b is not None]
        return picture_cost(self.first.run.folder, self.other.run.folder, both)

    def _by_category(self, margin: float) -> dict[str, Any]:
        groups: dict[str, list[str]] = {}
        for i in self.ids:
            groups.setdefault(self.first.samples[i].category, []).append(i)
        found = {name: self.of(ids) for name, ids in groups.items()}
        rows = {}
        for (name, one), p in zip(found.items(), holm([one.p for one in found.values()]), strict=True):
            kind, words = verdict(one, p, self.higher_is_better, margin, self.other.name)
            rows[name] = {"verdict": kind, "words": words, **asdict(one), "p_holm": p}
        return rows

    def _largest(self) -> list[dict[str, Any]]:
        """The samples that decide it."""
        a, b = self.first.values, self.other.values
        ids = sorted((i for i in self.ids if a[i] != b[i]), key=lambda i: -abs(b[i] - a[i]))[:DECIDING]
        return [{"id": i, "first": a[i], "other": b[i], "difference": b[i] - a[i]} for i in ids]


def _opened(roots: Sequence[Path]) -> list[Side]:
    if len(roots) < 2:
        raise UserError("compare: name two run folders or more")
    names = [root.resolve().name for root in roots]
    if len(set(names)) < len(names):
        names = [str(root) for root in roots]
    sides = []
    for name, root in zip(names, roots, strict=True):
        run = open_run(root)
        sides.append(Side(name, run, run.state(), read_provenance(run.folder)))
    return sides


def _with_score(sides: Sequence[Side], wanted: str | None) -> list[Side]:
    """Each run's own scorer for the score that is compared: the first run's headline, unless another is wanted."""
    first = sides[0]
    table = score_table(first.run.config, first.state)
    column = wanted or headline(first.run.config, table, first.declared)[0]
    if column is None:
        raise UserError(f"{first.run.root}: nothing is scored there; nothing to compare")
    scorer, score = split_column(column, first.run.config)
    return [_named(side, scorer, score) for side in sides]


def _named(side: Side, scorer: str, score: str) -> Side:
    """Where nothing of that scorer came right, every sample is a failure of it."""
    found = side.gives(score)
    known = sorted({n for by in side.state.scores.values() for o in by.values() if o.ok for n in o.ok["scores"]})
    if not known and scorer in side.run.config.scorers:
        return replace(side, scorer=scorer, score=score)
    if scorer not in found and len(found) != 1:
        several = f"; the scorers {', '.join(found)} give it" if found else f"; {nearest(score, known)}"
        raise UserError(f"{side.run.root}: no scorer '{scorer}' gave the score '{score}' there{several}")
    return replace(side, scorer=scorer if scorer in found else found[0], score=score)


def _differ(a: Side, b: Side, sample_id: str) -> str | None:
    """In what the editor or the judge was given."""
    one, two = a.samples[sample_id], b.samples[sample_id]
    if one.instruction != two.instruction:
        return "the instruction differs"
    if (one.description, one.rationale) != (two.description, two.rationale):
        return "what the judge is told differs"
    sources = [(side.state.edits[sample_id].ok or {}).get("source_sha256") for side in (a, b)]
    if None not in sources and sources[0] != sources[1]:
        return "the source image differs (sha256)"
    return "the category differs" if one.category != two.category else None


def _not_comparable(a: Side, b: Side) -> list[str]:
    """What makes two numbers ones of different kinds: another judge, other rubrics, another scale. What only one run
    knows of its judge (a commit, before the download) contradicts nothing."""
    facts = [_flat(side.run.config.scorers[side.scorer]) for side in (a, b)]
    lines = _facts_that_differ("judge", *facts)
    lines += [f"judge {line}" for line in contradictions(_says(a, a.key), _says(b, b.key))]
    if a.scale is not None and b.scale is not None and a.scale != b.scale:
        lines.append(f"scale: {a.scale} → {b.scale}")
    return lines


def _cautions(a: Side, b: Side, same: Iterable[str]) -> list[str]:
    """What else differs than the editors."""
    lines = differences(a.run.config, b.run.config, ("seed", "data"))
    seeds = sum(a.samples[i].seed != b.samples[i].seed for i in same)
    if seeds:
        lines.append(f"{seeds} samples have other seeds: a part of the difference is that of two seeds")
    known = [{key for key, fact in _says(side, side.key).items() if fact is not None} for side in (a, b)]
    if known[0] != known[1]:
        lines.append(f"the judge: only one run tells its {', '.join(sorted(known[0] ^ known[1]))}")
    said = [set(_served(side)) for side in (a, b)]
    if said[0] != said[1]:
        lines.append(f"the judge's server answered as {', '.join(said[0]) or '?'} → {', '.join(said[1]) or '?'}")
    git = [str((side.provenance.get("git") or {}).get("revision", "")) for side in (a, b)]
    if all(git) and git[0] != git[1]:
        lines.append(f"slurm_bench: {git[0][:12]} → {git[1][:12]}")
    packages = [side.provenance.get("packages", {}) for side in (a, b)]
    both = packages[0].keys() & packages[1].keys()
    return lines + _facts_that_differ("package", *({key: said[key] for key in sorted(both)} for said in packages))


def _served(side: Side) -> Iterable[str]:
    for by in side.state.scores.values():
        record = by[side.scorer].ok
        served = (record.get("info") or {}).get("served_model") if record else None
        if isinstance(served, str):
            yield served


def _flat(plugin: PluginConfig) -> dict[str, Any]:
    return {"class_path": plugin.class_path, **{f"params.{key}": value for key, value in plugin.params.items()}}


def _says(side: Side, key: str) -> Mapping[str, Any]:
    """What a plug-in said of itself when the run was begun."""
    return side.provenance.get("models", {}).get(key, {})


def _editors_differ(a: Side, b: Side) -> list[str]:
    lines = differences(a.run.config, b.run.config, ("editor",))
    return lines + [f"editor {line}" for line in contradictions(_says(a, "editor"), _says(b, "editor"))]


def _facts_that_differ(what: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    keys = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
    return [f"{what} {key}: {a.get(key)!r} → {b.get(key)!r}" for key in keys]


def _about(side: Side) -> dict[str, Any]:
    editor = side.run.config.editor
    return {
        "name": side.name,
        "folder": str(side.run.root),
        "editor": {"class_path": editor.class_path, "params": editor.params, "says": _says(side, "editor")},
        "scorer": side.scorer,
        "planned": len(side.samples),
        "scored": len(side.values),
    }


def _ranking(sides: Sequence[Side], pairs: Sequence[_Pair], scale: Score) -> list[dict[str, Any]]:
    """Best first, over the samples that all runs have and scored."""
    paired = [set(pair.ids) for pair in pairs]
    ids = [i for i in pairs[0].ids if all(i in those for those in paired)]
    marks: Mapping[str, Hashable] = source_marks(sides[0].state)
    clusters = [marks[i] for i in ids]
    rows = [
        {"run": side.name, **asdict(mean_of([side.values[i] for i in ids], scale.low, scale.high, clusters))}
        for side in sides
    ]
    best_last = scale.higher_is_better is not False
    return sorted(rows, key=lambda row: row["mean"] if row["mean"] is not None else 0.0, reverse=best_last)


def _margin(first: Side, scale: Score) -> float:
    """A twentieth of the scale; where it has no ends, a fifth of the first run's standard deviation."""
    if scale.low is not None and scale.high is not None:
        return MARGIN * (scale.high - scale.low)
    return 0.2 * (mean_of(list(first.values.values())).sd or 0.0)


def _worst(side: Side) -> float | None:
    return side.scale.worst if side.scale else 0.0
