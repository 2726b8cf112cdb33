"""The end of an error line about a name that isn't known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, names: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the list of names where none is near. Of several near ones the one that begins alike: a
    word is seldom mistyped there, and another name for the same thing has but another end (geditbench2, gedit2)."""
    names = list(dict.fromkeys(map(str, names)))
    close = difflib.get_close_matches(str(word), names, n=3)
    close.sort(key=lambda name: name[:3] != str(word)[:3])
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(sorted(names))}" if names else "none is known"
