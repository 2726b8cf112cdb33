"""report.html: one run for a person to look at."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from slurm_bench.report.hours import hours_rows, hours_title
from slurm_bench.report.judges import judge_notes
from slurm_bench.report.markdown import counted
from slurm_bench.report.official_text import OFFICIAL_COLUMNS, OFFICIAL_NOTE, official_cells, official_facts
from slurm_bench.report.page.assemble import MOST_LISTED, Page
from slurm_bench.report.page.causes import causes
from slurm_bench.report.page.facts import for_a_paper, what_was_run
from slurm_bench.report.page.pictures import Show, link_from_report, pictures_of
from slurm_bench.report.page.plots import axis_over, histogram
from slurm_bench.report.page.samples import gallery_sample, rows_of, worst_first
from slurm_bench.report.page.timeline import KINDS, timeline
from slurm_bench.report.repeats import in_words
from slurm_bench.report.stand_ins import stand_ins_in_words
from slurm_bench.report.table import score_columns
from slurm_bench.run.hours import TaskHours
from slurm_bench.run.opened import Run
from slurm_bench.run.records import State

if TYPE_CHECKING:
    import pandas as pd

SORTS = (("worst", "worst first"), ("best", "best first"), ("plan", "as planned"), ("slow", "slowest edit first"))


@dataclass(frozen=True)
class Report:
    """A run and what was computed of it: all that its page is made of. `hours` has a row a task; `explained` says why
    something is missing, in lines."""

    run: Run
    state: State
    table: pd.DataFrame
    summary: Mapping[str, Any]
    provenance: Mapping[str, Any]
    hours: Sequence[TaskHours] = ()
    explained: Sequence[str] = ()


def run_page(report: Report) -> Page:
    run, state = report.run, report.state
    order = worst_first(report.table, report.summary["headline"], _higher_is_better(report))[:MOST_LISTED].tolist()
    return Page(
        template="report.html.j2",
        folder=run.folder.report,
        name="report",
        total=len(state.samples),
        order="worst",
        pictures=lambda most: [
            list(pictures_of(run.folder, sample, state.edits[sample.id].ok))
            for sample in (state.samples[position] for position in order[:most])
        ],
        link=partial(link_from_report, run.folder),
        gallery=lambda show, whole, listed: _gallery(report, show, sorted(order[:listed]), set(order[:whole])),
        facts=_facts(report),
    )


def _gallery(report: Report, show: Show, listed: Sequence[int], whole: set[int]) -> dict[str, Any]:
    """`listed` and `whole` are positions in the plan."""
    return {
        "headline": report.summary["headline"],
        "higherIsBetter": _higher_is_better(report),
        "scores": score_columns(report.table),
        "sorts": SORTS,
        "pair": ["source", "edited"],
        "samples": (
            gallery_sample(report.run, report.state, report.state.samples[position], row, show, position in whole)
            for position, row in zip(listed, rows_of(report.table, listed), strict=True)
        ),
    }


def _facts(report: Report) -> dict[str, Any]:
    config, summary, provenance = report.run.config, report.summary, report.provenance
    means = [row for kinds in summary["overall"].values() for row in kinds.values()]
    slices = [row for groups in summary["slices"].values() for row in groups.values()]
    rows = [*summary["categories"].values(), *slices, *means]
    values, scale = _values(report), _scale(report)
    ends = [scale.get("low"), scale.get("high")]
    if None in ends:
        ends = [end for group in values.values() if group for end in (min(group), max(group))]
    value_axis = axis_over(ends)
    groups = what_was_run(config, provenance, summary["edits_say"])
    return {
        "name": report.run.root.name,
        "config": config,
        "summary": summary,
        "provenance": provenance,
        "counted": counted,
        "groups": groups,
        "paper": for_a_paper(summary, provenance, groups),
        "axis": axis_over(row[key] for row in rows for key in ("mean", "ci_low", "ci_high")),
        "histograms": {name: histogram(group, value_axis) for name, group in values.items()} if value_axis else {},
        "causes": causes(summary["failures"]),
        "explained": report.explained,
        "judges": judge_notes(summary),
        "stand_ins": {score: stand_ins_in_words(score, found) for score, found in summary["stand_ins"].items()},
        "repeats": in_words(summary["repeats"]),
        "official": [
            {
                "heading": f"{found['about']['benchmark']} ({scorer})",
                "facts": official_facts(found["about"]),
                "rows": [official_cells(row) for row in found["rows"]],
            }
            for scorer, found in summary["official"].items()
        ],
        "official_columns": OFFICIAL_COLUMNS,
        "official_note": OFFICIAL_NOTE,
        "timeline": timeline(report.hours),
        "hours": hours_rows(summary["hours"]),
        "hours_title": hours_title(summary["hours"]),
        "kinds": KINDS,
    }


def _values(report: Report) -> dict[str, array[float]]:
    """The headline score's numbers, under "" of all samples, then by category."""
    score, table = report.summary["headline"], report.table
    if score not in table.columns:
        return {}
    found = {"": array("d")}
    for category, value in zip(table["category"], table[score], strict=True):
        if not math.isnan(value):
            found[""].append(value)
            found.setdefault(str(category), array("d")).append(value)
    return found


def _scale(report: Report) -> Mapping[str, Any]:
    """The headline score's, as its scorer declared it; {} where it didn't."""
    return report.summary["scales"].get(report.summary["headline"]) or {}


def _higher_is_better(report: Report) -> bool:
    return _scale(report).get("higher_is_better") is not False
