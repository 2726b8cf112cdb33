"""Text from a stranger's file: made safe to encode, to show in one line, and to judge."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

BROKEN = "\ufffd"
_LARGEST_WHOLE = 2**53  # beyond it a float may have lost digits

# Control characters, line separators, and the marks that turn the direction of what follows.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(?:\\|n|r|t|x[0-9a-f]{2}|u[0-9a-f]{4})")


def as_text(value: Any) -> str:
    """A cell's value as text. None and NaN (pandas' empty cell) are empty; anything but text and numbers raises
    TypeError. A whole number is its digits, also where it is kept as 2.0: pandas does so with a column that has gaps.
    Lone surrogates become U+FFFD, so that whatever comes from here can be written as UTF-8."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_WHOLE:
        return str(int(value))
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, (bool, list, tuple, dict, set, bytes)):
        raise TypeError(f"is a {type(value).__name__}, not text")
    return str(value)


def printable(text: str) -> str:
    """For a terminal or a table's cell: one line, without control characters, which are written as escapes (`\\r`,
    `\\x1b`). Text without any stays as it is; two texts never become the same, so that ids stay apart."""
    if text.isprintable() and "\\" not in text:  # most are, and this is soon told
        return text
    if not _UNPRINTABLE.search(text) and not _ESCAPE.search(text):
        return text
    return _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], text.replace("\\", "\\\\"))


def quoted(value: Any, width: int = 80) -> str:
    """`value` quoted in one printable line, its middle left out where it is long."""
    text = repr(value)
    return text if len(text) <= width else f"{text[: width // 2]}…{text[-width // 2 + 1 :]}"


def joined(names: Iterable[Any], most: int = 30) -> str:
    """Field or category names for an error line."""
    names = [str(name) if str(name).isprintable() else repr(name) for name in names]
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name if len(name) <= 40 else name[:39] + "…" for name in names[:most]) + more or "none"
