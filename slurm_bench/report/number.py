"""Numbers for a person to read: the same on every page and table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

DECIMALS = 3
MOST_DECIMALS = 9


def number(value: float | None, sign: str = "") -> str:
    """Three decimals, near 0 as many as show three digits: an LPIPS of 0.00123 isn't 0.001."""
    if value is None or not math.isfinite(value):
        return "–"
    value += 0.0  # -0.0 is 0
    size = abs(float(f"{value:.3g}"))  # 0.0999… is 0.100
    decimals = DECIMALS if size >= 0.1 or not size else DECIMALS - 1 - math.floor(math.log10(size))
    return f"{value:{sign}.{decimals}f}" if decimals <= MOST_DECIMALS and size < 1e9 else f"{value:{sign}.3g}"


def chance(p: float | None) -> str:
    """The p of a test."""
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def interval(row: Mapping[str, Any]) -> str:
    """A row's 95 % interval, with a † where it is of too few samples; – where it has none."""
    return "–" if row["ci_low"] is None else f"{span(row)}{' †' if row['too_few'] else ''}"


def span(row: Mapping[str, Any]) -> str:
    """A row's 95 % interval, which it must have."""
    return f"{number(row['ci_low'])} to {number(row['ci_high'])}"
