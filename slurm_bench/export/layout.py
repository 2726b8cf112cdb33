"""What a format says: the files that a sample has in its layout, and the names that may stand in a path."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from slurm_bench.data.text import printable, quoted
from slurm_bench.errors import SampleError
from slurm_bench.run.plan import Sample

LIST = "exported.json"  # what was exported and what not, beside the images
INDEX = "metadata.jsonl"  # a layout's own list of the images
_LONGEST = 255  # bytes of a file's name, on most file systems


@dataclass(frozen=True)
class File:
    """Of one sample: the path from the export's folder, and which picture it holds. Its extension, png or jpg, is what
    it is encoded as."""

    path: str
    picture: Literal["edited", "source"] = "edited"


@dataclass(frozen=True)
class Layout:
    """`files` gives those of a sample under a model's name, none where the layout wants none of it; it raises
    SampleError where the sample has no place there. `by_model` says that each model has a folder of its own, so that
    one export folder holds several. `index` gives metadata.jsonl, where the layout has it, from what it is so far, the
    samples that have a place, the model, whose earlier images are taken out, and the ids of those that are exported. It
    raises UserError where it is damaged."""

    files: Callable[[Sample, str], tuple[File, ...]]
    by_model: bool = True
    index: Callable[[bytes, Sequence[Sample], str, Collection[str]], bytes] | None = None


def joined(*parts: str) -> str:
    """A path of these names, each a plain one. Raises SampleError."""
    for part in parts:
        if problem := name_problem(part):
            raise SampleError(f"{quoted(part)} can't be a file's name: {problem}")
    return "/".join(parts)


def name_problem(part: str) -> str:
    """Why `part` is no name for a file or a folder, or ""."""
    if not part.strip():
        return "it is empty"
    if part.startswith("."):
        return "it begins with a dot"
    if "/" in part or "\\" in part:
        return "it is a path"
    if printable(part) != part:
        return "it has characters that don't print"
    if part in (LIST, INDEX):
        return "the export has a list of that name"
    if len(part.encode()) > _LONGEST:
        return "it is too long"
    return ""


def edited(*parts: str) -> tuple[File, ...]:
    """The edited image alone, at this path. Raises SampleError."""
    return (File(joined(*parts)),)


def fact(sample: Sample, *names: str) -> str:
    """The first of these facts that the reader noted of the sample, as text; "" where it noted none."""
    return next((str(sample.facts[name]) for name in names if sample.facts.get(name) not in (None, "")), "")


def split_id(sample: Sample, pattern: str, shape: str) -> re.Match[str]:
    """The id's parts. Raises SampleError, which says the `shape` that the layout needs."""
    match = re.fullmatch(pattern, sample.id, re.DOTALL)
    if match is None:
        raise SampleError(f"its id isn't {shape}; read the data by the benchmark's own reader")
    return match
