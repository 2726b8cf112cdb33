"""How figures and lines are put for a person."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap

_ADVICE = re.compile(r"(?<=memory in use\.) Of the allocated memory .*", re.DOTALL)


def fit(line: str, width: int | None) -> str:
    """Broken at blanks where it is longer; a word (a path, a command) stays whole."""
    if width is None or len(line) <= width:
        return line
    return textwrap.fill(line, width, subsequent_indent=9 * " ", break_long_words=False, break_on_hyphens=False)


def within(text: str, most: int) -> str:
    """Of a longer text its beginning and its end: what quotes a log has the cause at its end. But for torch's advice
    at the end of a lack of memory: before it stands whose the memory is."""
    text, half = _ADVICE.sub("", text), most // 2
    return text if len(text) <= most else f"{text[: most - half - 3]} … {text[-half:]}"


def columns() -> int | None:
    """How wide the terminal is that stdout is; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
