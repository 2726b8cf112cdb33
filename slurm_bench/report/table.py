"""The run as a table: one row a sample of the plan, whatever became of it."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from slurm_bench.config import Config
from slurm_bench.run.records import State

if TYPE_CHECKING:
    import pandas as pd

OK, ERROR, MISSING = "ok", "error", "missing"
FIXED = ("id", "category", "status", "error")


def score_table(config: Config, state: State) -> pd.DataFrame:
    """Columns id, category, status, a column a score, error. A sample without a score has NaN there, an empty cell
    in the CSV: never a number. With several scorers a column is called `scorer.score`."""
    import pandas as pd

    rows = []
    for sample in state.samples:
        outcomes = state.scores[sample.id]
        scores = {
            (score if len(config.scorers) == 1 else f"{name}.{score}"): value
            for name, outcome in outcomes.items()
            if outcome.ok is not None
            for score, value in outcome.ok["scores"].items()
        }
        failure = state.failure(sample.id)
        complete = all(outcome.ok is not None for outcome in outcomes.values())
        status = OK if complete else ERROR if failure else MISSING
        rows.append(
            {
                "id": sample.id,
                "category": sample.category,
                "status": status,
                "scores": scores,
                "error": failure,
            }
        )
    names = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    table = pd.DataFrame(
        {
            "id": [row["id"] for row in rows],
            "category": [row["category"] for row in rows],
            "status": [row["status"] for row in rows],
            **{_column(name): [row["scores"].get(name, math.nan) for row in rows] for name in names},
            "error": [row["error"] or "" for row in rows],
        }
    )
    return table


def score_columns(table: pd.DataFrame) -> list[str]:
    return [str(column) for column in table.columns if column not in FIXED]


def headline(config: Config, table: pd.DataFrame) -> str | None:
    """The score that the summary speaks of: the configured one, else the one that most samples have."""
    columns = score_columns(table)
    if config.headline in columns:
        return config.headline
    counts = Counter({column: int(table[column].notna().sum()) for column in columns})
    return counts.most_common(1)[0][0] if counts else None


def _column(score: str) -> str:
    """A score may be called what it likes, but not take a fixed column's place."""
    return f"score.{score}" if score in FIXED else score
