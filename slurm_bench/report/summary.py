"""summary.json: counts, means by category, and the overall means, each named for what it counts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from slurm_bench.config import Config
from slurm_bench.report.health import agreement, health
from slurm_bench.report.official import official_numbers
from slurm_bench.report.repeats import advice, spread_of
from slurm_bench.report.stand_ins import stand_ins
from slurm_bench.report.statistics import Mean, histogram, macro_mean_of, mean_of
from slurm_bench.report.table import (
    ERROR,
    MISSING,
    OK,
    Declared,
    declared_in,
    headline,
    scale_of,
    score_columns,
    split_column,
)
from slurm_bench.run.manifest import info_of
from slurm_bench.run.records import Outcome, State
from slurm_bench.scorers.base import Score

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

PARSE_FAILURE = "ParseFailure"
EDIT_FACTS = ("profile", "steps", "attention")
UNDECLARED = Score(None, None)
EMPTY = asdict(Mean(0, None, None, None))


def summarize(
    config: Config,
    state: State,
    table: pd.DataFrame,
    provenance: Mapping[str, Any],
    sources: np.ndarray,
) -> dict[str, Any]:
    """`sources` are the samples' source_numbers."""
    import pandas as pd

    declared = declared_in(provenance)
    score, why = headline(config, table, declared)
    top = _Headline.of(score, config, state, table, declared)
    unread = failed_to_parse(state)
    parse_failed = pd.Series([sample_id in unread for sample_id in table["id"]], table.index, dtype=bool)
    marks = pd.Series(sources, table.index)

    def row(group: pd.DataFrame) -> dict[str, Any]:
        return _category(group, top, config, declared, parse_failed[group.index], marks[group.index])

    scores = table[["status", *score_columns(table)]]  # a group is a copy, and the texts are long
    groups = _by_category(table)
    return {
        "headline": score,
        "headline_rule": why,
        "scales": {
            column: (scale := scale_of(column, config, declared)) and scale_as_json(scale)
            for column in _known(table, score)
        },
        "failures_count_as": top.worst,
        "counts": {
            "planned": len(table),
            "edited": sum(outcome.ok is not None for outcome in state.edits.values()),
            "scored": int((table["status"] == OK).sum()),
            "failed": int((table["status"] == ERROR).sum()),
            "missing": int((table["status"] == MISSING).sum()),
            "unchanged": sum(o.ok is not None and bool(o.ok.get("unchanged")) for o in state.edits.values()),
        },
        "rates": _rates(table, parse_failed),
        "categories": {name: row(scores.iloc[rows]) for name, rows in groups.items()},
        "slices": {
            fact: {value: row(scores[table["id"].isin(ids)]) for value, ids in groups.items()}
            for fact, groups in by_facts(state, config.report.by).items()
        },
        "overall": {
            "scored_only": _overall(scores, groups, top, marks, with_failures=False),
            "failures_as_zero": _overall(scores, groups, top, marks, with_failures=True),
        },
        "repeats": _repeats(table, top, state, sources),
        "official": official_numbers(state, provenance),
        "edits_say": edits_say(state),
        "seconds": {
            "edit": round(_seconds(state.edits.values()), 3),
            "score": round(_seconds(o for outcomes in state.by_scorer().values() for o in outcomes.values()), 3),
        },
        "health": {name: health(name, config, state, table, declared) for name in config.scorers},
        "agreement": agreement(config, table, declared),
        "stand_ins": {
            column: found
            for column in score_columns(table)
            if (found := stand_ins(table[column].dropna(), scale_of(column, config, declared)))
        },
        "others": [
            {"stage": stage, "plugin": name, "by": by, "records": count}
            for (stage, name, by), count in state.others.items()
        ],
        "failures": [
            {
                "id": row.id,
                "category": row.category,
                "status": row.status,
                "error": row.error,
                "why": row.error or state.missing(row.id),
            }
            for row in table.loc[table["status"] != OK, ["id", "category", "status", "error"]].itertuples()
        ],
    }


@dataclass(frozen=True)
class _Headline:
    """`unscored` says of each row whether the headline's scorer gave it nothing: a failure. A sample that was scored,
    but has no such score (no reference, say), is none, and never enters. `worst` is what a failure counts as, None
    where the score has no worst value."""

    column: str | None
    scale: Score
    worst: float | None
    unscored: pd.Series

    @classmethod
    def of(cls, column: str | None, config: Config, state: State, table: pd.DataFrame, declared: Declared) -> _Headline:
        import pandas as pd

        scale = scale_of(column, config, declared) if column else None
        scorer = split_column(column, config)[0] if column else None
        unscored = table["status"] != OK
        if scorer in config.scorers:
            outcomes = state.by_scorer().get(scorer, {})
            unscored = pd.Series([outcomes[sample_id].ok is None for sample_id in table["id"]], table.index, dtype=bool)
        return cls(column, scale or UNDECLARED, scale.worst if scale else 0.0, unscored)

    def rows(self, group: pd.DataFrame, with_failures: bool) -> pd.Series | None:
        """The numbers, failures as the worst value where they are asked for; None where they can't be counted."""
        import pandas as pd

        values = group[self.column] if self.column in group.columns else pd.Series(index=group.index, dtype=float)
        failed = self.unscored[group.index] & values.isna()
        if not with_failures or not failed.any():
            return values.dropna()
        return None if self.worst is None else values.mask(failed, self.worst).dropna()


