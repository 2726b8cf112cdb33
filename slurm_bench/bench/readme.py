"""`python -m slurm_bench.bench.readme`: the README's speed tables, made from the raw results that they name.

A table stands between `<!-- bench: TABLE of FILE -->` and `<!-- /bench -->`, FILE from the README's folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slurm_bench.bench.table import BLANK, kernels, number

MARKED = re.compile(r"(<!-- bench: (\w+) of (\S+) -->\n).*?(<!-- /bench -->)", re.DOTALL)


def filled(text: str, folder: Path) -> str:
    """`text` with its marked tables made anew."""

    def fill(found: re.Match[str]) -> str:
        head, table, file, end = found.groups()
        return f"{head}\n{markdown(TABLES[table](json.loads((folder / file).read_text())))}\n{end}"

    return MARKED.sub(fill, text)


def profiles(results: Mapping[str, Any]) -> list[list[str]]:
    """Seconds an image by profile and schedule. Memory is the first schedule's: the others take no more."""
    schedules = list(dict.fromkeys((row["steps"], row["guidance"]) for row in results["editing"]))
    by_profile: dict[str, dict[tuple[int, bool], Mapping[str, Any]]] = {}
    for row in results["editing"]:
        by_profile.setdefault(row["profile"], {})[row["steps"], row["guidance"]] = row
    headings = [f"{steps} steps, {'guidance' if guidance else 'no guidance'}" for steps, guidance in schedules]
    body = []
    for profile, rows in by_profile.items():
        seconds = [_seconds(rows[schedule]["seconds"]) if schedule in rows else BLANK for schedule in schedules]
        first = next(iter(rows.values()))
        memory = number(first["peak_gib"], 1)
        if (without := first.get("peak_gib_text_first")) is not None:
            memory += f"; {without:.1f} with `text_first`"
        body.append([f"`{profile}`", *seconds, memory, number(first.get("error"), 4)])
    return [["profile", *headings, "GPU memory, GiB", "error to float32"], *body]


def memory(results: Mapping[str, Any]) -> list[list[str]]:
    """What an edit took under each cap, beside the same without."""
    than = results["than"]
    body = [
        [
            BLANK if row["cap_gib"] is None else f"{row['cap_gib']:g}",
            f"`{row['profile']}`",
            ", ".join(f"`{saving}`" for saving in row["savings"]) or BLANK,
            number(row["peak_gib"], 1),
            number(row["load_seconds"], 1),
            number(row["seconds"], 2),
            number(row["times"], 2),
        ]
        for row in results["rows"]
    ]
    headings = ["cap, GiB", "profile", "spared by", "peak, GiB", "load, s", "image, s", f"times `{than}` without a cap"]
    return [headings, *body]


TABLES = {"profiles": profiles, "kernels": kernels, "memory": memory}


def markdown(rows: list[list[str]]) -> str:
    head, *body = (f"| {' | '.join(row)} |\n" for row in rows)
    return f"{head}|{'---|' * len(rows[0])}\n{''.join(body)}"


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 4 else f"{value:.2f}"


if __name__ == "__main__":
    readme = Path("README.md")
    readme.write_text(filled(readme.read_text("utf-8"), readme.parent), "utf-8")
