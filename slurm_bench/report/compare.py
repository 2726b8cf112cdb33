"""Several runs on the same samples, each against the first. It reads run folders alone. A sample with several seeds is
one pair, by its mean over them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from slurm_bench.data.text import quoted
from slurm_bench.errors import UserError
from slurm_bench.report.comparable import cautions, differ, editors_differ, not_comparable
from slurm_bench.report.paired import Paired, compare_pairs, holm, verdict
from slurm_bench.report.pictures import picture_cost
from slurm_bench.report.repeats import two_seeds
from slurm_bench.report.side import Side, open_sides, with_score
from slurm_bench.report.sources import source_marks
from slurm_bench.report.stand_ins import stand_ins
from slurm_bench.report.statistics import mean_of
from slurm_bench.report.summary import UNDECLARED, scale_as_json
from slurm_bench.scorers.base import Score

MARGIN = 0.05  # of the scale's length: a difference that is no larger is called none
SHOWN = 20
DECIDING = 5


def compare_runs(
    roots: Sequence[Path], score: str | None = None, margin: float | None = None, pictures: bool = False
) -> dict[str, Any]:
    """Everything that `compare` says, as JSON. Raises UserError where a run has no such score."""
    if margin is not None and not 0 < margin < math.inf:
        raise UserError(f"--margin {margin}: it must be above 0")
    sides = open_sides(roots)
    first, *others = with_score(sides, score)
    shared = first.scale or UNDECLARED
    found = [_Pair(first, other) for other in others]
    for pair in found:
        if not pair.same:
            raise UserError(
                f"{first.run.root} and {pair.other.run.root} have no sample in common ({_examples(pair.left_out)}); "
                "samples are paired by id: plan both runs from the same data"
            )
    width = margin if margin is not None else _margin(first, shared)
    corrected = holm([pair.all.p for pair in found])
    return {
        "score": {"name": first.score, **scale_as_json(shared), "declared": first.scale is not None},
        "margin": width,
        "difference": f"the other run minus {first.name}",
        "runs": [side.about() for side in (first, *others)],
        "comparisons": [
            pair.as_json(width, p) | {"seeds": pair.seeds(pictures)} | ({"images": pair.pictures()} if pictures else {})
            for pair, p in zip(found, corrected, strict=True)
        ],
        "ranking": _ranking([first, *others], found, shared),
    }


def _examples(left_out: dict[str, str]) -> str:
    """`only in the plan of A: 12, as 'cat'`, and so on by reason: ids that are written otherwise show themselves."""
    counts = Counter(left_out.values())
    first = {why: sample_id for sample_id, why in reversed(left_out.items())}
    return "; ".join(f"{why}: {count}, as {quoted(first[why])}" for why, count in sorted(counts.items()))


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
            if i not in out and (why := differ(a, b, i)):
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
        return self._compared(ids, self.first.values, self.other.values)

    def _compared(self, ids: Sequence[str], first: Mapping[str, float], other: Mapping[str, float]) -> Paired:
        marks, scale = source_marks(self.first.state), self.first.scale or UNDECLARED
        a, b = ([values[i] for i in ids] for values in (first, other))
        upwards = self.higher_is_better is not False
        return compare_pairs(a, b, [marks[i] for i in ids], upwards, scale.low, scale.high)

    def with_failures(self) -> Paired | None:
        """A failure of either as the worst value; None where there is none to count, or the score has no worst."""
        worst = _worst(self.first)
        if worst is None:
            return None
        first, other = (side.values_with(worst) for side in (self.first, self.other))
        ids = [i for i in self.same if i in first and i in other]
        if all(self.first.values.get(i) == first[i] and self.other.values.get(i) == other[i] for i in ids):
            return None
        return self._compared(ids, first, other)

    def seeds(self, pictures: bool) -> list[dict[str, Any]]:
        """The yardstick: how far two seeds of one run are apart on these samples, of each run that has several."""
        return [
            {"run": side.name, **asdict(found)} | ({"images": _two_seeds_pictures(side, self.same)} if pictures else {})
            for side in (self.first, self.other)
            if (found := two_seeds([side.scores[i] for i in self.ids])) is not None
        ]

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
            "seeds_left_out": {
                side.name: count for side in (self.first, self.other) if (count := side.seeds_without(self.ids))
            },
            "left_out_ids": {i: out[i] for i in list(out)[:SHOWN]},
            "categories": self._by_category(margin),
            "stand_ins": {
                side.name: found
                for side in (self.first, self.other)
                if (found := stand_ins([side.values[i] for i in self.ids], side.scale))
            },
            "largest": self._largest(),
            "not_comparable": not_comparable(self.first, self.other),
            "cautions": cautions(self.first, self.other, self.same),
            "editors_differ_in": editors_differ(self.first, self.other),
        }

    def pictures(self) -> dict[str, Any]:
        """How far the images of both runs are apart, of each sample under its first seed."""
        edits = [(self.first.state.edits[i].ok, self.other.state.edits[i].ok) for i in self.same]
        return picture_cost(self.first.run.folder, self.other.run.folder, edits)

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


def _two_seeds_pictures(side: Side, ids: Sequence[str]) -> dict[str, Any]:
    lines = [side.repeats[i][:2] for i in ids]
    edits = [(side.state.edits[a.id].ok, side.state.edits[b.id].ok) for a, b in lines]
    return picture_cost(side.run.folder, side.run.folder, edits)


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
    high_first = scale.higher_is_better is not False
    return sorted(rows, key=lambda row: row["mean"] if row["mean"] is not None else 0.0, reverse=high_first)


def _margin(first: Side, scale: Score) -> float:
    """A twentieth of the scale; where it has no ends, a fifth of the first run's standard deviation."""
    if scale.low is not None and scale.high is not None:
        return MARGIN * (scale.high - scale.low)
    return 0.2 * (mean_of(list(first.values.values())).sd or 0.0)


def _worst(side: Side) -> float | None:
    return side.scale.worst if side.scale else 0.0
