"""A formula from a file, evaluated without running code: numbers, names, + - * /, min, max, mean and sqrt."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

LONGEST = 500  # letters; nothing that needs more is a benchmark's formula

_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {
    "min": min,
    "max": max,
    "mean": lambda *values: fmean(values),
    "sqrt": math.sqrt,
}


@dataclass(frozen=True)
class Formula:
    """`names` are the values that it needs."""

    text: str
    names: frozenset[str]
    _tree: ast.expr

    def __call__(self, values: Mapping[str, float]) -> float:
        """Raises ValueError where it has no value (a division by zero, the root of a negative number)."""
        try:
            value = float(_value(self._tree, values))
        except (ArithmeticError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{self.text} has no value at {dict(values)}")
        return value


def parse_formula(text: str) -> Formula:
    """Raises ValueError that says what it doesn't take."""
    if len(text) > LONGEST:
        raise ValueError(f"a formula of {len(text)} letters; at most {LONGEST} are read")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r} is no formula ({getattr(error, 'msg', type(error).__name__)})") from None
    names: set[str] = set()
    _check(tree, names)
    return Formula(text, frozenset(names), tree)


def _check(node: ast.AST, names: set[str]) -> None:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return
    if isinstance(node, ast.Name):
        names.add(node.id)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        _check(node.operand, names)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        _check(node.left, names)
        _check(node.right, names)
    elif _is_call(node):
        for argument in node.args:  # type: ignore[attr-defined]
            _check(argument, names)
    else:
        raise ValueError(f"{ast.unparse(node)!r} isn't of numbers, names, + - * /, {', '.join(_FUNCTIONS)}")


def _is_call(node: ast.AST) -> bool:
    """min(a) would ask for a list, and sqrt takes one value."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.keywords:
        return False
    known, least = node.func.id in _FUNCTIONS, 1 if node.func.id in ("mean", "sqrt") else 2
    return known and len(node.args) >= least and (node.func.id != "sqrt" or len(node.args) == 1)


def _value(node: Any, values: Mapping[str, float]) -> float:
    if isinstance(node, ast.Constant):
        number: Any = node.value
        return float(number)
    if isinstance(node, ast.Name):
        return values[node.id]
    if isinstance(node, ast.UnaryOp):
        return -_value(node.operand, values)
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_value(node.left, values), _value(node.right, values))
    return _FUNCTIONS[node.func.id](*(_value(argument, values) for argument in node.args))
