"""report.md: the summary for a person to read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from slurm_bench.config import Config
from slurm_bench.report.hours import hours_rows, hours_title
from slurm_bench.report.judges import judge_notes
from slurm_bench.report.number import interval, number
from slurm_bench.report.official_text import OFFICIAL_COLUMNS, OFFICIAL_NOTE, official_cells, official_facts
from slurm_bench.report.repeats import in_words
from slurm_bench.report.stand_ins import stand_ins_in_words

MOST_FAILURES = 200


def render(
    name: str,
    config: Config,
    summary: Mapping[str, Any],
    provenance: Mapping[str, Any],
    causes: Sequence[str] = (),
    rewritten: Sequence[str] = (),
) -> str:
    counts, rates = summary["counts"], summary["rates"]
    lines = [f"# {escape(name)}", "", *_what_ran(config, summary, provenance)]
    lines += ["", "| " + " | ".join(counts) + " |", "|" + "---:|" * len(counts)]
    lines += ["| " + " | ".join(str(value) for value in counts.values()) + " |", ""]
    lines += [f"{percent(rates['failure_rate'])} lack a score. Replies that couldn't be read: {rates['parse_failed']}."]
    lines += ["", "## By category", "", *_headline(summary), ""]
    lines += _rows("category", summary["categories"])
    lines += [
        "",
        "## Overall",
        "",
        "| mean | over | n | value | 95 % interval | interval by |",
        "|---|---|---:|---:|---:|---|",
    ]
    for over, means in summary["overall"].items():
        for kind, row in means.items():
            value = f"{number(row['mean'])} | {interval(row)} | {row['method'] or '–'}"
            lines.append(f"| {kind} | {counted(over, summary)} | {row['n']} | {value} |")
    if said := notes(summary):
        lines += ["", *said]
    lines += _official(summary)
    for fact, rows in summary["slices"].items():
        lines += ["", f"## By {escape(fact)}", "", *(_rows(fact, rows) if rows else ["No sample has it."])]
    lines += _all_scores(summary)
    lines += _health(summary)
    lines += _hours(summary)
    lines += _others(summary, provenance.get("makers", {}))
    lines += ["", "## Why something is missing", "", *(f"- {escape(cause)}" for cause in causes)] if causes else []
    lines += [*_failures(summary), *rewritten]
    lines += ["", "## Where it comes from", "", f"Configuration `{provenance.get('config_hash')}`", ""]
    lines += [f"- {package} {version}" for package, version in provenance.get("packages", {}).items()]
    for row in provenance.get("machines", []):
        gpu = f", {row['gpu']}, driver {row['driver']}" if row["gpu"] else ""
        lines.append(f"- node {escape(row['node'])}{gpu}")
    return "\n".join(lines) + "\n"


def _official(summary: Mapping[str, Any]) -> list[str]:
    """A benchmark's own numbers, under its own names, and what must stand beside them."""
    lines = []
    for scorer, found in summary["official"].items():
        lines += ["", f"## {escape(found['about']['benchmark'])} ({escape(scorer)})", ""]
        lines += [f"- {name}: {escape(str(fact))}" for name, fact in official_facts(found["about"]).items()]
        lines += ["", "| " + " | ".join(OFFICIAL_COLUMNS) + " |", "|---|---|" + "---:|" * (len(OFFICIAL_COLUMNS) - 2)]
        lines += ["| " + " | ".join(map(escape, official_cells(row))) + " |" for row in found["rows"]]
        lines += ["", OFFICIAL_NOTE]
    return lines


