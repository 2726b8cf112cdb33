"""Which pictures a sample has, and where a browser that opens the report finds them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote

import msgspec

from slurm_bench.run.layout import RunDir
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import Record
from slurm_bench.run.turns import sources_of


class Picture(msgspec.Struct, frozen=True, gc=False):
    """`role` is what a person calls it. `sha256` is that of the file's bytes as a record has it, or None where no
    record speaks of this file: nobody edited this source, and references are in no record."""

    role: str
    file: str
    sha256: str | None = None

    def key(self) -> str:
        """Names its thumbnail: another content, another key. Without a recorded sha256 it takes the file's path, size
        and time, so that no file is read to learn that its thumbnail is there. Raises OSError, and ValueError where
        that is no path."""
        if self.sha256 is not None:
            return self.sha256[:32]
        found = os.stat(self.file)
        text = os.fsencode(self.file) + f"|{found.st_size}|{found.st_mtime_ns}".encode()
        return hashlib.sha256(text).hexdigest()[:32]


# How a page shows a picture: {"role", "thumb", "full", "problem"}.
Show = Callable[[Picture], Mapping[str, str]]


def link_from_report(run: RunDir, picture: Picture) -> str:
    """The URL of the full image from the run's report, relative where it can travel with the run."""
    root = f"{run.root}/"
    if picture.file.startswith(root):
        try:
            return "../" + quote(os.fsencode(picture.file[len(root) :]))
        except ValueError:
            pass
    return link_from_anywhere(picture)


def link_from_anywhere(picture: Picture) -> str:
    """A URL that holds on this machine; empty for what no file system takes for a path."""
    try:
        return "file://" + quote(os.fsencode(picture.file)) if picture.file.startswith("/") else ""
    except ValueError:
        return ""


def pictures_of(run: RunDir, sample: Sample, edited: Record | None) -> Iterator[Picture]:
    """Sources, their mask, the edited image, the reference: in the order in which they are looked at."""
    recorded = (edited or {}).get("source_sha256")
    sums = recorded if isinstance(recorded, list) else [recorded]
    sources = sources_of(run, sample, str(edited.get("by", ""))) if edited else sample.sources
    for number, source in enumerate(sources, 1):
        role = "source" if len(sources) == 1 else f"source {number}"
        sha256 = sums[number - 1] if len(sums) == len(sources) else None
        yield Picture(role, os.path.join(run.root, source), sha256)
    if sample.mask is not None:
        yield Picture("mask", os.path.join(run.root, sample.mask))
    if edited is not None and "image" in edited:
        yield Picture("edited", os.path.join(run.root, edited["image"]), edited["sha256"])
    if sample.reference is not None:
        yield Picture("reference", os.path.join(run.root, sample.reference))
