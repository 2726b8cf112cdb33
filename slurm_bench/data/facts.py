"""Facts: what the data say of a sample that neither editor nor judge is told, such as its difficulty, its tags or a
benchmark's flags. The plan keeps them, so that a report can be cut by any of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from slurm_bench.data.text import as_text

# A plan is read by every job: images and whole texts have no place in it, and no report is cut by them.
MOST_CHARACTERS = 500
_MOST_FACTS = 64
_MOST_ELEMENTS = 64
_MOST_DEPTH = 4
_LARGEST = 2**53  # of the whole numbers that every JSON reader keeps


def as_facts(facts: Any) -> dict[str, Any]:
    """As JSON, at most so large: what is null, empty or NaN, and what is too long, deep or binary, is left out. Raises
    TypeError where it isn't a mapping."""
    if not isinstance(facts, Mapping):
        raise TypeError(f"are a {type(facts).__name__}, not names with values")
    return _object(facts, 1)


def _object(values: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    pairs = ((as_text(str(name)), _value(value, depth)) for name, value in values.items())
    kept = [(name, value) for name, value in pairs if value is not None and len(name) <= MOST_CHARACTERS]
    return dict(kept[:_MOST_FACTS])


def _value(value: Any, depth: int) -> Any:
    """None for what is left out."""
    if depth > _MOST_DEPTH or value is None or isinstance(value, (bytes, bytearray, memoryview)):
        return None
    if isinstance(value, Mapping):
        return None if isinstance(value.get("bytes"), bytes) else _object(value, depth + 1) or None
    if isinstance(value, (list, tuple)):
        return [_value(element, depth + 1) for element in value[:_MOST_ELEMENTS]] or None
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) <= _LARGEST):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    text = as_text(value) if isinstance(value, str) else str(value)  # dates and decimals too
    return text if text.strip() and len(text) <= MOST_CHARACTERS else None
