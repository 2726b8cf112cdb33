"""What stands in a mean as the end of its scale, because it has no value on it: PSNR of equal images, say."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from statistics import fmean
from typing import Any

from slurm_bench.report.number import number
from slurm_bench.scorers.base import Score


def stand_ins(values: Collection[float], scale: Score | None) -> dict[str, Any] | None:
    """How many, and the mean of the others; None where there are none."""
    if scale is None or scale.high_is is None:
        return None
    others = [value for value in values if value != scale.high]
    if len(others) == len(values):
        return None
    return {
        "what": scale.high_is,
        "value": scale.high,
        "n": len(values) - len(others),
        "of": len(values),
        "mean_of_others": fmean(others) if others else None,
    }


def stand_ins_in_words(score: str, found: Mapping[str, Any]) -> str:
    others = found["mean_of_others"]
    rest = "there are no others" if others is None else f"the mean of the others is {number(others)}"
    counted = f"{found['n']} of {found['of']} are {found['what']}"
    return f"{counted}, which stand in the mean of {score} as {found['value']:g}: {rest}."
