"""What was run, so that two reports can be told apart, and the words that a paper needs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from slurm_bench.config import Config
from slurm_bench.report.markdown import counted
from slurm_bench.report.number import number, span

Facts = dict[str, str]


def what_was_run(
    config: Config, provenance: Mapping[str, Any], edits_say: Mapping[str, Mapping[str, int]]
) -> dict[str, Facts]:
    """Groups of facts under a heading each, in the order in which people ask for them. `edits_say` has what the editor
    noted of its edits, and of how many: {fact: {value: count}}."""
    said = {fact: ", ".join(f"{value} ({n})" for value, n in by.items()) for fact, by in edits_say.items()}
    groups = {"Editor": _plugin("editor", config.editor, provenance) | said}
    if config.rewriter is not None:
        groups["Rewriter"] = _plugin("rewriter", config.rewriter, provenance)
    for name, scorer in config.scorers.items():
        groups[f"Scorer {name}"] = _plugin(f"scorers.{name}", scorer, provenance)
    plan, git = provenance.get("plan", {}), provenance.get("git") or {}
    groups["Data"] = _told(
        {
            "reader": config.data.reader,
            "path": config.data.path,
            "categories": config.data.categories,
            "limit": config.data.limit,
            "options": config.data.options or None,
            "samples": plan.get("samples"),
            "plan sha256": plan.get("sha256"),
        }
    )
    changed = " with changes that are not committed" if git.get("dirty") else ""
    groups["Run"] = _told(
        {
            "base seed": config.seed,
            "repeats": config.repeats,
            "configuration": provenance.get("config_hash"),
            "begun": _day(provenance.get("time")),
            "slurm_bench": provenance.get("packages", {}).get("slurm_bench"),
            "git": f"{git['revision']}{changed}" if git.get("revision") else None,
        }
    )
    return groups


def for_a_paper(summary: Mapping[str, Any], provenance: Mapping[str, Any], groups: Mapping[str, Facts]) -> str:
    """One paragraph to paste: what was measured, on what, by which code, and the number with its interval."""
    counts = summary["counts"]
    what = f"{counts['planned']} samples"
    if repeats := summary["repeats"]:
        what = f"{repeats['samples_planned']} samples under {repeats['seeds_planned']} seeds each"
    data = f"{what} ({_listed(groups['Data'], skip=('samples',))})"
    said = [f"We edited {data} with {_listed(groups['Editor'])}."]
    if "Rewriter" in groups:
        said.append(f"Before, each instruction was rewritten by {_listed(groups['Rewriter'])}.")
    for heading, facts in groups.items():
        if heading.startswith("Scorer "):
            said.append(f"{heading.replace('Scorer', 'Scores named', 1)} come from {_listed(facts)}.")
    for over, means in summary["overall"].items():
        for kind, row in means.items():
            if row["mean"] is not None:
                within = f", 95 % interval {span(row)}" if row["ci_low"] is not None else ""
                what = f"{kind} mean of {summary['headline']}, {counted(over, summary)}"
                said.append(f"The {what}: {number(row['mean'])} (n = {row['n']}{within}).")
    said.append(
        f"{counts['failed']} {'edits' if repeats else 'samples'} failed and {counts['missing']} have no record."
    )
    packages = ", ".join(f"{name} {version}" for name, version in provenance.get("packages", {}).items())
    said.append(f"Code and settings: {_listed(groups['Run'])}. Packages: {packages}.")
    hardware = sorted(
        {f"{row['gpu']} (driver {row['driver']})" for row in provenance.get("machines", []) if row["gpu"]}
    )
    said += [f"GPUs: {', '.join(hardware)}."] if hardware else []
    return " ".join(said)


def _plugin(key: str, plugin: Any, provenance: Mapping[str, Any]) -> Facts:
    """The class, what it says of itself (model, commit, rubrics), its params."""
    says = provenance.get("models", {}).get(key, {})
    params = {key: value for key, value in plugin.params.items() if key not in says}
    return _told({"class": plugin.class_path, **_renamed(says), **params, "mark": provenance.get("by", {}).get(key)})


def _renamed(says: Mapping[str, Any]) -> dict[str, Any]:
    """A plug-in's own `class` is the model's."""
    return {("model class" if key == "class" else key.replace("_", " ")): value for key, value in says.items()}


def _told(facts: Mapping[str, Any]) -> Facts:
    """What is known, as text."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for key, value in facts.items()
        if value not in (None, "", [])
    }


def _listed(facts: Facts, skip: tuple[str, ...] = ()) -> str:
    return ", ".join(value if key == "class" else f"{key} {value}" for key, value in facts.items() if key not in skip)


def _day(seconds: float | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
