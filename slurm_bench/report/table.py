"""The run as a table: one row a sample of the plan, whatever became of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slurm_bench.config import Config, nearest
from slurm_bench.data.text import printable
from slurm_bench.errors import UserError
from slurm_bench.run.records import Outcome, State
from slurm_bench.scorers.base import ANY, Score, declared_score, from_rows

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Declared = Mapping[str, Mapping[str, Score] | None]  # by scorer: what it declared of its scores, None if nothing

OK, ERROR, MISSING = "ok", "error", "missing"
FIXED = (
    "id",
    "category",
    "status",
    "error",
    "instruction",
    "rewritten",
    "seed",
    "image",
    "seconds",
    "sample",
    "repeat",
)
TEXTS = ("id", "category", "error", "instruction", "rewritten", "image", "sample")


def score_table(config: Config, state: State) -> pd.DataFrame:
    """Columns id, category, status, a column a score, error, instruction, seed, image (from the run folder) and
    seconds (of the edit); with a rewriter also rewritten, which the editor was given; where every sample has several
    seeds, also sample (the data's id) and repeat. What has no score has NaN there, an empty cell in the CSV: never a
    number. With several scorers a column is called `scorer.score`."""
    import numpy as np
    import pandas as pd

    samples, count = state.samples, len(state.samples)
    edits = [state.edits[sample.id] for sample in samples]

    def texts(values: Iterable[str]) -> pd.Series:
        """As Python's texts: pandas' own, with pyarrow, take no half of a character (a file name in an error, say)."""
        return pd.Series(np.fromiter(values, object, count), dtype=object)

    unscored = set(state.unscored())
    failures = texts((sample.id in unscored and state.failure(sample.id)) or "" for sample in samples)
    cells: dict[str, Any] = {
        "id": texts(sample.id for sample in samples),
        "category": texts(sample.category for sample in samples),
        "status": texts(
            (ERROR if failure else MISSING) if sample.id in unscored else OK
            for sample, failure in zip(samples, failures, strict=True)
        ),
        **_scores(config, state),
        "error": failures,
        "instruction": texts(sample.instruction for sample in samples),
    }
    if config.rewriter is not None:
        cells["rewritten"] = texts(rewritten_of(edit) for edit in edits)
    cells |= {
        "seed": np.fromiter((sample.seed for sample in samples), np.int64, count),
        "image": texts(edit.ok.get("image", "") if edit.ok else "" for edit in edits),
        "seconds": np.fromiter((edit.ok.get("seconds", np.nan) if edit.ok else np.nan for edit in edits), float, count),
    }
    if any(sample.sample for sample in samples):
        cells["sample"] = texts(sample.sample for sample in samples)
        cells["repeat"] = np.fromiter((sample.repeat for sample in samples), np.int64, count)
    return pd.DataFrame(cells, copy=False)


def _scores(config: Config, state: State) -> dict[str, np.ndarray]:
    """The numbers of each score column, NaN where a sample has none."""
    import numpy as np

    columns: dict[str, np.ndarray] = {}
    for name in config.scorers:
        outcomes, found = state.by_scorer().get(name, {}), dict[str, np.ndarray]()
        for position, sample in enumerate(state.samples):
            if (done := outcomes[sample.id].ok) is None:
                continue
            for score, value in done["scores"].items():
                if score not in found:
                    found[score] = columns[_column(name, score, config)] = np.full(len(state.samples), np.nan)
                found[score][position] = value
    return columns


def rewritten_of(edit: Outcome) -> str:
    """What this sample's instruction was rewritten to; "" where it wasn't, or nothing came of it."""
    record: Mapping[str, Any] = edit.ok or (edit.errors[-1] if edit.errors else {})
    rewrite = record.get("rewrite")
    return str(rewrite.get("text", "")) if isinstance(rewrite, Mapping) else ""


def as_cells(table: pd.DataFrame) -> pd.DataFrame:
    """The table as it is stored: whatever a text holds, every reader finds one row a sample, in one line."""
    return table.assign(
        **{name: [printable(str(text)) for text in table[name]] for name in TEXTS if name in table.columns}
    )


def score_columns(table: pd.DataFrame) -> list[str]:
    return [str(column) for column in table.columns if column not in FIXED]


def split_column(column: str, config: Config) -> tuple[str, str]:
    """The scorer and its score."""
    only = next(iter(config.scorers)) if len(config.scorers) == 1 else None
    if only is not None and column not in [f"{only}.{name}" for name in FIXED]:
        return only, column
    scorer, _, score = column.partition(".")
    return scorer, score


def scale_of(column: str, config: Config, declared: Declared) -> Score | None:
    """Range and direction, as the scorer declared them when the run was begun; None where it didn't."""
    scorer, score = split_column(column, config)
    return declared_score(declared.get(scorer), score)


def headline(config: Config, table: pd.DataFrame, declared: Declared) -> tuple[str | None, str]:
    """The score that the summary speaks of, and why that one. Unless it is configured: of the first scorer's scores
    that have a better direction the one that most samples have, and of several that as many have the first that the
    scorer declares, which is a judge's first aspect."""
    if config.headline is not None:
        column, found = column_of(config.headline, config, table, declared), score_columns(table)
        lacking = f", but no sample has it; {nearest(column, found)}" if found and column not in found else ""
        return column, f"as configured{lacking}"
    for name in config.scorers:
        own = [c for c in score_columns(table) if split_column(c, config)[0] == name]
        named = [_column(name, score, config) for score in declared.get(name) or {} if score != ANY]
        own = sorted(own, key=lambda c: named.index(c) if c in named else len(named)) or named
        scales = {column: scale_of(column, config, declared) for column in own}
        directed = [c for c, scale in scales.items() if scale is None or scale.higher_is_better is not None]
        if own:
            count = {c: int(table[c].notna().sum()) if c in table.columns else 0 for c in own}
            return max(directed or own, key=count.__getitem__), (
                f"the first score of the first scorer ('{name}') of those that most samples have; "
                "`headline` in the configuration names another"
            )
    return None, "there is no score"


def check_headline(config: Config, declared: Declared) -> None:
    """Before anything starts: is the configured headline a score that its scorer declares? One that doesn't name its
    scorer may be of any that declares none. Raises UserError."""
    known = {name: scores for name, scores in declared.items() if scores is not None and ANY not in scores}
    columns = _declared_columns(config, known)
    if config.headline is None or _named(config.headline, config, columns) in columns:
        return
    undeclared = declared.keys() - known
    may_be = "." not in config.headline and bool(undeclared)
    if not may_be and not any(config.headline.startswith(_column(name, "", config)) for name in undeclared):
        raise UserError(f"'headline': no scorer gives '{config.headline}'; {nearest(config.headline, columns)}")


def declared_in(provenance: Mapping[str, Any]) -> Declared:
    """What the scorers declared when the run was begun; {} in a run of an earlier version."""
    return {str(name): from_rows(rows) for name, rows in provenance.get("scores", {}).items()}


def column_of(said: str, config: Config, table: pd.DataFrame, declared: Declared) -> str:
    """The column of a score as a person names it."""
    return _named(said, config, [*score_columns(table), *_declared_columns(config, declared)])


def _named(said: str, config: Config, columns: Sequence[str]) -> str:
    """A score need not name its scorer: a second scorer doesn't take it from the first."""
    if said in columns:
        return said
    return next((column for name in config.scorers if (column := f"{name}.{said}") in columns), said)


def _declared_columns(config: Config, declared: Declared) -> list[str]:
    return [_column(name, score, config) for name, scores in declared.items() for score in scores or () if score != ANY]


def _column(scorer: str, score: str, config: Config) -> str:
    """A score may be called what it likes, but not take a fixed column's place."""
    return score if len(config.scorers) == 1 and score not in FIXED else f"{scorer}.{score}"
