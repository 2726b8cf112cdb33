"""Can the judge be trusted? What its records say of it, and how two of one run agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Any

from slurm_bench.config import Config
from slurm_bench.report.table import Declared, scale_of, score_columns, split_column
from slurm_bench.run.manifest import info_of
from slurm_bench.run.records import Record, State
from slurm_bench.scorers.usage import sum_usage

if TYPE_CHECKING:
    import pandas as pd

    from slurm_bench.scorers.base import Score

NEAR = 0.01  # of the scale's length from its end is extreme: an expectation never reaches the end
SHOWN = 20
EQUAL = 1e-9  # marks no further apart are equal
# Of 255, of the mean over a 64th of width and height: what `changed` of ReferenceMetrics takes for a change of a pixel.
# An encoder alone moves single pixels by more, and such means by less.
NO_CHANGE = 16
UNCHANGED, NEARLY = "unchanged", "nearly unchanged"


def health(scorer: str, config: Config, state: State, table: pd.DataFrame, declared: Declared) -> dict[str, Any]:
    """What is known of one scorer: the probability that lay on score tokens, replies that couldn't be read by category,
    scores at the ends of their scale, what it gave to edits that changed nothing, and what it cost. Only what there
    is."""
    columns = [c for c in score_columns(table) if split_column(c, config)[0] == scorer]
    scales = {column: scale_of(column, config, declared) for column in columns}
    outcomes = state.by_scorer().get(scorer, {})
    scored = [outcome.ok for outcome in outcomes.values() if outcome.ok is not None]
    unread = Counter(
        sample.category
        for sample in state.samples
        if (failed := outcomes[sample.id]).errors and (error := failed.error) and error.get("type") == "ParseFailure"
    )
    errors = [record for outcome in outcomes.values() for record in outcome.errors]
    found = {
        "mass": _mass(scored),
        "parse_failures": dict(unread),
        "extremes": {c: ends for c, scale in scales.items() if scale and (ends := _extremes(table[c].dropna(), scale))},
        "unchanged": _unchanged(state, table, columns, scales),
        **sum_usage(info_of(record) for record in [*scored, *errors]),
    }
    return {name: value for name, value in found.items() if value}


def agreement(config: Config, table: pd.DataFrame, declared: Declared) -> list[dict[str, Any]]:
    """Each two scorers that gave a score of the same name, over the samples that have both. `same_judge` where both are
    one class with the same params: then their differences are the judge's own noise. Of two scales that end elsewhere
    (10 and 5) only the ranks are compared."""
    columns = [(*split_column(column, config), column) for column in score_columns(table)]
    found = []
    for (first, score, a), (second, other, b) in combinations(columns, 2):
        if first == second or score != other:
            continue
        both = table[[a, b]].dropna()
        same = config.scorers.get(first) == config.scorers.get(second)
        said = {"score": score, "scorers": [first, second], "same_judge": same, "n": len(both)}
        compared = agreement_of(both[a], both[b])
        if _end_elsewhere(scale_of(a, config, declared), scale_of(b, config, declared)):
            compared |= ranks_alone(compared)
        found.append(said | compared)
    return found


def _end_elsewhere(a: Score | None, b: Score | None) -> bool:
    if a is None or b is None or None in (a.low, a.high, b.low, b.high):
        return False
    return a != b


def ranks_alone(compared: Mapping[str, Any]) -> dict[str, None]:
    """What needs one scale for both, taken away."""
    return dict.fromkeys(compared.keys() - {"spearman"})


def agreement_of(a: pd.Series, b: pd.Series) -> dict[str, float | None]:
    """Rank correlation (Spearman's), how much higher the second marks, kappa with quadratic weights (of continuous
    scores: Lin's concordance), the standard deviation of the differences, and the share of equal marks."""
    found: dict[str, float | None] = dict.fromkeys(("spearman", "mean_shift", "weighted_kappa", "sd", "equal"))
    if not len(a):
        return found
    differences = b - a
    shift = float(differences.mean())
    found |= {"mean_shift": shift, "equal": float((differences.abs() < EQUAL).mean())}
    if len(a) < 3:
        return found
    found["sd"] = float(differences.std())
    spread = float(a.var(ddof=0) + b.var(ddof=0)) + shift**2
    if a.nunique() > 1 and b.nunique() > 1:
        covariance = float(((a - a.mean()) * (b - b.mean())).mean())
        found |= {"spearman": float(a.rank().corr(b.rank())), "weighted_kappa": 2 * covariance / spread}
    return found


def _mass(records: Iterable[Record]) -> dict[str, dict[str, float]]:
    by_aspect: dict[str, list[float]] = {}
    for record in records:
        mass = info_of(record).get("mass")
        for aspect, value in mass.items() if isinstance(mass, Mapping) else ():
            if isinstance(value, int | float):
                by_aspect.setdefault(str(aspect), []).append(float(value))
    return {aspect: {"mean": fmean(values), "lowest": min(values)} for aspect, values in by_aspect.items()}


def _extremes(values: pd.Series, scale: Score) -> dict[str, float]:
    """The share of scores at each end that the scale has."""
    if values.empty or scale.higher_is_better is None:
        return {}
    near = NEAR * (scale.high - scale.low) if scale.low is not None and scale.high is not None else 0.0
    ends = {}
    if scale.low is not None:
        ends["lowest"] = float((values <= scale.low + near).mean())
    if scale.high is not None:
        ends["highest"] = float((values >= scale.high - near).mean())
    return ends


def _unchanged(
    state: State, table: pd.DataFrame, columns: Iterable[str], scales: Mapping[str, Score | None]
) -> dict[str, Any]:
    """What edits got that left their source as it was, or nearly, beside the mean of the others. A judge that gives
    them no less `likes_no_ops`."""
    said = {i: how for i, outcome in state.edits.items() if (how := unchanged(outcome.ok))}
    ids = list(said)
    if not ids:
        return {}
    same = table["id"].isin(ids)
    scores = {}
    for column in columns:
        given, others = table.loc[same, column].dropna(), table.loc[~same, column].dropna()
        scale = scales[column]
        direction = True if scale is None else scale.higher_is_better
        if given.empty or direction is None:
            continue
        mean, rest = float(given.mean()), float(others.mean()) if len(others) else None
        liked = rest is not None and (mean >= rest if direction else mean <= rest)
        scores[column] = {"n": len(given), "mean": mean, "others": rest, "likes_no_ops": liked}
    nearly = sum(how == NEARLY for how in said.values())
    return {"count": len(ids), "nearly": nearly, "ids": ids[:SHOWN], "scores": scores}


def unchanged(edit: Record | None) -> str:
    """UNCHANGED where the edited image equals its source pixel by pixel, NEARLY where none of the areas that the record
    compares changed by more than NO_CHANGE; "" where it did, or an older version made the record."""
    if edit is None:
        return ""
    if edit.get("unchanged"):
        return UNCHANGED
    change = edit.get("largest_change")
    return NEARLY if isinstance(change, int | float) and change <= NO_CHANGE else ""
