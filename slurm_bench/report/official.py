"""The numbers that a benchmark publishes, by the protocol that scored the run, and ours beside each."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from slurm_bench.data.categories import canonical
from slurm_bench.errors import UserError
from slurm_bench.report.sources import source_marks
from slurm_bench.report.statistics import Mean, macro_mean_of, mean_of
from slurm_bench.run.manifest import info_of
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import Outcome, State
from slurm_bench.scorers.protocols.description import (
    Number,
    Protocol,
    calls_for,
    fits,
    formula,
    read_protocol,
    values_of,
)
from slurm_bench.scorers.usage import sum_usage

ALL = "all"

# What a sample without a score counts as; None leaves it out.
Counted = Callable[[Sample], "float | None"]


def official_numbers(state: State, provenance: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For each scorer that is a benchmark's protocol: `about`, what must stand beside a number, and the `rows`."""
    found = {}
    for name, data in provenance.get("protocols", {}).items():
        try:
            protocol = read_protocol(data, f"the protocol of {name}")
        except UserError:  # of a later version, which says more than this one reads
            continue
        if any(name in by for by in state.scores.values()):
            says = provenance.get("models", {}).get(f"scorers.{name}", {})
            found[name] = _Official(protocol, name, state).as_json(says)
    return found


@dataclass(frozen=True)
class _Official:
    protocol: Protocol
    scorer: str
    state: State

    @cached_property
    def marks(self) -> Mapping[str, Hashable]:
        """Which samples share their sources."""
        return source_marks(self.state)

    def as_json(self, says: Mapping[str, Any]) -> dict[str, Any]:
        return {"about": self._about(says), "rows": list(self._rows())}

    def _about(self, says: Mapping[str, Any]) -> dict[str, Any]:
        records = [ok for sample in self.state.samples if (ok := self._outcome(sample).ok)]
        times = [record["time"] for record in records if isinstance(record.get("time"), int | float)]
        days = [time.strftime("%Y-%m-%d", time.gmtime(moment)) for moment in (times and [min(times), max(times)])]
        images = self.protocol.images
        sides = f", at most {images.longest} pixels a side" if images.longest else ""
        sized = ", the edit at its source's size" if images.like_source else ""
        quality = f" of quality {images.quality}" if images.format == "jpeg" else ""
        return {
            "benchmark": self.protocol.name,
            "judge": says.get("model"),
            "served as": sum_usage(info_of(record) for record in records).get("served_model"),
            "judged": " to ".join(dict.fromkeys(days)) or None,
            "temperature": 0,
            "images": f"{images.format.upper()}{quality}{sides}{sized}",
            "prompts_sha256": says.get("prompts_sha256"),
            "seeds of each sample": repeats if (repeats := max(s.repeat for s in self.state.samples)) > 1 else None,
            "samples": {"benchmark": self.protocol.samples, "planned": len({s.data_id for s in self.state.samples})},
        }

    def _rows(self) -> Iterator[dict[str, Any]]:
        split = self.protocol.split
        parts: list[str | None] = [None]
        if split:
            parts = list(dict.fromkeys(_fact(s, split) for s in self.state.samples))
        for part in parts:
            for subset, when in (self.protocol.subsets or {"": {}}).items():
                samples = [
                    s
                    for s in self.state.samples
                    if fits(when, values_of(s)) and (split is None or _fact(s, split) == part)
                ]
                for number in self.protocol.numbers:
                    for group, chosen in self._groups(number, self._due(number, samples)).items():
                        yield self._row(number, group, chosen) | {"subset": subset, "part": part}

    def _due(self, number: Number, samples: Sequence[Sample]) -> list[Sample]:
        """Those that have such a score, or were to have one: a failure without it is none of this number's."""
        wanted = {*number.of, *([number.ours] if number.ours else [])}
        return [s for s in samples if wanted & self._gets[s.id]]

    @cached_property
    def _gets(self) -> dict[str, Set[str]]:
        """What each sample has, or would if all went well: every score, and the marks that are asked of it."""
        scores = {score.name for score in self.protocol.scores}
        found: dict[str, Set[str]] = {}
        for sample in self.state.samples:
            ok = self._outcome(sample).ok
            marks = {mark for call in calls_for(self.protocol, values_of(sample)) for mark in call.marks}
            found[sample.id] = (scores | marks) if ok is None else ok["scores"].keys()
        return found

    def _groups(self, number: Number, samples: Sequence[Sample]) -> dict[str, list[Sample]]:
        """The samples of each row of a number."""
        if number.by is None:
            return {ALL: list(samples)}
        if isinstance(number.by, Mapping):
            by = {str(group): {canonical(str(name)) for name in names} for group, names in number.by.items()}
            return {g: [s for s in samples if canonical(s.category) in names] for g, names in by.items()}
        found: dict[str, list[Sample]] = {}
        for sample in samples:
            value = sample.category if number.by == "category" else _fact(sample, str(number.by))
            found.setdefault(value, []).append(sample)
        return found

    def _row(self, number: Number, group: str, samples: Sequence[Sample]) -> dict[str, Any]:
        outcomes = [self._outcome(sample) for sample in samples]
        judged = sum(outcome.ok is not None for outcome in outcomes)
        refused = sum(_refused(outcome) for outcome in outcomes)
        failed = sum(self._failed(sample) for sample in samples)
        score = number.ours or number.of[0]
        worst = self.protocol.declared[score].low
        ours = self._mean(number, score, samples, self._judged_as(number.failures))
        with_failures = self._mean(number, score, samples, self._as_worst(worst))
        return {
            "name": number.name,
            "group": group,
            "official": number.official,
            "value": _scaled(number, self._value(number, samples)),
            "ours": asdict(ours if number.ours else _scaled_mean(number, ours)),
            "with_failures": with_failures.mean if number.ours else _scaled(number, with_failures.mean),
            "planned": len(samples),
            "judged": judged,
            "failed": failed - refused,
            "refused": refused,
            "missing": len(samples) - judged - failed,
            "categories": self._categories(samples) if number.mean == "categories" else None,
        }

    def _value(self, number: Number, samples: Sequence[Sample]) -> float | None:
        """The mean, as the benchmark takes it."""
        counted = self._judged_as(number.failures)
        if number.mean == "categories":
            groups = self._by_category(number.of[0], samples, counted).values()
            means = [fmean(group.values()) for group in groups if group]
            return fmean(means) if means else None
        values = [value for name in number.of for value in self._values(name, samples, counted).values()]
        return fmean(values) if values else None

    def _mean(self, number: Number, score: str, samples: Sequence[Sample], counted: Counted) -> Mean:
        """Our mean with its interval: over samples, or over categories where the benchmark's is."""
        declared = self.protocol.declared[score]
        if number.mean == "categories":
            groups = {name: group for name, group in self._by_category(score, samples, counted).items() if group}
            clusters = [self.marks[i] for group in groups.values() for i in group]
            values = {name: list(group.values()) for name, group in groups.items()}
            return macro_mean_of(values, declared.low, declared.high, clusters)
        found = self._values(score, samples, counted)
        return mean_of(list(found.values()), declared.low, declared.high, [self.marks[i] for i in found])

    def _judged_as(self, value: float | None) -> Counted:
        """What a sample counts as that was to be judged, and couldn't be."""
        return lambda sample: value if self._outcome(sample).error is not None else None

    @staticmethod
    def _as_worst(value: float | None) -> Counted:
        """For every sample without a score: failed or missing, as in the summary's mean with failures."""
        return lambda sample: value

    def _values(self, name: str, samples: Sequence[Sample], counted: Counted) -> dict[str, float]:
        """The values of `name`, by sample id. A sample that isn't asked about it has none."""
        found = {}
        for sample in samples:
            ok = self._outcome(sample).ok
            value = None
            if name in self._gets[sample.id]:
                value = ok["scores"][name] if ok is not None else counted(sample)
            if value is not None:
                found[sample.id] = float(value)
        return found

    def _by_category(self, name: str, samples: Sequence[Sample], counted: Counted) -> dict[str, dict[str, float]]:
        groups: dict[str, list[Sample]] = {}
        for sample in samples:
            groups.setdefault(sample.category, []).append(sample)
        return {category: self._values(name, group, counted) for category, group in groups.items()}

    def _categories(self, samples: Sequence[Sample]) -> dict[str, int]:
        """How many of the benchmark's categories have a score: a mean over fewer is another number."""
        judged = {canonical(sample.category) for sample in samples if self._outcome(sample).ok is not None}
        return {"benchmark": len(self.protocol.categories), "judged": len(judged)}

    def _outcome(self, sample: Sample) -> Outcome:
        return self.state.scores[sample.id][self.scorer]

    def _failed(self, sample: Sample) -> bool:
        """In the edit or in the judgement."""
        outcome, edit = self._outcome(sample), self.state.edits[sample.id]
        return outcome.ok is None and (outcome.error is not None or edit.error is not None or edit.lost)


def _fact(sample: Sample, name: str) -> str:
    """The value of a fact by which numbers are cut; samples without it are a group of their own."""
    value = sample.facts.get(name)
    return f"without {name}" if value is None else str(value)


def _refused(outcome: Outcome) -> bool:
    """The judge refused to judge, or a filter before it did."""
    return outcome.ok is None and any(info_of(record).get("refused") for record in outcome.errors)


def _scaled(number: Number, value: float | None) -> float | None:
    if value is None or number.scale is None:
        return value
    try:
        return formula(number.scale, ["mean"], number.name)({"mean": value})
    except ValueError:  # a division by zero, say: no number
        return None


def _scaled_mean(number: Number, mean: Mean) -> Mean:
    """A scale is a straight line upwards, so the ends of an interval go with it."""
    ends = {name: _scaled(number, getattr(mean, name)) for name in ("mean", "ci_low", "ci_high")}
    return Mean(mean.n, **ends, method=mean.method, clusters=mean.clusters, too_few=mean.too_few)
