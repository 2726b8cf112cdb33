"""Who makes a record (law 14): a short mark of a plug-in's class, its params and what it says of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from slurm_bench.config import PluginConfig


def mark(plugin: PluginConfig, says: Mapping[str, Any]) -> str:
    """`says` is what the plug-in's `provenance` gave (model, commit, rubrics)."""
    known = {key: value for key, value in says.items() if value is not None}
    text = json.dumps([plugin.class_path, plugin.params, known], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


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
