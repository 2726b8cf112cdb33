"""The end of an error line about a name that isn't known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, names: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the list of names where none is near."""
    names = list(dict.fromkeys(map(str, names)))
    close = difflib.get_close_matches(str(word), names, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(sorted(names))}" if names else "none is known"
