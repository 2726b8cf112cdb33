"""Strengths from judged pairs on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from slurm_bench.data.text import printable
from slurm_bench.terminal import print_table


def render(found: Mapping[str, Any], console: Console) -> None:
    table = _table(("run", "Elo", "95 % interval", "won/tied/lost", *found["dimensions"]))
    for row in found["runs"]:
        alone = [_with_interval(row["dimensions"][name]) for name in found["dimensions"]]
        games = f"{row['wins']}/{row['ties']}/{row['losses']}"
        table.add_row(escape(printable(row["run"])), _elo(row["elo"]), _interval(row), games, *alone)
    print_table(console, table)
    categories = found["runs"][0]["categories"]
    if len(categories) > 1:
        table = _table(("Elo by category", *(row["run"] for row in found["runs"])))
        for name in categories:
            table.add_row(escape(printable(name)), *(_with_interval(row["categories"][name]) for row in found["runs"]))
        print_table(console, table)
    _print(console, "1000 is the mean of these runs; 400 more is ten times the chance to win")
    _print(console, f"intervals are over {found['units']} source images")
    every = [one for row in found["runs"] for one in (row, *row["dimensions"].values(), *row["categories"].values())]
    if any(one["too_few"] for one in every):
        _print(console, "† of fewer than 10 source images: too few to trust the interval")
    for name, row in found["dimensions"].items():
        _print(console, f"{name}: {said_of(row)}")
    if found["left_out"]:
        _print(console, f"left out: {left_out(found)}")


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for n, name in enumerate(columns):
        table.add_column(escape(printable(name)), justify="right" if n else "left")
    return table


def said_of(row: Mapping[str, Any]) -> str:
    """How much was judged in one dimension, by whom, and what the orders said."""
    parts = [f"{row['judged']} pairs judged in both orders by {row['judge'] or 'its judge'}"]
    if row["judged"]:
        first, second = row["first_twice"], row["second_twice"]
        parts.append(
            f"the orders agree in {100 * row['agreed'] / row['judged']:.1f} %, else it's a tie: the one shown first "
            f"won twice in {first}, the one shown second in {second}"
        )
    counts = {"identical": "with identical images: ties", "unread": "unread", "missing": "not judged"}
    parts += [f"{row[key]} {what}" for key, what in counts.items() if row[key]]
    parts += [f"{count} questions: {why}" for why, count in row["problems"].items()]
    return "; ".join(parts)


def left_out(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {why}" for why, count in found["left_out"].items())


def _with_interval(row: Mapping[str, Any]) -> str:
    return _elo(row["elo"]) if row["ci_low"] is None else f"{_elo(row['elo'])} ({_interval(row)})"


def _elo(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _interval(row: Mapping[str, Any]) -> str:
    if row["ci_low"] is None:
        return "–"
    return f"{row['ci_low']:.0f} to {row['ci_high']:.0f}{' †' if row['too_few'] else ''}"


def _print(console: Console, text: str) -> None:
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
