"""The geometry of the plots: where on a scale of 0 to 100 things stand. The template draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from slurm_bench.report.statistics import alike

BINS = 20
BEYOND = 1e300  # what is larger has no room for an axis around it


@dataclass(frozen=True)
class Axis:
    low: float
    high: float
    ticks: Sequence[float]

    def at(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 2)


@dataclass(frozen=True)
class Bar:
    low: float
    high: float
    count: int


def axis_over(values: Iterable[float | None]) -> Axis | None:
    """A scale with round ends and ticks that holds all that is a number; None where nothing is, or can be drawn."""
    found = [value for value in values if value is not None and math.isfinite(value)]
    if not found or max(map(abs, found)) > BEYOND:
        return None
    low, high = min(found), max(found)
    spread = high - low
    if alike(low, high):
        spread = abs(high) if abs(high) > 1 / BEYOND else 1.0
    step = _round_step(spread / 4)
    first, last = math.floor(low / step), math.ceil(high / step)
    last += first == last
    places = 10 - math.floor(math.log10(step))
    ticks = [round(n * step, places) for n in range(first, last + 1)]
    return Axis(ticks[0], ticks[-1], ticks)


def histogram(values: Sequence[float], axis: Axis) -> list[Bar]:
    """Whole marks on a short scale get a bar each; else bars of equal width. The last one holds its upper end too."""
    whole = all(float(value).is_integer() for value in values) and axis.high - axis.low <= BINS
    if whole:
        marks = range(math.floor(axis.low), math.ceil(axis.high) + 1)
        return [Bar(float(mark), float(mark), sum(value == mark for value in values)) for mark in marks]
    width = (axis.high - axis.low) / BINS
    counts = [0] * BINS
    for value in values:
        counts[min(max(int((value - axis.low) / width), 0), BINS - 1)] += 1
    return [Bar(axis.low + n * width, axis.low + (n + 1) * width, count) for n, count in enumerate(counts)]


def _round_step(step: float) -> float:
    """1, 2 or 5 times a power of ten, not below `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= step * 0.999)
