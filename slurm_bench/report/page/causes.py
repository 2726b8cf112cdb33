"""Failures by their cause: a thousand alike are one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from slurm_bench.errors import alike


@dataclass(frozen=True)
class Cause:
    """`what` is the first failure's own words; those that are `alike` are of one cause."""

    what: str
    ids: list[str] = field(default_factory=list)


def causes(failures: Iterable[Mapping[str, Any]]) -> list[Cause]:
    """The most frequent first."""
    found: dict[str, Cause] = {}
    for row in failures:
        what = row["why"]
        found.setdefault(alike(what, row["id"]), Cause(what)).ids.append(row["id"])
    return sorted(found.values(), key=lambda cause: -len(cause.ids))
