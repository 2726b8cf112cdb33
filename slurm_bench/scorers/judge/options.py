"""Checks of a judge's params, when it is made: on the login node, before anything is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from slurm_bench.errors import UserError


def one_of(params: Any, name: str, allowed: Sequence[str]) -> None:
    value = getattr(params, name)
    if value not in allowed:
        raise UserError(f"'params.{name}' is {value!r}; it is one of {', '.join(allowed)}")


def number(params: Any, name: str, low: float, high: float) -> None:
    """From `low` to `high`; a whole number where `low` is one."""
    value = getattr(params, name)
    kinds, called = (int, "a whole number") if isinstance(low, int) else (int | float, "a number")
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
        raise UserError(f"'params.{name}' is {value!r}, not {called}")
    if not low <= value <= high:
        raise UserError(f"'params.{name}' is {value!r}; it is from {low} to {high}")


def as_names(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
