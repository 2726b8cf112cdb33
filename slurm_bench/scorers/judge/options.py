"""Checks of a judge's params, when it is made: on the login node, before anything is asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slurm_bench.errors import UserError
from slurm_bench.scorers.judge.rubric import Rubrics, load_rubrics

# How a judge is asked: for the probabilities of its first token, or for a text.
MODES = ("expected", "generate")


def check_judging(params: Any) -> Rubrics:
    """What every judge takes, and the rubrics that `params` names. Makes `aspects` a tuple."""
    one_of(params, "mode", MODES)
    number(params, "max_pixels", 32 * 32, 1 << 26)
    number(params, "min_mass", 0.0, 1.0)
    number(params, "retries", 0, 100)
    number(params, "temperature", 0.01, 10.0)
    params.aspects = _texts(params, "aspects")
    if not isinstance(params.rubrics, str | Path | None):
        raise UserError(f"'params.rubrics' is {params.rubrics!r}, not a path")
    rubrics = load_rubrics(params.rubrics)
    rubrics.require(params.aspects)
    return rubrics


def asks(params: Any, rubrics: Rubrics) -> dict[str, Any]:
    """For the run's provenance: all that a judge's prompts are made from, beside the plan."""
    return {"mode": params.mode, "aspects": list(params.aspects), "rubrics": rubrics.as_data()}


def one_of(params: Any, name: str, allowed: Sequence[str], optional: bool = False) -> None:
    value = getattr(params, name)
    if value not in allowed and not (optional and value is None):
        raise UserError(f"'params.{name}' is {value!r}; it is one of {', '.join(allowed)}")


def text(params: Any, name: str, optional: bool = False) -> None:
    value = getattr(params, name)
    if not (optional and value is None) and (not isinstance(value, str) or not value.strip()):
        raise UserError(f"'params.{name}' is {value!r}, not a text")


def number(params: Any, name: str, low: float, high: float, optional: bool = False) -> None:
    """From `low` to `high`; a whole number where `low` is one."""
    value = getattr(params, name)
    if optional and value is None:
        return
    kinds, called = (int, "a whole number") if isinstance(low, int) else (int | float, "a number")
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
        raise UserError(f"'params.{name}' is {value!r}, not {called}")
    if not low <= value <= high:
        raise UserError(f"'params.{name}' is {value!r}; it is from {low} to {high}")


def json_mapping(params: Any, name: str) -> None:
    value = getattr(params, name)
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise UserError(f"'params.{name}' is no mapping with names as keys")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"'params.{name}' can't be sent as JSON: {error}") from None


def _texts(params: Any, name: str) -> tuple[str, ...]:
    value = getattr(params, name)
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or not all(isinstance(one, str) for one in texts):
        raise UserError(f"'params.{name}' is {value!r}, not a list of names")
    return tuple(texts)
