"""report.md: the summary for a person to read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from slurm_bench.config import Config


def render(
    name: str,
    config: Config,
    summary: Mapping[str, Any],
    provenance: Mapping[str, Any],
    causes: Sequence[str] = (),
) -> str:
    counts = summary["counts"]
    lines = [f"# {escape(name)}", ""]
    lines += [f"Editor `{config.editor.class_path}`, scored by {_scorers(config)}. Base seed {config.seed}."]
    lines += ["", "| " + " | ".join(counts) + " |", "|" + "---:|" * len(counts)]
    lines += ["| " + " | ".join(str(value) for value in counts.values()) + " |", ""]
    lines += [
        "## By category",
        "",
        f"Score: **{escape(str(summary['headline']))}**; intervals are 95 % bootstrap over samples.",
        "",
    ]
    lines += [
        "| category | planned | scored | mean | 95 % interval | failures as zero |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for category, row in summary["categories"].items():
        cells = (
            row["planned"],
            row["n"],
            number(row["mean"]),
            interval(row),
            number(row["mean_failures_as_zero"]),
        )
        lines.append(f"| {escape(category)} | " + " | ".join(str(cell) for cell in cells) + " |")
    lines += ["", "## Overall", "", "| mean | over | n | value | 95 % interval |", "|---|---|---:|---:|---:|"]
    for over, means in summary["overall"].items():
        for kind, row in means.items():
            value = f"{number(row['mean'])} | {interval(row)}"
            lines.append(f"| {kind} | {over.replace('_', ' ')} | {row['n']} | {value} |")
    lines += _all_scores(summary)
    lines += _others(summary, provenance.get("makers", {}))
    lines += ["", "## Why something is missing", "", *(f"- {escape(cause)}" for cause in causes)] if causes else []
    lines += _failures(summary)
    lines += ["", "## Where it comes from", "", f"Configuration `{provenance.get('config_hash')}`", ""]
    lines += [f"- {package} {version}" for package, version in provenance.get("packages", {}).items()]
    for row in provenance.get("machines", []):
        gpu = f", {row['gpu']}, driver {row['driver']}" if row["gpu"] else ""
        lines.append(f"- node {escape(row['node'])}{gpu}")
    return "\n".join(lines) + "\n"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def interval(row: Mapping[str, Any]) -> str:
    return "–" if row["ci_low"] is None else f"{row['ci_low']:.3f} to {row['ci_high']:.3f}"


def escape(text: str) -> str:
    """Text from a dataset stays text: no markup, no new cell, no new line."""
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#!])", r"\\\1", text)


def _scorers(config: Config) -> str:
    return ", ".join(f"`{scorer.class_path}` ({name})" for name, scorer in config.scorers.items())


def _all_scores(summary: Mapping[str, Any]) -> list[str]:
    names = list(dict.fromkeys(name for row in summary["categories"].values() for name in row["scores"]))
    if len(names) < 2:
        return []
    lines = ["", "## Every score", "", "| category | " + " | ".join(map(escape, names)) + " |"]
    lines.append("|---|" + "---:|" * len(names))
    for category, row in summary["categories"].items():
        cells = [number(row["scores"][name]["mean"]) if name in row["scores"] else "–" for name in names]
        lines.append(f"| {escape(category)} | " + " | ".join(cells) + " |")
    return lines


def _others(summary: Mapping[str, Any], makers: Mapping[str, Any]) -> list[str]:
    """What other plug-ins than the configured ones made is in the run, and in none of its numbers (law 14)."""
    if not summary["others"]:
        return []
    lines = ["", "## Not counted", ""]
    for row in summary["others"]:
        kind, maker = ("editor" if row["stage"] == "edit" else f"scorer ({row['plugin']})"), makers.get(row["by"], {})
        who = f": {maker['class_path']} {maker['params']}" if maker else ""
        lines.append(f"- {row['records']} by another {kind} ({row['by']}{escape(who)})")
    return lines


def _failures(summary: Mapping[str, Any]) -> list[str]:
    if not summary["failures"]:
        return []
    lines = ["", "## Without a score", "", "| id | category | status | why |", "|---|---|---|---|"]
    for row in summary["failures"]:
        why = escape((row["error"] or "no record: its task ended before it")[:300])
        lines.append(f"| {escape(row['id'][:80])} | {escape(row['category'])} | {row['status']} | {why} |")
    return lines
