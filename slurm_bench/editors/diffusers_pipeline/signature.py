"""What diffusers' classes take, read from their source: importing them would bring torch to the login node."""

from __future__ import annotations

import ast
import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from slurm_bench.errors import UserError

REQUIRED = object()
COMPUTED = object()
_NUMBERS_AND_TEXT: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "bool": bool, "str": str}
_SEQUENCES: dict[str, type | tuple[type, ...]] = {"list": list, "tuple": (list, tuple)}


@dataclass(frozen=True)
class Argument:
    """An argument of a class's method. `default` is REQUIRED without one, COMPUTED where it is no literal."""

    annotation: ast.expr | None
    default: Any

    def takes(self, value: Any) -> bool:
        if value is None:
            return self.default is None
        if self.annotation is None:
            return self.default in (None, REQUIRED, COMPUTED) or isinstance(value, type(self.default))
        return _fits(value, self.annotation)

    def converted(self, value: Any) -> Any:
        """YAML has lists alone; a pipeline may compare with a tuple."""
        wants_tuple = self.annotation is not None and re.match(r"(?i)tuple\b", ast.unparse(self.annotation))
        return tuple(value) if wants_tuple and isinstance(value, list) else value

    def __str__(self) -> str:
        return ast.unparse(self.annotation) if self.annotation else type(self.default).__name__


@dataclass(frozen=True)
class ClassSource:
    """A class as its file has it, with what it inherits inside diffusers."""

    name: str
    source: str
    bases: tuple[str, ...]
    init: dict[str, Argument]
    call: dict[str, Argument]

    def check_value(self, name: str, value: Any, key: str) -> Any:
        """The value as the call takes it. Raises UserError that names `key` if its type is another's."""
        if not self.call[name].takes(value):
            raise UserError(f"'{key}': {value!r} is not what {self.name} takes there ({self.call[name]})")
        return self.call[name].converted(value)


def find_pipeline(name: str, key: str) -> ClassSource:
    """Raises UserError with the nearest name."""
    return _find(name, "pipelines", "Pipeline", key)


def find_scheduler(name: str, key: str) -> ClassSource:
    """Raises UserError with the nearest name."""
    return _find(name, "schedulers", "Scheduler", key)


def nearest(word: str, names: Iterable[str]) -> str:
    """A hint for a mistyped name."""
    return f"the nearest is '{difflib.get_close_matches(word, list(names), n=1, cutoff=0)[0]}'"


def _find(name: str, folder: str, ending: str, key: str) -> ClassSource:
    index = _index(folder)
    public = [n for n in index if n.endswith(ending) and n in _exported()]
    if name not in public:
        raise UserError(f"'{key}': diffusers has no {name!r}; {nearest(name, public)}")
    return _read(name, folder)


@cache
def _root() -> Path:
    spec = find_spec("diffusers")
    if spec is None or not spec.origin:
        raise UserError("diffusers is not installed; pip install diffusers")
    return Path(spec.origin).parent


@cache
def _exported() -> frozenset[str]:
    """Every name that diffusers' own __init__ quotes: its lazy imports."""
    return frozenset(re.findall(r'"(\w+)"', (_root() / "__init__.py").read_text(encoding="utf-8")))


@cache
def _index(folder: str) -> dict[str, Path]:
    """The file of each class."""
    files = sorted((_root() / folder).rglob("*.py"))
    return {
        name: file
        for file in files
        for name in re.findall(r"^class (\w+)", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }


@cache
def _read(name: str, folder: str) -> ClassSource:
    text = _index(folder)[name].read_text(encoding="utf-8")
    (found,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == name)
    own = [ast.unparse(base).rpartition(".")[2] for base in found.bases]
    parents = [_read(base, folder) for base in own if base in _index(folder)]
    methods = {node.name: node for node in found.body if isinstance(node, ast.FunctionDef)}
    inherited = parents[0] if parents else None
    return ClassSource(
        name=name,
        source=ast.get_source_segment(text, found) or "",
        bases=(*own, *(base for parent in parents for base in parent.bases)),
        init=_arguments(methods["__init__"]) if "__init__" in methods else inherited.init if inherited else {},
        call=_arguments(methods["__call__"]) if "__call__" in methods else inherited.call if inherited else {},
    )


def _arguments(method: ast.FunctionDef) -> dict[str, Argument]:
    """Without self. What `**kwargs` would swallow in silence isn't among them."""
    plain = [*method.args.posonlyargs, *method.args.args]
    defaults = [None] * (len(plain) - len(method.args.defaults)) + list(method.args.defaults)
    pairs = [*zip(plain, defaults, strict=True), *zip(method.args.kwonlyargs, method.args.kw_defaults, strict=True)]
    return {
        argument.arg: Argument(argument.annotation, REQUIRED if default is None else _literal(default))
        for argument, default in pairs[1:]
    }


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return COMPUTED


def _fits(value: Any, annotation: ast.expr) -> bool:
    """Whether a value of a configuration is of the type; never where the type can't be written in YAML (a tensor)."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _fits(value, left) or _fits(value, right)
        case ast.Constant(value=str(quoted)):
            return _fits(value, ast.parse(quoted, mode="eval").body)
        case ast.Subscript(value=outer, slice=inner):
            return _fits_container(value, _plain(outer), inner.elts if isinstance(inner, ast.Tuple) else [inner])
        case ast.Name() | ast.Attribute():
            return _fits_container(value, _plain(annotation), [])
    return False


def _fits_container(value: Any, name: str, inner: list[ast.expr]) -> bool:
    if name in ("Optional", "Union", "Literal"):
        literals = [item.value for item in inner if isinstance(item, ast.Constant)]
        return value in literals if name == "Literal" else any(_fits(value, item) for item in inner)
    if name.lower() in _SEQUENCES:
        # `tuple[int]` is written for any number of them
        whole = isinstance(value, _SEQUENCES[name.lower()])
        return whole and (not inner or all(any(_fits(item, kind) for kind in inner) for item in value))
    if name.lower() == "dict":
        return isinstance(value, dict)
    if name == "Any":
        return True
    wanted = _NUMBERS_AND_TEXT.get(name)
    if wanted is None or isinstance(value, bool) is not (name == "bool"):
        return False
    return isinstance(value, wanted) and not (isinstance(value, float) and not math.isfinite(value))


def _plain(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]
