"""The bench's results as a person reads them, and what they mean for a whole benchmark. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from slurm_bench.terminal import print_table

SAMPLES = (270, 1000)
BLANK = "–"
KERNELS = {"matmul": "matrix products", "other": "the rest"}


def forecast(results: Mapping[str, Any], gpus: int) -> list[dict[str, Any]]:
    """Seconds for a benchmark: the slowest task edits ceil(samples / gpus), then one GPU scores all. Loading the
    models, once a task, isn't in it."""
    score_ms = next((row["ms_from_files"] for row in results["scoring"] if row["mode"] == "expected"), None)
    return [
        {
            "samples": samples,
            "gpus": gpus,
            "profile": row["profile"],
            "steps": row["steps"],
            "edit_seconds": round(math.ceil(samples / gpus) * row["seconds"]),
            "score_seconds": None if score_ms is None else round(samples * score_ms / 1000),
        }
        for row in results["editing"]
        for samples in SAMPLES
    ]


def render(results: Mapping[str, Any], console: Console) -> None:
    machine = results["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in machine if name not in ("device", "memory_gib"))
    console.print(f"{machine['device']}; {versions}; size {results['size']}, random weights")
    rates = ", ".join(
        f"{kind} {state} {rate / 1e12:.0f}"
        for state, by_kind in results["ceilings"].items()
        for kind, rate in by_kind.items()
    )
    console.print(f"matrix products, TFLOP/s: {rates}\n")
    if results["editing"]:
        title = f"{results['model']}, one image (floor: its products at the cool ceiling; hot: at the sustained)"
        _print(console, title, _editing(results["editing"]))
    if results["batches"]:
        editor = results["batches"][0].get("editor", results["model"])
        _print(console, f"Batches, {editor} (× is to one by one)", _batches(results["batches"]))
    if results["scoring"]:
        _print(console, "Scoring, one sample of two images", _scoring(results["scoring"]))
    if any(row.get("kernels") for row in (*results["editing"], *results["scoring"])):
        _print(console, "One forward, milliseconds", kernels(results))
    if results["forecast"]:
        _print(console, f"A benchmark on {results['gpus']} GPUs, without loading", _forecast(results["forecast"]))


def render_run(results: Mapping[str, Any], console: Console) -> None:
    gpus = ", ".join(results["gpus"]) or "no GPU"
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    console.print(f"{gpus}; {versions}; size {results['size']}, random weights")
    what = f"{results['model']}, {results['samples']} samples of {results['steps']} steps, from typed to report"
    console.print(f"{what}: {results['seconds']:.1f} s by {results['executor']}\n")
    rows = [["process", "part", "at s", "s"]]
    for process in results["processes"]:
        name, begin, end = process["name"], process["begin"], process["end"]
        rows.append([name, "Python starts", f"{begin:.1f}", ""])
        rows += [["", part["name"], f"{part['begin']:.1f}", f"{part['seconds']:.1f}"] for part in process["parts"]]
        rows.append(["", "ends", BLANK if end is None else f"{end:.1f}", ""])
    _print(console, "Where it went; parts may lie within one another", rows, left=2)
    for why, times in results["failures"].items():
        console.print(f"failed {times} × before it came right: {why}", soft_wrap=True)


def render_memory(results: Mapping[str, Any], console: Console) -> None:
    machine = results["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in machine if name not in ("device", "memory_gib"))
    console.print(f"{machine['device']}; {versions}; size {results['size']}, random weights\n")
    headings = "cap GiB,profile,spared by,needs GiB,peak GiB,load s,image s,×,error,same image"
    body = []
    for row in results["rows"]:
        cap = BLANK if row["cap_gib"] is None else f"{row['cap_gib']:g}"
        if row["failed"]:
            body.append([cap, row["profile"], "(see below)", *[BLANK] * 7])
            continue
        numbers = (row["needed_gib"], row["peak_gib"], row["load_seconds"], row["seconds"], row["times"])
        cells = [number(value, digits) for value, digits in zip(numbers, (1, 1, 1, 2, 2), strict=True)]
        same = {True: "yes", False: "NO", None: BLANK}[row["same"]]
        body.append([cap, row["profile"], ", ".join(row["savings"]), *cells, number(row["error"], 4), same])
    title = (
        f"{results['model']} in less memory, an image of {results['steps']} steps; × is to {results['than']} uncapped"
    )
    _print(console, title, [headings.split(","), *body], left=3)
    for row in results["rows"]:
        if row["failed"]:
            console.print(f"{row['profile']}, {row['cap_gib'] or 'all'} GiB: {row['failed']}", soft_wrap=True)


def _editing(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    headings = "profile,steps,guided,s,floor s,×,× hot,text,denoise,decode,PNG,GiB,text first,first s,error,skipped"
    body = [
        [
            row["profile"],
            str(row["steps"]),
            "yes" if row["guidance"] else "no",
            f"{row['seconds']:.2f}",
            f"{row['floor_seconds']:.2f}",
            f"{row['seconds'] / row['floor_seconds']:.2f}",
            f"{row['seconds'] / row['sustained_floor_seconds']:.2f}",
            *(f"{row['parts'][part]:.2f}" for part in ("text", "denoise", "decode")),
            f"{row['png_seconds']:.2f}",
            number(row["peak_gib"], 1),
            number(row.get("peak_gib_text_first"), 1),
            f"{row['first_image_seconds']:.1f}",
            number(row.get("error"), 4),
            str(sum(row["cache_skips"].values())) if row["cache_skips"] else BLANK,
        ]
        for row in rows
    ]
    return [headings.split(","), *body]


def number(value: float | None, digits: int) -> str:
    return BLANK if value is None else f"{value:.{digits}f}"


def _batches(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    body = [
        [
            str(row["batch"]),
            f"{row['pixels'] ** 0.5:.0f}²",
            str(row["steps"]),
            f"{row['images_per_second']:.2f}",
            f"{row['times']:.2f}",
            number(row["peak_gib"], 1),
        ]
        for row in rows
    ]
    return [["batch", "size", "steps", "images/s", "×", "GiB"], *body]


def _scoring(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    body = [
        [
            row["mode"],
            str(row["aspects"]),
            row["profile"],
            str(row["tokens"]),
            *(f"{row[name]:.1f}" for name in ("ms_model_alone", "ms_with_preprocessing", "ms_from_files")),
            number(row.get("times_one"), 2),
            number(row["peak_gib"], 1),
        ]
        for row in rows
    ]
    headings = "mode,aspects,profile,tokens,model alone ms,with preprocessing ms,from files ms,× one aspect,GiB"
    return [headings.split(","), *body]


def kernels(results: Mapping[str, Any]) -> list[list[str]]:
    found = {row["profile"]: row["kernels"] for row in results["editing"] if row.get("kernels")}
    found |= {_judge(row): row["kernels"] for row in results["scoring"] if row.get("kernels")}
    names = list(next(iter(found.values())))
    return [
        ["", *(KERNELS.get(name, name) for name in names)],
        *([label, *(f"{ms[name]:g}" for name in names)] for label, ms in found.items()),
    ]


def _judge(row: Mapping[str, Any]) -> str:
    aspects, profile = row.get("aspects", 1), row.get("profile", "exact")
    more = [f"{aspects} aspects"] if aspects > 1 else []
    return ", ".join(["judge", row["mode"], *more, *([profile] if profile != "exact" else [])])


def _forecast(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    body = [
        [
            str(row["samples"]),
            row["profile"],
            str(row["steps"]),
            *map(_clock, (row["edit_seconds"], row["score_seconds"])),
        ]
        for row in rows
    ]
    return [["samples", "profile", "steps", "edit", "score"], *body]


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return BLANK
    return f"{seconds // 3600:.0f}:{seconds % 3600 // 60:02.0f}:{seconds % 60:02.0f}"


def _print(console: Console, title: str, rows: list[list[str]], left: int = 1) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for index, heading in enumerate(rows[0]):
        table.add_column(heading, justify="left" if index < left else "right")
    for row in rows[1:]:
        table.add_row(*row)
    print_table(console, table)
