"""Who makes a record (law 14): a short mark of a plug-in's class, its params and what it says of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from slurm_bench.config import Config, PluginConfig


def mark(plugin: PluginConfig, says: Mapping[str, Any]) -> str:
    """`says` is what the plug-in's `provenance` gave (model, commit, rubrics)."""
    known = {key: value for key, value in says.items() if value is not None}
    text = json.dumps([plugin.class_path, by_content(plugin, says).params, known], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def by_content(plugin: PluginConfig, says: Mapping[str, Any]) -> PluginConfig:
    """Less the parameters that name a file whose content the plug-in tells (`rubrics` by a `rubrics_sha256`): the same
    file in another place is no other."""
    params = {name: value for name, value in plugin.params.items() if says.get(f"{name}_sha256") is None}
    return replace(plugin, params=params)


def config_by_content(config: Config, models: Mapping[str, Mapping[str, Any]]) -> Config:
    """The configuration with each of its plug-ins `by_content`. `models` is what each says of itself, by its key."""
    return replace(
        config,
        editor=by_content(config.editor, models.get("editor", {})),
        rewriter=config.rewriter and by_content(config.rewriter, models.get("rewriter", {})),
        scorers={name: by_content(s, models.get(f"scorers.{name}", {})) for name, s in config.scorers.items()},
    )


def contradictions(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a plug-in says of itself now and said otherwise before. What wasn't known (a commit before the download)
    contradicts nothing."""
    return [
        f"{key}: {before[key]!r} → {value!r}"
        for key, value in now.items()
        if value is not None and before.get(key) is not None and before[key] != value
    ]


def joint_mark(editor: str, rewriter: str) -> str:
    """Who makes an edit whose instruction was rewritten: both."""
    return hashlib.sha256(f"{editor} {rewriter}".encode()).hexdigest()[:12]
