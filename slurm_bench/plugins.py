"""`class_path` and `params` → an object. Any importable module will do, the current folder's too."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from slurm_bench.config import Config, nearest, with_environment
from slurm_bench.errors import UserError
from slurm_bench.parameters import fitted
from slurm_bench.scorers.base import Score, declared_scores


def import_name(dotted: str, key: str) -> Any:
    """What `package.module.name` names. Raises UserError that names `key` and the nearest right name."""
    module_name, _, name = dotted.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in dotted.split(".")):
        raise UserError(f"'{key}': '{dotted}' is not package.module.Name")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module = _import(module_name, key)
    if not hasattr(module, name):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UserError(f"'{key}': {module_name} has no '{name}'; {nearest(name, names)}")
    return getattr(module, name)


def make(config: Config, key: str, method: str) -> Any:
    """The object of the plug-in `key`, light: its weights come with `load`. Raises UserError."""
    plugin = config.editor if key == "editor" else config.scorers[key.removeprefix("scorers.")]
    cls = import_name(plugin.class_path, f"{key}.class_path")
    if not callable(getattr(cls, method, None)):
        raise UserError(f"'{key}.class_path': {plugin.class_path} has no method '{method}'")
    params = with_environment(config, f"{key}.params")
    with speaking_for(key, plugin.class_path):
        return cls(**fitted(cls, params, plugin.params, f"{key}.params"))


def make_editor(config: Config) -> Any:
    return make(config, "editor", "edit")


def make_scorer(config: Config, name: str) -> Any:
    return make(config, f"scorers.{name}", "score")


def check_plugins(config: Config) -> dict[str, Any]:
    """Import, make and ask each plug-in whether it could work, before any GPU is asked for. Gives what they say
    of their models (revisions, classes), for the run's provenance."""
    plugins = {"editor": (config.editor, make_editor(config))}
    plugins |= {f"scorers.{name}": (scorer, make_scorer(config, name)) for name, scorer in config.scorers.items()}
    models = {}
    for key, (said, plugin) in plugins.items():
        with speaking_for(key, said.class_path):
            if hasattr(plugin, "check"):
                plugin.check()
            if hasattr(plugin, "provenance"):
                models[key] = plugin.provenance()
    return models


def scores_by_scorer(config: Config) -> dict[str, Mapping[str, Score] | None]:
    """What each scorer declares that it gives; None for one that doesn't say."""
    return {name: declared_scores(make_scorer(config, name)) for name in config.scorers}


@contextmanager
def speaking_for(key: str, name: str) -> Iterator[None]:
    """Whatever goes wrong in a plug-in's own code becomes one line, which names the plug-in, the place, and where
    the traceback is. A plug-in doesn't know how it is called: its `'params.x'` becomes `'scorers.judge.params.x'`."""
    try:
        yield
    except UserError as error:
        said = re.sub(r"'(editor\.|scorers\.[\w-]+\.)?params\.", f"'{key}.params.", " ".join(str(error).splitlines()))
        raise UserError(said) from None
    except (Exception, SystemExit) as error:
        raise UserError(f"'{key}': {name}: {_blame(error, name)}") from None


def _import(name: str, key: str) -> Any:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            nearest_one = _nearest_module(error.name)
            raise UserError(f"'{key}': cannot import {name}: no module {error.name}; {nearest_one}") from None
        raise UserError(f"'{key}': cannot import {name}: {_blame(error, name)}") from None


def _nearest_module(name: str) -> str:
    package = name.rpartition(".")[0]
    folders = getattr(sys.modules[package], "__path__", []) if package else [os.getcwd()]
    prefix = f"{package}." if package else ""
    names = [f"{prefix}{module.name}" for module in pkgutil.iter_modules(folders)]
    return nearest(name, names if package else [*names, __package__])


def _blame(error: BaseException, name: str) -> str:
    """What was raised, where in the plug-in's own code, and a file with the whole traceback: there may be no run
    folder yet."""
    said = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {said} ({_place(error, name)}){_kept(error)}"


def _place(error: BaseException, name: str) -> str:
    """The innermost line of the plug-in's own package, else of all."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    own = re.compile(rf"[/\\]{re.escape(name.partition('.')[0])}([/\\]|\.py$)")
    frame = next((f for f in reversed(frames) if own.search(f.filename)), frames[-1] if frames else None)
    return f"{frame.filename}:{frame.lineno}" if frame else "in its own code"


def _kept(error: BaseException) -> str:
    try:
        with tempfile.NamedTemporaryFile("w", prefix="slurm_bench-", suffix=".log", delete=False) as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return ""
    return f"; traceback in {file.name}"
