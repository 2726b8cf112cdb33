"""A benchmark's own numbers in words: the same in report.md and on the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slurm_bench.report.number import interval, number

OFFICIAL_COLUMNS = (
    "number",
    "of",
    "official",
    "ours",
    "95 % interval",
    "failures as worst",
    "judged",
    "failed",
    "refused",
    "missing",
)
OFFICIAL_NOTE = (
    "Official: the benchmark's own mean, over what was judged. Ours: over samples (over categories where the official "
    "one is), with its interval; then with each that is missing, or failed in edit or judgement, as the worst value."
)


def official_facts(about: Mapping[str, Any]) -> dict[str, str]:
    """What must stand beside such a number."""
    samples = about["samples"]
    of = f" of the benchmark's {samples['benchmark']}" if samples["benchmark"] else ""
    told = {name.replace("_", " "): fact for name, fact in about.items() if name not in ("samples", "benchmark")}
    told["samples"] = f"{samples['planned']}{of}"
    return {name: str(fact) for name, fact in told.items() if fact is not None}


def official_cells(row: Mapping[str, Any]) -> list[str]:
    """In the order of `OFFICIAL_COLUMNS`."""
    name = row["name"] if row["official"] else f"{row['name']} (none of the benchmark's own)"
    of = [row["part"], row["subset"], row["group"]]
    if (seen := row["categories"]) and seen["benchmark"] and seen["judged"] < seen["benchmark"]:
        of.append(f"{seen['judged']} of {seen['benchmark']} categories")
    ours = row["ours"]
    counts = [str(row[key]) for key in ("judged", "failed", "refused", "missing")]
    means = [number(row["value"]), number(ours["mean"]), interval(ours), number(row["with_failures"])]
    return [name, ", ".join(part for part in of if part), *means, *counts]