def _rows(of: str, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A table of the headline score, a row a group of samples."""
    lines = [
        f"| {escape(of)} | planned | scored | mean | 95 % interval | sd | median | failures as worst "
        "| failed or missing | unread |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        cells = (
            row["planned"],
            row["n"],
            number(row["mean"]),
            interval(row),
            number(row["sd"]),
            number(row["median"]),
            number(row["mean_failures_as_zero"]),
            percent(row["failure_rate"]),
            percent(row["parse_failure_rate"]),
        )
        lines.append(f"| {escape(name)} | " + " | ".join(str(cell) for cell in cells) + " |")
    return lines


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def counted(over: str, summary: Mapping[str, Any]) -> str:
    """What a mean is over, in words: a failure counts as the worst value of the score, which isn't always 0."""
    if over != "failures_as_zero":
        return over.replace("_", " ")
    worst = summary["failures_count_as"]
    return "failures not countable" if worst is None else f"failures as {worst:g}"


def escape(text: str) -> str:
    """Text from a dataset stays text: no markup, no new cell, no new line."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#!])", r"\\\1", text)


def _what_ran(config: Config, summary: Mapping[str, Any], provenance: Mapping[str, Any]) -> list[str]:
    """Two reports can be told apart by it."""
    models, git = provenance.get("models", {}), provenance.get("git") or {}
    rows = [("editor", config.editor.class_path, config.editor.params, models.get("editor", {}))]
    if config.rewriter is not None:
        rows.append(("rewriter", config.rewriter.class_path, config.rewriter.params, models.get("rewriter", {})))
    for name, scorer in config.scorers.items():
        rows.append((f"scorer {name}", scorer.class_path, scorer.params, models.get(f"scorers.{name}", {})))
    lines = ["| | class | params | what it says of itself |", "|---|---|---|---|"]
    for name, class_path, params, says in rows:
        known = {key: value for key, value in says.items() if value is not None}
        lines.append(f"| {escape(name)} | {escape(class_path)} | {_facts(params)} | {_facts(known)} |")
    for fact, values in summary["edits_say"].items():
        lines.append(f"| {escape(fact)} | | | {escape(', '.join(f'{value} ({n})' for value, n in values.items()))} |")
    lines += ["", f"Base seed {config.seed}."]
    if known_as := provenance.get("config_hash"):
        lines[-1] += f" Configuration `{known_as[:8]}`."
    if git:
        lines[-1] += f" slurm_bench at `{git['revision'][:12]}`{', with changes' if git.get('dirty') else ''}."
    return lines


def _facts(facts: Mapping[str, Any]) -> str:
    texts = (value if isinstance(value, str) else json.dumps(value, default=str) for value in facts.values())
    return escape(", ".join(f"{key}: {text}" for key, text in zip(facts, texts, strict=True))[:500])


def _headline(summary: Mapping[str, Any]) -> list[str]:
    name = summary["headline"]
    scale = summary["scales"].get(name)
    lines = [f"Score: **{escape(str(name))}** ({escape(summary['headline_rule'])})."]
    if scale:
        low, high = ("unbounded" if end is None else f"{end:g}" for end in (scale["low"], scale["high"]))
        better = {True: "higher is better", False: "lower is better", None: "neither way is better"}
        lines[0] += f" Scale {low} to {high}, {better[scale['higher_is_better']]}."
    worst = summary["failures_count_as"]
    if worst is None:
        said = "Failures can't be counted in a mean: the score has no worst value."
    else:
        said = f"A failure counts as {worst:g}, " + (
            "the worst value of the scale." if scale else "as its scorer declares no scale."
        )
    return [*lines, "", said]


def notes(summary: Mapping[str, Any]) -> list[str]:
    """What a reader of the intervals must know beside them."""
    rows = [*summary["categories"].values(), *(row for means in summary["overall"].values() for row in means.values())]
    lines = []
    if any(row["too_few"] and row["ci_low"] is not None for row in rows):
        lines.append(
            "† Of fewer than 10 samples (or source images), or mostly by a category of so few: too few to trust the "
            "interval of a skewed score."
        )
    if clusters := max((row["clusters"] or 0 for row in rows), default=0):
        repeats = summary["repeats"]
        if repeats and repeats["sources_planned"] == repeats["samples_planned"]:
            lines.append("Intervals count samples, not edits.")
        else:
            lines.append(
                f"Some samples share a source image ({clusters} sources): intervals count sources, not samples."
            )
    if found := summary["stand_ins"].get(summary["headline"]):
        lines.append(stand_ins_in_words(summary["headline"], found))
    return lines + in_words(summary["repeats"])


def _all_scores(summary: Mapping[str, Any]) -> list[str]:
    names = list(dict.fromkeys(name for row in summary["categories"].values() for name in row["scores"]))
    if len(names) < 2:
        return []
    lines = ["", "## Every score", "", "| category | " + " | ".join(map(escape, names)) + " |"]
    lines.append("|---|" + "---:|" * len(names))
    for category, row in summary["categories"].items():
        cells = [number(row["scores"][name]["mean"]) if name in row["scores"] else "–" for name in names]
        lines.append(f"| {escape(category)} | " + " | ".join(cells) + " |")
    said = [f"- {escape(stand_ins_in_words(score, found))}" for score, found in summary["stand_ins"].items()]
    return [*lines, *([""] if said else []), *said]


def _health(summary: Mapping[str, Any]) -> list[str]:
    lines = [f"- {escape(name)}, {escape(line)}" for name, found in judge_notes(summary).items() for line in found]
    return ["", "## The judges", "", *lines] if lines else []


def _hours(summary: Mapping[str, Any]) -> list[str]:
    if not summary["hours"]:
        return []
    (_, stages), *rows = hours_rows(summary["hours"])
    lines = ["", f"## {hours_title(summary['hours'])}", "", "| | " + " | ".join(map(escape, stages)) + " |"]
    lines.append("|---|" + "---:|" * len(stages))
    return lines + [f"| {escape(label)} | " + " | ".join(cells) + " |" for label, cells in rows]


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
    for row in summary["failures"][:MOST_FAILURES]:
        why = escape(row["why"][:300])
        lines.append(f"| {escape(row['id'][:80])} | {escape(row['category'])} | {row['status']} | {why} |")
    if (more := len(summary["failures"]) - MOST_FAILURES) > 0:
        lines += ["", f"And {more} more: all are in `scores.csv` and `summary.json`."]
    return lines
