"""From a judge's reply to marks, or to the reason why there are none. Nothing is guessed, rounded, clamped or drawn."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from slurm_bench.scorers.judge.parse import Unreadable, after_thinking, read_object
from slurm_bench.scorers.protocols.description import ReplyForm

Range = tuple[int, int]

# Markdown around a label or a number says nothing.
_MARKUP = r"[\s*_`#>|]*"
_BEFORE = r"[\s*_`|]*"  # a number: > would say something
_NUMBER = r"(-?\d+(?:\.\d+)?)"
_OUT_OF = r"(?:[\s*_]*(?:/|out of)\s*(\d+))?"
# "3-4" and "3 or 4" are no mark, and least of all the lower one.
_ANOTHER = re.compile(r"[ \t*_`]*(?:[+±]|(?:->|→|[-–—~～,、]|\(?(?:to|or|and|或|至|到))[ \t*_`]*\d)", re.I)
_END = re.compile(r"[\s*_`|.。]*(?:(?:</\w+>|<\|\w+\|>)\s*)*")


def read_marks(text: str, form: ReplyForm, ranges: Mapping[str, Range], labels: Sequence[str] = ()) -> dict[str, float]:
    """`ranges` has the marks in their order; `labels` those of the prompt, where the form finds them there. Raises
    Unreadable unless the reply ends in all of them, each a whole number in its range, and doesn't contradict itself."""
    marks = list(ranges)
    if form.keys is not None:
        found = read_object(text, form.keys)
        values = [found[key] for key in form.keys]
    elif form.list is not None:
        values = _list(read_object(text, [form.list])[form.list], form.list, len(marks))
    else:
        values = _lines(after_thinking(text), form.labels or labels, [ranges[mark][1] for mark in marks])
    return {mark: _whole(value, mark, ranges[mark]) for mark, value in zip(marks, values, strict=True)}


def _list(value: Any, key: str, count: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != count:
        raise Unreadable(f"{key} is {str(value)[:40]!r}, not a list of {count} numbers")
    return value


def _lines(text: str, labels: Sequence[str], highest: Sequence[int]) -> list[float]:
    values, last = [], 0
    for label, high in zip(labels, highest, strict=True):
        words = _MARKUP.join(re.escape(word) for word in label.split())
        found = list(re.finditer(rf"{words}{_MARKUP}[:：]{_BEFORE}{_NUMBER}{_OUT_OF}", text, re.I))
        if not found:
            raise Unreadable(f"no line '{label}: ' with a number in the reply")
        said = {(float(match[1]), match[2]) for match in found}
        if len({value for value, _ in said}) > 1:
            raise Unreadable(f"the reply contradicts itself: two numbers for '{label}'")
        if any(_ANOTHER.match(text, match.end()) for match in found):
            raise Unreadable(f"more than one number for '{label}'")
        if any(out_of is not None and int(out_of) != high for _, out_of in said):
            raise Unreadable(f"{label} is out of another number than {high}")
        values.append(float(found[-1][1]))
        last = max(last, found[-1].end())
    if not _END.fullmatch(text, last):
        raise Unreadable("the reply goes on after its marks")
    return values


def _whole(value: Any, mark: str, ends: Range) -> float:
    low, high = ends
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise Unreadable(f"{mark} is {str(value)[:40]!r}, not a number")
    if not low <= value <= high:
        raise Unreadable(f"{mark} is {str(value)[:40]}, out of {low} to {high}")
    if value != int(value):
        raise Unreadable(f"{mark} is {value}, not a whole number")
    return float(value)
