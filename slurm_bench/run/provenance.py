"""Where a run's numbers come from: code, packages, models, machine, and who makes its records."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from slurm_bench.config import Config, config_hash, identity, plugins_of
from slurm_bench.data.readers.fields import files_below
from slurm_bench.machine import package_versions, visible_gpus
from slurm_bench.run.by import by_content, contradictions, joint_mark, mark
from slurm_bench.run.durable import create_once, parse_line, write_atomic
from slurm_bench.run.layout import VERSION, RunDir
from slurm_bench.run.shapes import Provenance, fits

# What each plug-in says of itself, keyed `editor`, `scorers.<name>`. What the report needs of a scorer enters no mark:
# its `scores`, and its `protocol` and what it `asks`, of which the hashes do.
Models = Mapping[str, Mapping[str, Any]]
_FOR_REPORT = ("scores", "protocol", "asks")

TABLES = {".json", ".jsonl", ".csv", ".parquet", ".arrow", ".txt"}  # what readers of folders plan from


def provenance(run: RunDir, config: Config, models: Models) -> dict[str, Any]:
    plan = run.plan.read_bytes()
    facts = {
        "format": VERSION,
        "time": time.time(),
        "command": sys.argv,
        "git": git_state(Path(__file__)),
        "python": platform.python_version(),
        "packages": package_versions(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "gpus": [gpu.facts() for gpu in visible_gpus()],
        "data": data_stamp(config),
        "plan": {"samples": plan.count(b"\n"), "sha256": hashlib.sha256(plan).hexdigest()},
    }
    return facts | _made_by(config, models, {})


def data_stamp(config: Config) -> dict[str, int] | None:
    """What tells that the data file is still the one that was planned, or of a folder the tables and texts in it. None
    where there is none (any more)."""
    if not config.data.path:
        return None
    files = [path := Path(config.data.path)]
    if path.is_dir():
        files = [file for file in files_below(path, silent=True) if file.suffix.lower() in TABLES]
    facts = []
    for file in files:
        with suppress(OSError):
            facts.append(os.stat(file))
    if not facts:
        return None
    return {"bytes": sum(one.st_size for one in facts), "mtime_ns": max(one.st_mtime_ns for one in facts)}


def create_provenance(run: RunDir, config: Config, models: Models) -> dict[str, str]:
    """Note it for a new run; gives the plug-ins' marks."""
    create_once(run.provenance, _text(provenance(run, config, models)))
    return dict(read_provenance(run).get("by", {}))


def marks_of(config: Config, models: Models) -> dict[str, str]:
    """The plug-ins' marks in a run that isn't there yet."""
    return dict(_made_by(config, models, {})["by"])


def read_provenance(run: RunDir) -> dict[str, Any]:
    """Empty where there is none, or a damaged one. Raises OSError where the storage fails: what can't be read now is
    not nothing, and who goes on from it would write that."""
    try:
        facts: Any = parse_line(run.provenance.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return facts if fits(facts, Provenance) else {}


def write_provenance(run: RunDir, facts: Mapping[str, Any]) -> None:
    write_atomic(run.provenance, _text(facts))


def model_changes(run: RunDir, stored: Config, config: Config, models: Models) -> list[str]:
    """What the same plug-in with the same params says otherwise than when the run was begun: another commit, say."""
    before = read_provenance(run).get("models", {})
    return [
        f"{key}: {line}"
        for key in _same(stored, before, config, models)
        for line in contradictions(before.get(key, {}), models.get(key, {}))
    ]


def _same(stored: Config, before: Models, config: Config, models: Models) -> list[str]:
    """The keys of plug-ins that are what they were, but for where their files lie."""
    old, new = plugins_of(stored), plugins_of(config)
    return [
        key
        for key in new
        if key in old and by_content(old[key], before.get(key, {})) == by_content(new[key], models.get(key, {}))
    ]


def updated_provenance(run: RunDir, stored: Config, config: Config, models: Models) -> dict[str, Any]:
    """As it is to be where records are made by `config` from now on, with the marks in `by`. A plug-in that is what it
    was keeps its mark, also where more is known of it now."""
    facts = read_provenance(run)
    before = facts.get("models", {})
    kept = {
        key: facts["by"][key]
        for key in _same(stored, before, config, models)
        if key in facts.get("by", {}) and not contradictions(before.get(key, {}), models.get(key, {}))
    }
    if "rewriter" in (plugins_of(stored).keys() | plugins_of(config).keys()) - kept.keys():
        kept.pop("editor", None)
    new = facts | _made_by(config, models, kept)
    new["makers"] = facts.get("makers", {}) | new["makers"]
    return new


def git_state(file: Path) -> dict[str, Any] | None:
    """The revision that this file of ours runs from, and whether its checkout was changed since; None outside of one:
    an installation may lie in a checkout of something else."""
    git = ["git", "-C", str(file.parent)]
    if _output([*git, "ls-files", "--error-unmatch", file.name]) is None:
        return None
    revision = _output([*git, "rev-parse", "HEAD"])
    if revision is None:
        return None
    changes = _output([*git, "status", "--porcelain"])
    return {"revision": revision, "dirty": bool(changes)}


def _made_by(config: Config, models: Models, kept: Mapping[str, str]) -> dict[str, Any]:
    """The configured plug-ins and their marks; `makers` tells for a mark who it was, also after a change. `scores` has
    each scorer's ranges and directions, `protocols` the benchmarks' own protocols, `asks` what prompts are made
    from, so that a run is reported without its plug-ins."""
    scores, protocols, asks = (
        {key.removeprefix("scorers."): says[name] for key, says in models.items() if says.get(name) is not None}
        for name in _FOR_REPORT
    )
    models = {key: {n: fact for n, fact in says.items() if n not in _FOR_REPORT} for key, says in models.items()}
    by = {key: kept.get(key) or mark(plugin, models.get(key, {})) for key, plugin in plugins_of(config).items()}
    if "rewriter" in by and "editor" not in kept:
        by["editor"] = joint_mark(by["editor"], by["rewriter"])
    makers: dict[str, dict[str, Any]] = {
        by[key]: {"class_path": plugin.class_path, "params": plugin.params, "says": dict(models.get(key, {}))}
        for key, plugin in plugins_of(config).items()
    }
    if "rewriter" in by:
        makers[by["editor"]]["says"]["rewriter"] = by["rewriter"]
    said = {"config_hash": config_hash(config), "config": identity(config), "models": models, "by": by}
    return said | {"makers": makers, "scores": scores, "protocols": protocols, "asks": asks}


def _text(facts: Mapping[str, Any]) -> bytes:
    return (json.dumps(facts, indent=1, default=str) + "\n").encode()


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
