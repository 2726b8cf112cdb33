"""What the gallery knows of each sample, as plain JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

from slurm_bench.report.health import unchanged
from slurm_bench.report.page.pictures import Show, pictures_of
from slurm_bench.report.table import OK, score_columns
from slurm_bench.run.manifest import info_of
from slurm_bench.run.opened import Run
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import Outcome, State

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

MOST_WORDS = 20_000  # characters of one judge's reply; the records have it whole


def worst_first(table: pd.DataFrame, headline: str | None, higher_is_better: bool) -> np.ndarray:
    """The rows' positions: samples without a score, then by the headline score, then those that lack this score."""
    import numpy as np

    values = table[headline].to_numpy(float) if headline in table.columns else np.full(len(table), np.nan)
    badness = values if higher_is_better else -values
    return np.argsort(np.where(table["status"] != OK, -np.inf, badness), kind="stable")  # NaN comes last


def gallery_sample(
    run: Run, state: State, sample: Sample, row: Mapping[str, Any], show: Show, whole: bool
) -> dict[str, Any]:
    """`row` is the sample's of the score table. What is not `whole` lacks the long texts: of a hundred thousand samples
    they would be most of what a browser has to read."""
    edit, scores = state.edits[sample.id], state.scores[sample.id]
    edited = edit.ok
    known = {
        "id": sample.id,
        "category": sample.category,
        "status": row["status"],
        "error": row["error"],
        "instruction": sample.instruction,
        **({"rewritten": row["rewritten"]} if row.get("rewritten") else {}),
        "seed": sample.seed,
        "scores": {name: row[name] for name in row["scores"] if not math.isnan(row[name])},
        "flags": flags_of(edit, scores),
        "seconds": _seconds(edit, scores),
        "pictures": [show(picture) for picture in pictures_of(run.folder, sample, edited)],
    }
    if not whole:
        return known
    said = [said_of(name, outcome) for name, outcome in scores.items()]
    facts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in sample.facts.items()}
    told = {**facts, "description": sample.description, "rationale": sample.rationale}
    sides = [edited.get("width"), edited.get("height")] if edited else [None]
    return known | {
        "size": sides if all(sides) else None,
        "told": told,
        "said": [words for words in said if words is not None],
    }


def rows_of(table: pd.DataFrame, positions: Sequence[int]) -> Iterator[dict[str, Any]]:
    """What the gallery shows of these rows of the table, each with the names of its score columns under `scores`."""
    names = score_columns(table)
    shown = [name for name in ("status", "error", "rewritten", *names) if name in table.columns]
    columns = {**{name: table[name].iloc[positions].tolist() for name in shown}, "scores": repeat(names)}
    return (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=False))


def flags_of(edit: Outcome, scores: Mapping[str, Outcome]) -> list[str]:
    found = [same] if (same := unchanged(edit.ok)) else []
    cut = tried_again = False
    for outcome in (edit, *scores.values()):
        if (record := outcome.ok) is not None:
            cut = cut or bool(info_of(record).get("prompt_cut"))
            tried_again = tried_again or bool(outcome.errors)
    return found + ["prompt cut"] * cut + ["tried again"] * tried_again


def _seconds(edit: Outcome, scores: Mapping[str, Outcome]) -> dict[str, float]:
    spent = {"edit": edit, **scores}
    told = {name: o.ok.get("seconds") for name, o in spent.items() if o.ok is not None}
    return {name: seconds for name, seconds in told.items() if seconds is not None}


def said_of(name: str, outcome: Outcome) -> dict[str, str] | None:
    """A judge's reply, also one that no score could be read from; None where it said nothing."""
    record = _last(outcome)
    if not record.get("raw"):
        return None
    return {"scorer": name, "raw": shortened(str(record["raw"])), "parse": str(record.get("parse", "ok"))}


def shortened(words: str) -> str:
    more = f"\n… and {len(words) - MOST_WORDS} characters more" if len(words) > MOST_WORDS else ""
    return words[:MOST_WORDS] + more


def _last(outcome: Outcome) -> Mapping[str, Any]:
    return outcome.ok or (outcome.errors[-1] if outcome.errors else {})
