"""What a dotted name stands for, the current folder's modules too; and whatever goes wrong in a stranger's code in one
line."""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import re
import sys
import tempfile
import traceback
from contextlib import suppress
from types import ModuleType
from typing import Any

from slurm_bench.config import nearest
from slurm_bench.errors import UserError, words_of
from slurm_bench.logs import hide_secrets


def import_name(dotted: str, key: str) -> Any:
    """The class or function that `package.module.name` names. Raises UserError that names `key` and the nearest right
    one."""
    module_name, _, name = dotted.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in dotted.split(".")):
        raise UserError(f"'{key}': '{dotted}' is not package.module.Name")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module = _import(module_name, key)
    found = getattr(module, name, None)
    if callable(found):
        return found
    if isinstance(found, ModuleType) or (found is None and _is_module(dotted)):
        inside = nearest(name, _callables(_import(dotted, key)))
        raise UserError(f"'{key}': {dotted} is a module, of which something is to be named: {dotted}.Name; {inside}")
    if hasattr(module, name):
        raise UserError(f"'{key}': {dotted} is a {type(found).__name__}, not a function or class")
    known = [*_callables(module), *(inner.name for inner in pkgutil.iter_modules(getattr(module, "__path__", [])))]
    raise UserError(f"'{key}': {module_name} has no '{name}'; {nearest(name, known)}")


def _is_module(dotted: str) -> bool:
    with suppress(ImportError, ValueError):
        return importlib.util.find_spec(dotted) is not None
    return False


def _callables(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]


def _import(name: str, key: str) -> Any:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            nearest_one = _nearest_module(error.name)
            lacking = f"no module {error.name}, neither installed nor in {os.getcwd()}"
            raise UserError(f"'{key}': cannot import {name}: {lacking}; {nearest_one}") from None
        raise UserError(f"'{key}': cannot import {name}: {blame(error, name)}") from None


def _nearest_module(name: str) -> str:
    package = name.rpartition(".")[0]
    folders = getattr(sys.modules[package], "__path__", []) if package else [os.getcwd()]
    prefix = f"{package}." if package else ""
    names = [f"{prefix}{module.name}" for module in pkgutil.iter_modules(folders)]
    return nearest(name, names if package else [*names, __package__])


def blame(error: BaseException, name: str) -> str:
    """What was raised, where in the plug-in's own code, and a file with the whole traceback: there may be no run
    folder yet."""
    said = " ".join(words_of(error).split())[:300]
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
        with tempfile.NamedTemporaryFile(prefix="slurm_bench-", suffix=".log", delete=False) as file:
            text = hide_secrets("".join(traceback.format_exception(error)))
            file.write(text.encode("utf-8", "backslashreplace"))
    except OSError:
        return ""
    return f"; traceback in {file.name}"
