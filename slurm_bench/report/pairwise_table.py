"""Strengths from judged pairs on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from slurm_bench.data.text import printable


def render(found: Mapping[str, Any], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("run", "Elo", "95 % interval", "won/tied/lost", *found["dimensions"]):
        table.add_column(escape(printable(name)), justify="left" if name == "run" else "right")
    for row in found["runs"]:
        alone = [_elo(row["dimensions"][name]) for name in found["dimensions"]]
        games = f"{row['wins']}/{row['ties']}/{row['losses']}"
        table.add_row(escape(printable(row["run"])), _elo(row["elo"]), _interval(row), games, *alone)
    console.print(table)
    _print(console, "1000 is the mean of these runs; 400 more is ten times the chance to win")
    _print(console, f"intervals are over {found['units']} source images")
    if any(row["too_few"] for row in found["runs"]):
        _print(console, "† of fewer than 10 source images: too few to trust the interval")
    for name, row in found["dimensions"].items():
        _print(console, f"{name}: {_said(row)}")
    if found["left_out"]:
        _print(console, "left out: " + ", ".join(f"{count} {why}" for why, count in found["left_out"].items()))


def _said(row: Mapping[str, Any]) -> str:
    parts = [f"{row['judged']} pairs judged in both orders by {row['judge'] or 'its judge'}"]
    if row["judged"]:
        first, second = row["first_twice"], row["second_twice"]
        parts.append(
            f"the orders agree in {100 * row['agreed'] / row['judged']:.1f} %, else it's a tie: the one shown first "
            f"won twice in {first}, the one shown second in {second}"
        )
    counts = {"identical": "with identical images: ties", "unread": "unread", "missing": "not judged"}
    parts += [f"{row[key]} {what}" for key, what in counts.items() if row[key]]
    return "; ".join(parts)


def _elo(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _interval(row: Mapping[str, Any]) -> str:
    if row["ci_low"] is None:
        return "–"
    return f"{row['ci_low']:.0f} to {row['ci_high']:.0f}{' †' if row['too_few'] else ''}"


def _print(console: Console, text: str) -> None:
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
