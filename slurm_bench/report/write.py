"""The report's files, made from the plan and the records alone; they can be deleted and made again."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slurm_bench.data.text import printable
from slurm_bench.machine import give_back_freed, without_collection
from slurm_bench.report.markdown import counted, notes, render
from slurm_bench.report.number import interval, number
from slurm_bench.report.page.assemble import write_page, write_single_file
from slurm_bench.report.page.run_page import Report, run_page
from slurm_bench.report.people import people_say
from slurm_bench.report.rewrites import rewrite_lines
from slurm_bench.report.sources import source_numbers
from slurm_bench.report.summary import summarize
from slurm_bench.report.table import as_cells, declared_in, score_table
from slurm_bench.run.attempts import each_attempt
from slurm_bench.run.durable import write_atomic, writing
from slurm_bench.run.hours import by_stage, hours_of
from slurm_bench.run.journal import read_journals
from slurm_bench.run.layout import RunDir
from slurm_bench.run.opened import Run
from slurm_bench.run.provenance import read_provenance, write_provenance
from slurm_bench.run.records import State
from slurm_bench.run.timeline import read_timeline

if TYPE_CHECKING:
    import pandas as pd

# Rows of the table that are written at a time.
PART = 20_000


def import_ahead() -> None:
    """In a thread, while others are at work: what a report imports where it needs it, which takes it a second."""

    def load() -> None:
        with suppress(Exception):  # the report meets it again
            for name in ("pandas", "scipy.stats", "jinja2"):
                import_module(name)

    threading.Thread(target=load, name="import-ahead", daemon=True).start()


@without_collection()
def write_report(
    run: Run,
    state: State,
    causes: Sequence[str] = (),
    single_file: bool = False,
    people: Mapping[str, float] | None = None,
    width: float | None = None,
) -> dict[str, Any]:
    """summary.json, hours.json, scores.csv (scores.parquet too, where pyarrow is), report.md and report.html, and where
    asked for the page as one file; gives the summary. `causes` say why something is missing, in lines;
    `people` has people's marks by sample id, and `width` is the interval's that their mean shall have."""
    run.folder.check_there()
    folder = run.folder.report
    provenance = _provenance_with_machines(run.folder)
    # Not among the numbers: these are made from plan and records alone (law 1), hours from the tasks' logs. Before
    # the table is there, as they need room.
    hours = hours_of(each_attempt(run.folder), read_timeline(run.folder), run.folder)
    sources, declared = source_numbers(state), declared_in(provenance)
    give_back_freed()
    table = score_table(run.config, state)
    summary = summarize(run.config, state, table, provenance, sources)
    summary["people"] = people_say(people or {}, width, table, sources, run.config, declared)
    give_back_freed()
    _write_cells(folder, table)
    write_atomic(folder / "summary.json", _json(summary))
    summary["hours"] = {stage: found.as_json() for stage, found in by_stage(hours, state).items()}
    write_atomic(folder / "hours.json", _json(summary["hours"]))
    text = render(run.root.name, run.config, summary, provenance, causes, rewrite_lines(table))
    write_atomic(folder / "report.md", text.encode("utf-8", "replace"))
    page = run_page(Report(run, state, table, summary, provenance, hours, causes))
    write_page(page)
    if single_file:
        write_single_file(page)
    return summary


def _write_cells(folder: Path, table: pd.DataFrame) -> None:
    """A part at a time: of a million samples the texts take 200 MB, and each form that they pass through as much."""
    with ExitStack() as files:
        csv = files.enter_context(writing(folder / "scores.csv"))
        parquet = files.enter_context(_parquet(folder / "scores.parquet")) if find_spec("pyarrow") else None
        for start in range(0, max(len(table), 1), PART):
            cells = as_cells(table[start : start + PART])
            csv.write(cells.to_csv(None, index=False, header=not start, lineterminator="\n").encode(errors="replace"))
            if parquet is not None:
                parquet(cells)


@contextmanager
def _parquet(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """What adds a group of rows to the file."""
    import pyarrow
    import pyarrow.parquet

    writer: Any = None

    def add(cells: pd.DataFrame) -> None:
        nonlocal writer
        rows = pyarrow.Table.from_pandas(cells, preserve_index=False)
        writer = writer or pyarrow.parquet.ParquetWriter(file, rows.schema)
        writer.write_table(rows)

    with writing(path) as file:
        yield add
        writer.close()


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def _provenance_with_machines(run: RunDir) -> dict[str, Any]:
    """Only now is it known which nodes and GPUs did the work. Where there is none, or a damaged one, it is left so: it
    can't be made again from the records."""
    provenance = read_provenance(run)
    ends = read_journals(run, "edit") + read_journals(run, "score")
    machines: set[tuple[str, str | None, str | None]] = {
        (end.node, gpu["name"], gpu["driver"]) for end in ends for gpu in end.gpus
    }
    machines |= {(end.node, None, None) for end in ends if not end.gpus}
    rows = sorted(machines, key=str)
    told = [dict(zip(("node", "gpu", "driver"), row, strict=True)) for row in rows]
    if provenance and provenance.get("machines") != told:
        write_provenance(run, {**provenance, "machines": told})
    return {**provenance, "machines": told}


def print_summary(run: RunDir) -> None:
    """The numbers, on stdout."""
    summary = json.loads((run.report / "summary.json").read_bytes())
    print(f"\n{summary['headline'] or 'no score'} by category (mean, 95 % interval, scored of planned)")
    for name, row in summary["categories"].items():
        print(f"  {printable(name):15} {number(row['mean'])}  {interval(row):18} {row['n']} of {row['planned']}")
    for over, means in summary["overall"].items():
        micro, macro = (number(means[kind]["mean"]) for kind in ("micro", "macro"))
        print(f"  {counted(over, summary):18} micro {micro}  macro {macro}")
    print("  " + ", ".join(f"{value} {name}" for name, value in summary["counts"].items()))
    if summary["counts"]["scored"] and not any(row["n"] for row in summary["categories"].values()):
        print(f"  {summary['headline']}: {summary['headline_rule']}")
    for note in notes(summary):
        print(f"  {note}")
    print(f"report  {run.report / 'report.html'}")
