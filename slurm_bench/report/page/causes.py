"""Failures by their cause: a thousand alike are one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cause:
    """`what` is the first failure's own words; failures that differ in numbers alone (bytes free, addresses) or in
    the sample's id are of one cause."""

    what: str
    ids: list[str] = field(default_factory=list)


def causes(failures: Iterable[Mapping[str, Any]]) -> list[Cause]:
    """The most frequent first."""
    found: dict[str, Cause] = {}
    for row in failures:
        what = row["why"]
        kind = re.sub(r"\d+", "#", what.replace(row["id"], "…"))
        found.setdefault(kind, Cause(what)).ids.append(row["id"])
    return sorted(found.values(), key=lambda cause: -len(cause.ids))
