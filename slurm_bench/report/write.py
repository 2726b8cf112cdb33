"""The report's files, made from the plan and the records alone; they can be deleted and made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slurm_bench.config import Config
from slurm_bench.report.markdown import interval, number, render
from slurm_bench.report.summary import summarize
from slurm_bench.report.table import score_table
from slurm_bench.run.durable import write_atomic
from slurm_bench.run.layout import RunDir
from slurm_bench.run.records import State


def write_report(run: RunDir, config: Config, state: State) -> dict[str, Any]:
    """summary.json, scores.csv and report.md; gives the summary."""
    table = score_table(config, state)
    summary = summarize(config, state, table)
    csv = table.to_csv(index=False, lineterminator="\n")
    write_atomic(run.report / "scores.csv", csv.encode("utf-8", "replace"))
    write_atomic(run.report / "summary.json", (json.dumps(summary, indent=1, allow_nan=False) + "\n").encode())
    text = render(run.root.name, config, summary, read_provenance(run.provenance))
    write_atomic(run.report / "report.md", text.encode("utf-8", "replace"))
    return summary


def read_provenance(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return {}


def print_summary(run: RunDir) -> None:
    """The numbers, on stdout."""
    summary = json.loads((run.report / "summary.json").read_bytes())
    print(f"\n{summary['headline'] or 'no score'} by category (mean, 95 % interval, scored of planned)")
    for name, row in summary["categories"].items():
        print(f"  {name:15} {number(row['mean'])}  {interval(row):18} {row['n']} of {row['planned']}")
    for over, means in summary["overall"].items():
        micro, macro = (number(means[kind]["mean"]) for kind in ("micro", "macro"))
        print(f"  {over.replace('_', ' '):18} micro {micro}  macro {macro}")
    print("  " + ", ".join(f"{value} {name}" for name, value in summary["counts"].items()))
    print(f"report  {run.report / 'report.md'}")
