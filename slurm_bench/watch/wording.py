"""How figures and lines are put for a person."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence

from slurm_bench.errors import alike

# So many samples that fail alike have a line each. Of more so many are named.
FEW, NAMED = 10, 30
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


def grouped(why: Mapping[str, str]) -> list[tuple[list[str], str]]:
    """Of texts by sample id, which ids have which: each its own, or where more than FEW are alike, all of these the
    words of the first. What most have stands first."""
    by_way: Mapping[str, list[str]] = defaultdict(list)
    for sample_id, text in why.items():
        by_way[alike(text, sample_id)].append(sample_id)
    groups = []
    for ids in sorted(by_way.values(), key=len, reverse=True):
        groups += [(ids, why[ids[0]])] if len(ids) > FEW else [([sample_id], why[sample_id]) for sample_id in ids]
    return groups


def named(ids: Sequence[str]) -> str:
    """How many samples they are, and the first NAMED of them."""
    return f"{len(ids)} samples ({', '.join(map(repr, ids[:NAMED]))}{', …' if len(ids) > NAMED else ''})"


def columns() -> int | None:
    """How wide the terminal is that stdout is; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
