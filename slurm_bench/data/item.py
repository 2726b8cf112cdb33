"""What a reader yields: one benchmark item, as found in the user's data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Item:
    """`source` and `reference` are a file's path, or the bytes of an image file that the data had within.

    `problem` says why this item can't be edited (base64 that doesn't decode, say). It stays in the plan and
    becomes an error record: counted, named, and no hindrance to the others. With `on_storage` it lies in a file beside
    the data (absent, truncated) instead: it is named at launch and not planned, for the file may be there, or whole,
    by the time it is read. `mask`, an image file too, is transparent, or white, where the edit is wanted. `facts` are
    further values by name, to cut a report by (`data/facts.py`). `follows` is the id of an earlier item of which this
    one is the next turn: its source is what was made of that one, so it has none of its own. A reader is a function
    that takes the `data` part of the configuration and yields Items in a fixed order.
    """

    id: str
    category: str
    instruction: str
    source: Path | bytes | tuple[Path | bytes, ...] | None
    description: str = ""
    rationale: str = ""
    reference: Path | bytes | None = None
    problem: str = ""
    on_storage: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    mask: Path | bytes | None = None
    follows: str = ""
