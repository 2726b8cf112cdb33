"""What people say of a run: their marks of its samples, from a CSV, beside its scores."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slurm_bench.config import Config, nearest
from slurm_bench.data.readers.csv_rows import csv_table
from slurm_bench.data.readers.encoding import OtherEncoding
from slurm_bench.data.text import printable, quoted
from slurm_bench.errors import UserError
from slurm_bench.report.health import agreement_of, ranks_alone
from slurm_bench.report.prediction_powered import Powered, powered_mean
from slurm_bench.report.statistics import mean_of
from slurm_bench.report.table import Declared, scale_of, score_columns
from slurm_bench.scorers.base import LARGEST, Score

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

COLUMNS = ("id", "mark")
BY_CHANCE = 0.01  # below it the marked samples' scores differ from the others' by more than chance explains


def read_people(file: Path, ids: Collection[str]) -> dict[str, float]:
    """The marks by sample id, from a CSV with the columns `id` (as in scores.csv) and `mark`. Others may stand beside
    them. Raises UserError that names the row."""
    try:
        table = csv_table(file, None, None, COLUMNS)
    except OtherEncoding as error:
        raise OtherEncoding(file, error.encoding, "save it as UTF-8 (in Excel: CSV UTF-8)") from None
    for column in COLUMNS:
        if column not in table.names:
            raise UserError(f"--marks {file}: the header has no column '{column}'; it needs {' and '.join(COLUMNS)}")
    known = {printable(sample_id).strip(): sample_id for sample_id in ids}
    known |= {printable(sample_id): sample_id for sample_id in ids}  # two that differ in white space alone stay two
    marks: dict[str, float] = {}
    for row in table.rows:
        if row.problem:
            raise UserError(f"--marks {file}: {row.problem}")
        shown, cell = str(row.cells.get("id", "")), str(row.cells.get("mark", "")).strip()
        shown = shown if shown in known else shown.strip()
        at = f"--marks {row.place}: 'id' is {quoted(shown)}"
        if shown not in known:
            raise UserError(f"{at}, no sample of the run; {_near(shown, known)}")
        if known[shown] in marks:
            raise UserError(f"{at} for the second time; keep one mark a sample")
        marks[known[shown]] = _number(cell, row.place)
    if not marks:
        raise UserError(f"--marks {file}: it has no row with a mark")
    return marks


def people_say(
    marks: Mapping[str, float],
    width: float | None,
    table: pd.DataFrame,
    sources: np.ndarray,
    config: Config,
    declared: Declared,
) -> list[dict[str, Any]]:
    """For each score that a marked sample has: how it agrees with people, and by its help people's mean over all
    samples that have it. `width` is what the interval shall have: half of what it has, unless said. `sources` tells
    which samples share their source images."""
    if not marks:
        return []
    marked = table["id"].map(marks).astype(float)
    found = []
    for column in score_columns(table):
        scored = table[column].notna()
        both, rest = scored & marked.notna(), scored & marked.isna()
        if not both.any():
            continue
        people, judge = marked[both], table.loc[both, column]
        scale = scale_of(column, config, declared)
        compared = agreement_of(people, judge)
        if scale is not None and not _may_be_marked_on(scale, people):
            compared |= ranks_alone(compared)
        clusters = [*sources[both], *sources[rest]]
        powered = powered_mean(list(people), list(judge), list(table.loc[rest, column]), clusters)
        alone = mean_of(list(people), clusters=clusters[: len(people)])
        found.append(
            {
                "score": column,
                "n": int(both.sum()),
                "without_score": len(marks) - int(both.sum()),
                **compared,
                "of": int(scored.sum()),
                "marks_alone": {"mean": alone.mean, "ci_low": alone.ci_low, "ci_high": alone.ci_high},
                "people_over_all": _estimate(powered, width),
                "drawn_otherwise": _drawn_otherwise(judge, table.loc[rest, column]),
            }
        )
    return found


def _may_be_marked_on(scale: Score, marks: Collection[float]) -> bool:
    """A mark is better when higher: a distance, or what has no end, is on another scale whatever its numbers."""
    two_ends = scale.low is not None and scale.high is not None
    return two_ends and bool(scale.higher_is_better) and not any(scale.excludes(mark) for mark in marks)


def _estimate(powered: Powered | None, wanted: float | None) -> dict[str, Any] | None:
    if powered is None:
        return None
    wanted = wanted or powered.width(powered.marked) / 2
    return {
        "mean": powered.mean,
        "ci_low": powered.ci_low,
        "ci_high": powered.ci_high,
        "weight": powered.weight,
        "too_few": powered.too_few,
        "width": wanted,
        "marks_for_width": powered.marks_for(wanted),
    }


def _drawn_otherwise(marked: pd.Series, rest: pd.Series) -> float | None:
    """By how much the score's mean is another over the marked samples than over the rest, where chance hardly explains
    it (Welch's test): then no estimate over all holds."""
    from scipy.stats import ttest_ind

    if min(len(marked), len(rest)) < 2 or marked.nunique() == rest.nunique() == 1:
        return None
    chance = float(ttest_ind(marked, rest, equal_var=False).pvalue)
    return float(marked.mean() - rest.mean()) if chance < BY_CHANCE else None


def _number(cell: str, place: str) -> float:
    try:
        mark = float(cell)
    except ValueError:
        mark = math.nan
    if not abs(mark) <= LARGEST:
        mend = "leave out rows without a mark" if not cell else "write a number, as 4 or 3.5"
        raise UserError(f"--marks {place}: 'mark' is {quoted(cell)}; {mend}")
    return mark


def _near(shown: str, known: Collection[str]) -> str:
    """Without the list of all ids."""
    near = nearest(shown, known)
    return near if near.startswith("did") else "scores.csv has the ids"
