"""A comparison on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from slurm_bench.data.text import printable
from slurm_bench.report.cost import cost_in_words
from slurm_bench.report.number import chance, number, span
from slurm_bench.report.stand_ins import stand_ins_in_words
from slurm_bench.terminal import print_table


def render(compared: Mapping[str, Any], console: Console) -> None:
    score = compared["score"]
    direction = {True: "higher is better", False: "lower is better", None: "neither way is better"}
    taken = "" if score["declared"] else ", as far as is known"
    _print(
        console,
        f"{score['name']} ({direction[score['higher_is_better']]}{taken}); differences are {compared['difference']}",
    )
    _print(console, f'"no difference" means: none is seen, and the whole interval lies within {compared["margin"]:.3g}')
    for row in compared["comparisons"]:
        console.print()
        _print(console, f"{row['other']} against {row['first']}: {row['words']}", style="bold")
        for line in [*row["not_comparable"], *row["cautions"]]:
            _print(console, f"  differs: {line}", style="yellow")
        for line in row["editors_differ_in"]:
            _print(console, f"  editors: {line}")
        print_table(console, _differences(row))
        for line in _tests(row, score["name"]):
            _print(console, line)
    if len(compared["comparisons"]) > 1:
        console.print()
        _print(console, "against the first", style="bold")
        print_table(console, _against_first(compared))
    console.print()
    _print(console, "ranking, over the samples that all have", style="bold")
    print_table(console, _ranking(compared["ranking"]))


def _differences(row: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in (
        "",
        "pairs",
        row["first"],
        row["other"],
        "difference",
        "95 % interval",
        "better/tie/worse",
        "p",
        "",
        "",
    ):
        table.add_column(escape(printable(name)), justify="left" if not name else "right")
    lines = [("all pairs", row, "p"), *((name, one, "p_holm") for name, one in row["categories"].items())]
    if row["failures_as_zero"]:
        counts_as = row["failures_as_zero"]["failure_counts_as"]
        lines.insert(1, (f"failures as {counts_as:g}", row["failures_as_zero"], "p"))
    for name, one, p in lines:
        table.add_row(
            escape(printable(name)),
            str(one["n"]),
            number(one["mean_first"]),
            number(one["mean_other"]),
            number(one["difference"], "+"),
            _interval(one),
            f"{one['wins']}/{one['ties']}/{one['losses']}",
            chance(one[p]),
            "Holm" if p == "p_holm" else "",
            one.get("verdict", ""),
        )
    return table


def _tests(row: Mapping[str, Any], score: str) -> Iterable[str]:
    tests = [
        ("sign-flip permutation", "p"),
        ("sign test", "p_sign"),
        ("Wilcoxon", "p_wilcoxon"),
        ("McNemar", "p_mcnemar"),
    ]
    yield "p by " + ", ".join(f"{name} {chance(row[key])}" for name, key in tests if row[key] is not None)
    if row["clusters"]:
        yield f"{row['clusters']} source images have these samples: tests and intervals count sources"
    if row["smallest_effect"] is not None:
        yield f"so many samples see a difference of {row['smallest_effect']:.3g} four times out of five"
    for name, found in row["stand_ins"].items():
        yield stand_ins_in_words(f"{score} in {name}", found)
    if row["left_out"]:
        yield "left out: " + ", ".join(f"{count} {why}" for why, count in row["left_out"].items())
    if row["seeds_left_out"]:
        counts = ", ".join(f"{count} in {name}" for name, count in row["seeds_left_out"].items())
        yield f"seeds without this score, left out of their samples' means: {counts}"
    if row["largest"]:
        found = ", ".join(f"{one['id']} {number(one['difference'], '+')}" for one in row["largest"])
        yield f"largest differences: {found}"
    yield from cost_in_words(row)
    if why := row.get("images", {}).get("no_lpips"):
        yield f"no LPIPS: {why}"


def _against_first(compared: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("run", "pairs", "difference", "95 % interval", "p (Holm)", "verdict"):
        table.add_column(name, justify="left" if name in ("run", "verdict") else "right")
    for row in compared["comparisons"]:
        cells = (str(row["n"]), number(row["difference"], "+"), _interval(row), chance(row["p_holm"]), row["verdict"])
        table.add_row(escape(printable(row["other"])), *cells)
    return table


def _ranking(rows: Iterable[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("run", "n", "mean", "95 % interval"):
        table.add_column(name, justify="left" if name == "run" else "right")
    for row in rows:
        table.add_row(escape(printable(row["run"])), str(row["n"]), number(row["mean"]), _interval(row))
    return table


def _interval(row: Mapping[str, Any]) -> str:
    return "–" if row["ci_low"] is None else span(row)


def _print(console: Console, text: str, style: str | None = None) -> None:
    console.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)
