"""What decides the results: a name for it, and how two configurations differ in it (law 10)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from slurm_bench.config.references import written
from slurm_bench.config.schema import IDENTITY, Config
from slurm_bench.config.text import to_yaml


def identity(config: Config) -> str:
    """What decides the results, as YAML; `gpus` and the like don't enter, nor what isn't there at all."""
    deciding = {key: value for key, value in written(config).items() if key in IDENTITY and value is not None}
    return to_yaml(deciding, sort_keys=True)


def config_hash(config: Config) -> str:
    """A short name for what decides the results: two configurations with one name make the same."""
    return hashlib.sha256(identity(config).encode()).hexdigest()[:16]


def differences(old: Config, new: Config, keys: Iterable[str] = IDENTITY) -> list[str]:
    """Lines `key: old → new`."""
    keys = tuple(keys)
    was, now = (_flat({k: v for k, v in written(c).items() if k in keys}) for c in (old, new))
    return [
        f"{key}: {was.get(key, '(not set)')!r} → {now.get(key, '(not set)')!r}"
        for key in sorted(was.keys() | now.keys())
        if was.get(key, "(not set)") != now.get(key, "(not set)")
    ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
