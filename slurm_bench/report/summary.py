"""summary.json: counts, means by category, and the overall means, each named for what it counts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from slurm_bench.config import Config
from slurm_bench.report.statistics import macro_mean_of, mean_of
from slurm_bench.report.table import ERROR, MISSING, OK, headline, score_columns
from slurm_bench.run.records import State

if TYPE_CHECKING:
    import pandas as pd


def summarize(config: Config, state: State, table: pd.DataFrame) -> dict[str, Any]:
    score = headline(config, table)
    categories = {
        str(name): _category(group, score) for name, group in table.groupby("category", sort=False, dropna=False)
    }
    return {
        "headline": score,
        "counts": {
            "planned": len(table),
            "edited": sum(outcome.ok is not None for outcome in state.edits.values()),
            "scored": int((table["status"] == OK).sum()),
            "failed": int((table["status"] == ERROR).sum()),
            "missing": int((table["status"] == MISSING).sum()),
            "unchanged": sum(bool(o.ok and o.ok.get("unchanged")) for o in state.edits.values()),
        },
        "categories": categories,
        "overall": {
            "scored_only": _overall(table, score, failures_as_zero=False),
            "failures_as_zero": _overall(table, score, failures_as_zero=True),
        },
        "seconds": {
            "edit": round(sum(o.ok["seconds"] for o in state.edits.values() if o.ok), 3),
            "score": round(sum(o.ok["seconds"] for by in state.scores.values() for o in by.values() if o.ok), 3),
        },
        "others": [
            {"stage": stage, "plugin": name, "by": by, "records": count}
            for (stage, name, by), count in state.others.items()
        ],
        "failures": [
            {"id": row.id, "category": row.category, "status": row.status, "error": row.error}
            for row in table[table["status"] != OK].itertuples()
        ],
    }


def _category(group: pd.DataFrame, score: str | None) -> dict[str, Any]:
    status = group["status"].value_counts()
    means = {column: asdict(mean_of(list(group[column].dropna()))) for column in score_columns(group)}
    top = means.get(score or "", asdict(mean_of([])))
    return {
        **top,
        "planned": len(group),
        "failed": int(status.get(ERROR, 0)),
        "missing": int(status.get(MISSING, 0)),
        "mean_failures_as_zero": mean_of(_values(group, score, failures_as_zero=True)).mean,
        "scores": means,
    }


def _overall(table: pd.DataFrame, score: str | None, failures_as_zero: bool) -> dict[str, Any]:
    groups = {
        str(name): _values(group, score, failures_as_zero)
        for name, group in table.groupby("category", sort=False, dropna=False)
    }
    everything = [value for values in groups.values() for value in values]
    return {"micro": asdict(mean_of(everything)), "macro": asdict(macro_mean_of(groups))}


def _values(group: pd.DataFrame, score: str | None, failures_as_zero: bool) -> list[float]:
    """The headline score's numbers. A sample that was scored but has no such score (no reference, say) is not a
    failure and never enters; a failed or missing one enters as 0 where that is asked for."""
    has_score = group[score].notna() if score in group.columns else group["status"].isna()
    values = [float(value) for value in group.loc[has_score, score]] if has_score.any() else []
    if failures_as_zero:
        values += [0.0] * int(((group["status"] != OK) & ~has_score).sum())
    return values
