"""What instructions were rewritten to, where the run has a rewriter: never silent, so both texts stand side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slurm_bench.report.markdown import escape

if TYPE_CHECKING:
    import pandas as pd

# Of each text, and of the samples, report.md shows so many; scores.csv has all.
CHARACTERS, SAMPLES = 500, 200


def rewrite_lines(table: pd.DataFrame) -> list[str]:
    """A section of report.md, from the score table."""
    if "rewritten" not in table.columns:
        return []
    lines = ["", "## Rewritten instructions", ""]
    lines += ["The editor was given the second text. The judge was told the first.", ""]
    lines += ["| id | instruction | rewritten |", "|---|---|---|"]
    for row in table[:SAMPLES].to_dict("records"):
        cells = (row["id"][:80], row["instruction"][:CHARACTERS], row["rewritten"][:CHARACTERS] or "–")
        lines.append("| " + " | ".join(map(escape, cells)) + " |")
    more = len(table) - SAMPLES
    return lines + (["", f"And {more} more: all are in `scores.csv`."] if more > 0 else [])