def _seconds(outcomes: Iterable[Outcome]) -> float:
    return sum(outcome.ok.get("seconds", 0.0) for outcome in outcomes if outcome.ok is not None)


def by_facts(state: State, names: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """The ids by the values of facts that the data have of their samples. Of a list (tags) a sample counts under each
    element; one without the fact, under none."""
    found: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    for sample in state.samples:
        for name, groups in found.items():
            value = sample.facts.get(name)
            for one in value if isinstance(value, list) else [] if value is None else [value]:
                ids = groups.setdefault(one if isinstance(one, str) else json.dumps(one), [])
                ids.append(sample.id)
    return {name: dict(sorted(groups.items())) for name, groups in found.items()}


def edits_say(state: State) -> dict[str, dict[str, int]]:
    """What the edits' records say of how they were made, and of how many: a profile that wasn't asked for is the
    editor's default."""
    found = {fact: Counter[str]() for fact in EDIT_FACTS}
    for outcome in state.edits.values():
        info = info_of(outcome.ok)
        for fact, counter in found.items():
            if info.get(fact) is not None:
                counter[str(info[fact])] += 1
    return {fact: dict(counter) for fact, counter in found.items() if counter}


def failed_to_parse(state: State) -> set[str]:
    """The ids of those of whom the judge spoke, and no score could be read from it."""
    outcomes = (item for by_id in state.by_scorer().values() for item in by_id.items())
    failed = ((i, error) for i, outcome in outcomes if outcome.errors and (error := outcome.error))
    return {i for i, error in failed if error.get("type") == PARSE_FAILURE}


def _category(
    group: pd.DataFrame,
    top: _Headline,
    config: Config,
    declared: Declared,
    parse_failed: pd.Series,
    marks: pd.Series,
) -> dict[str, Any]:
    status = group["status"].value_counts()
    means = {
        column: _described(group[column].dropna(), scale_of(column, config, declared) or UNDECLARED, marks)
        for column in score_columns(group)
    }
    with_failures = top.rows(group, with_failures=True)
    return {
        **means.get(top.column or "", EMPTY),
        "planned": len(group),
        "failed": int(status.get(ERROR, 0)),
        "missing": int(status.get(MISSING, 0)),
        **_rates(group, parse_failed),
        "mean_failures_as_zero": None if with_failures is None else mean_of(with_failures.to_numpy(float)).mean,
        "scores": means,
    }


def _rates(table: pd.DataFrame, parse_failed: pd.Series) -> dict[str, Any]:
    return {
        "failure_rate": round(float((table["status"] != OK).mean()), 6) if len(table) else None,
        "parse_failed": int(parse_failed.sum()),
        "parse_failure_rate": round(float(parse_failed.mean()), 6) if len(table) else None,
    }


def _described(values: pd.Series, scale: Score, marks: pd.Series) -> dict[str, Any]:
    numbers = values.to_numpy(float)
    mean = mean_of(numbers, scale.low, scale.high, marks[values.index].to_numpy())
    return {**asdict(mean), "histogram": histogram(numbers, scale.low, scale.high)}


def _by_category(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """The rows' positions, by category as they first come."""
    import numpy as np
    import pandas as pd

    numbers, names = pd.factorize(table["category"], use_na_sentinel=False)
    return {str(name): np.flatnonzero(numbers == number) for number, name in enumerate(names)}


def _overall(
    scores: pd.DataFrame,
    groups: Mapping[str, np.ndarray],
    top: _Headline,
    marks: pd.Series,
    with_failures: bool,
) -> dict[str, Any]:
    """A failure's value is named in the row."""
    import numpy as np

    counts_as = {"failure_counts_as": top.worst} if with_failures else {}
    micro = top.rows(scores, with_failures)
    if micro is None:
        return dict.fromkeys(("micro", "macro"), EMPTY | counts_as)
    numbers, sources = {}, [marks[:0].to_numpy()]
    for name, rows in groups.items():
        group = micro[micro.index.isin(rows)]
        numbers[name] = group.to_numpy(float)
        sources.append(marks[group.index].to_numpy())
    described = _described(micro, top.scale, marks)
    del micro  # of a million samples each such column takes 8 MB
    macro = macro_mean_of(numbers, top.scale.low, top.scale.high, np.concatenate(sources))
    return {"micro": described | counts_as, "macro": asdict(macro) | counts_as}


def _repeats(table: pd.DataFrame, top: _Headline, state: State, sources: np.ndarray) -> dict[str, Any] | None:
    """Where every sample has several seeds: how far the headline score varies by seed and by sample."""
    import numpy as np

    seeds = max((sample.repeat for sample in state.samples), default=1)
    if seeds == 1:
        return None
    values = top.rows(table, with_failures=False)
    assert values is not None
    spread = spread_of(list(values), list(table["sample"][values.index]))
    planned = {
        "seeds_planned": seeds,
        "samples_planned": int(table["sample"].nunique()),
        "sources_planned": len(np.unique(sources)),
    }
    return planned | ({**asdict(spread), "advice": advice(spread)} if spread else {"advice": None})


def _known(table: pd.DataFrame, score: str | None) -> Sequence[str]:
    return list(dict.fromkeys([*score_columns(table), *([score] if score else [])]))


def scale_as_json(scale: Score) -> dict[str, Any]:
    return {"low": scale.low, "high": scale.high, "higher_is_better": scale.higher_is_better}
