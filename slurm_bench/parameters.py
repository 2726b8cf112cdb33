"""A plug-in's params against the annotations of its `__init__`, so that what is wrong is told before anything starts.

Plain types are looked at (int, float, bool, str, Path, None, Literal, unions of these, lists and mappings of them). A
parameter that is annotated otherwise, or not at all, is the plug-in's own business.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from slurm_bench.config import nearest
from slurm_bench.errors import UserError

TRUTHS = {"yes": True, "on": True, "no": False, "off": False}
NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
    type(None): "null",
}
MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
# A text is a Sequence of texts, and many a plug-in takes one for a list of one; it is no `list`.
MAY_BE_TEXT = (collections.abc.Sequence, collections.abc.Collection, collections.abc.Iterable)
LISTS = (list, tuple, set, frozenset, *MAY_BE_TEXT)


class Misfit(Exception):
    """This value isn't of that type."""


def fitted(cls: Callable[..., Any], params: Any, said: Any, key: str) -> dict[str, Any]:
    """The params (names with values, or a fault) as `cls` wants them: `1e6` where it asks for a whole number becomes
    one, and the like. `said` is how they were typed, without what the environment adds. Raises UserError that names the
    parameter, under `key`."""
    if not isinstance(params, Mapping):
        raise UserError(f"'{key}' is {_shown(params)}; it must be {described(dict)}")
    declared = _declared(cls)
    rest = next((p for p in declared.values() if p.kind is p.VAR_KEYWORD), None)
    named = {name: p for name, p in declared.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    for name in params:
        if name not in named and rest is None:
            mend = nearest(name, named)
            if not mend.startswith("did"):
                mend += f". {key}=null takes out what a file says for another class"
            raise UserError(f"'{key}.{name}': {cls.__name__} has no such parameter; {mend}")
    for name, p in named.items():
        if name not in params and p.default is p.empty:
            raise UserError(f"'{key}.{name}' is not set; {cls.__name__} needs it")
    fits = {}
    for name, value in params.items():
        parameter: Any = named.get(name, rest)
        hint = _evaluated(parameter.annotation, cls)
        try:
            fits[name] = None if value is None and parameter.default is None else fit(value, hint)
        except Misfit:
            raise UserError(f"'{key}.{name}' is {_shown(said[name])}; it must be {described(hint)}") from None
    return fits


def paths_of(cls: Callable[..., Any]) -> list[str]:
    """The parameters that `cls` annotates as a path, or as one and None."""
    hints = {name: _evaluated(p.annotation, cls) for name, p in _declared(cls).items()}
    return [name for name, hint in hints.items() if Path in (hint, *typing.get_args(hint))]


def _declared(cls: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """None of what doesn't tell, as some that are built in: what it isn't is found when it is asked to work."""
    try:
        return inspect.signature(cls).parameters
    except (TypeError, ValueError):
        return {}


def fit(value: Any, hint: Any) -> Any:
    """`value` as the type `hint` has it. Raises Misfit."""
    kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return _fit_one_of(value, parts)
    if kind is typing.Literal:
        return _require(value in parts, value)
    if kind in (None, type(None)):
        return _require(value is None, value)
    if kind is bool and isinstance(value, str) and value in TRUTHS:
        return TRUTHS[value]
    if kind is bool or (kind in (int, float, str) and isinstance(value, bool)):
        return _require(kind is bool and isinstance(value, bool), value)
    if kind is int:
        return int(value) if isinstance(value, float) and value.is_integer() else _require(type(value) is int, value)
    if kind is float:
        return _require(isinstance(value, (int, float)), value)
    if kind is str:  # a revision of digits alone reads as a number
        return str(value) if isinstance(value, int) else _require(isinstance(value, str), value)
    if kind is Path:
        return value if isinstance(value, Path) else Path(fit(value, str))
    if kind in MAPPINGS:
        _require(isinstance(value, Mapping), value)
        return {name: fit(part, parts[1]) for name, part in value.items()} if len(parts) == 2 else value
    if kind in LISTS:
        return value if kind in MAY_BE_TEXT and isinstance(value, str) else _fit_list(value, kind, parts)
    return value


def described(hint: Any) -> str:
    kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(described, parts)))
    if kind is typing.Literal:
        return f"one of {', '.join(map(str, parts))}"
    if kind in MAPPINGS:
        return "names with values"
    if kind in LISTS:
        return f"a list{f', each part {described(parts[0])}' if parts else ''}"
    return NAMES[kind] if kind in NAMES else str(getattr(kind, "__name__", kind))


def _fit_one_of(value: Any, parts: tuple[Any, ...]) -> Any:
    """As the type that takes it as it is, else as the first that takes it at all."""
    fits = []
    for part in parts:
        with suppress(Misfit):
            fits.append(fit(value, part))
    _require(fits, value)
    return next((found for found in fits if type(found) is type(value) and found == value), fits[0])


def _fit_list(value: Any, kind: Any, parts: tuple[Any, ...]) -> Any:
    _require(isinstance(value, list), value)
    fixed = kind is tuple and parts and parts[-1] is not Ellipsis
    _require(not fixed or len(parts) == len(value), value)
    hints = parts if fixed else [parts[0] if parts else Any] * len(value)
    found = [fit(part, hint) for part, hint in zip(value, hints, strict=True)]
    return found if kind in MAY_BE_TEXT else kind(found)


def _require(condition: Any, value: Any) -> Any:
    if not condition:
        raise Misfit
    return value


def _evaluated(annotation: Any, cls: Any) -> Any:
    """An annotation may stand as text, and name what is imported for type checkers alone."""
    if not isinstance(annotation, str):
        return annotation
    scope = getattr(getattr(cls, "__init__", cls), "__globals__", {})
    try:
        return eval(annotation, dict(scope))
    except Exception:
        return Any


def _shown(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
