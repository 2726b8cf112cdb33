"""What instructions were rewritten to, where the run has a rewriter: never silent, so both texts stand side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from slurm_bench.report.markdown import escape

# Of each text, and of the samples, report.md shows so many; scores.csv has all.
CHARACTERS, SAMPLES = 500, 200


def rewrite_lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """A section of report.md, from the score table's rows."""
    rows = list(rows)
    if not any("rewritten" in row for row in rows):
        return []
    lines = ["", "## Rewritten instructions", ""]
    lines += ["The editor was given the second text. The judge was told the first.", ""]
    lines += ["| id | instruction | rewritten |", "|---|---|---|"]
    for row in rows[:SAMPLES]:
        cells = (row["id"][:80], row["instruction"][:CHARACTERS], row["rewritten"][:CHARACTERS] or "–")
        lines.append("| " + " | ".join(map(escape, cells)) + " |")
    more = len(rows) - SAMPLES
    return lines + (["", f"And {more} more: all are in `scores.csv`."] if more > 0 else [])
