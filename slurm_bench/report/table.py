"""The run as a table: one row a sample of the plan, whatever became of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from slurm_bench.config import Config, nearest
from slurm_bench.data.text import printable
from slurm_bench.errors import UserError
from slurm_bench.run.records import State

if TYPE_CHECKING:
    import pandas as pd

OK, ERROR, MISSING = "ok", "error", "missing"
FIXED = ("id", "category", "status", "error")


def score_table(config: Config, state: State) -> pd.DataFrame:
    """Columns id, category, status, a column a score, error. A sample without a score has NaN there, an empty cell
    in the CSV: never a number. With several scorers a column is called `scorer.score`."""
    import pandas as pd

    scores, statuses, failures = [], [], []
    for sample in state.samples:
        outcomes = state.scores[sample.id]
        scores.append(
            {
                _column(name, score, config): value
                for name, outcome in outcomes.items()
                if outcome.ok is not None
                for score, value in outcome.ok["scores"].items()
            }
        )
        failure = state.failure(sample.id)
        complete = all(outcome.ok is not None for outcome in outcomes.values())
        statuses.append(OK if complete else ERROR if failure else MISSING)
        failures.append("" if complete else failure or "")
    by_scorer = [
        _column(name, score, config)
        for name in config.scorers
        for sample in state.samples
        if (done := state.scores[sample.id][name].ok) is not None
        for score in done["scores"]
    ]
    columns = list(dict.fromkeys(by_scorer))
    return pd.DataFrame(
        {
            "id": [printable(sample.id) for sample in state.samples],
            "category": [printable(sample.category) for sample in state.samples],
            "status": statuses,
            **{column: [row.get(column, math.nan) for row in scores] for column in columns},
            "error": failures,
        }
    )


def score_columns(table: pd.DataFrame) -> list[str]:
    return [str(column) for column in table.columns if column not in FIXED]


def headline(config: Config, table: pd.DataFrame) -> str | None:
    """The score that the summary speaks of: the configured one, else the first scorer's that most samples have, and
    of several that as many have the first."""
    if config.headline is not None:
        return config.headline
    for name in config.scorers:
        own = [c for c in score_columns(table) if len(config.scorers) == 1 or c.startswith(f"{name}.")]
        if own:
            return max(own, key=lambda column: int(table[column].notna().sum()))
    return None


def check_headline(config: Config, declared: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Before anything starts: is the configured headline a score that its scorer declares? Raises UserError."""
    from slurm_bench.scorers.base import ANY

    known = {name: scores for name, scores in declared.items() if scores is not None and ANY not in scores}
    columns = [_column(name, score, config) for name, scores in known.items() for score in scores]
    if config.headline is None or config.headline in columns:
        return
    if not any(config.headline.startswith(_column(name, "", config)) for name in declared.keys() - known):
        raise UserError(f"'headline': no scorer gives '{config.headline}'; {nearest(config.headline, columns)}")


def _column(scorer: str, score: str, config: Config) -> str:
    """A score may be called what it likes, but not take a fixed column's place."""
    return score if len(config.scorers) == 1 and score not in FIXED else f"{scorer}.{score}"
