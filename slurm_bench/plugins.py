"""`class_path` and `params` → an object. Any importable module will do, the current folder's too."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from typing import Any

from slurm_bench.config import Config, PluginConfig, nearest
from slurm_bench.errors import UserError


def import_name(dotted: str, key: str) -> Any:
    """What `package.module.name` names. Raises UserError that names `key` and the nearest right name."""
    module_name, _, name = dotted.rpartition(".")
    if not module_name:
        raise UserError(f"'{key}': '{dotted}' is not package.module.Name")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UserError(f"'{key}': cannot import {module_name}: {type(error).__name__}: {error}") from None
    if not hasattr(module, name):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UserError(f"'{key}': {module_name} has no '{name}'; {nearest(name, names)}")
    return getattr(module, name)


def make(plugin: PluginConfig, key: str, method: str) -> Any:
    """The plug-in's object, light: its weights come with `load`. Raises UserError."""
    cls = import_name(plugin.class_path, f"{key}.class_path")
    if not callable(getattr(cls, method, None)):
        raise UserError(f"'{key}.class_path': {plugin.class_path} has no method '{method}'")
    signature = inspect.signature(cls)
    try:
        signature.bind(**plugin.params)
    except TypeError as error:
        unknown = [p for p in plugin.params if p not in signature.parameters]
        hint = f"; {nearest(unknown[0], signature.parameters)}" if unknown else ""
        raise UserError(f"'{key}.params': {plugin.class_path}: {error}{hint}") from None
    return cls(**plugin.params)


def make_editor(config: Config) -> Any:
    return make(config.editor, "editor", "edit")


def make_scorer(config: Config, name: str) -> Any:
    return make(config.scorers[name], f"scorers.{name}", "score")


def check_plugins(config: Config) -> dict[str, Any]:
    """Import, make and ask each plug-in whether it could work, before any GPU is asked for. Gives what they say
    of their models (revisions, classes), for the run's provenance."""
    plugins = {"editor": make_editor(config)}
    plugins |= {f"scorers.{name}": make_scorer(config, name) for name in config.scorers}
    for plugin in plugins.values():
        if hasattr(plugin, "check"):
            plugin.check()
    return {key: plugin.provenance() for key, plugin in plugins.items() if hasattr(plugin, "provenance")}
