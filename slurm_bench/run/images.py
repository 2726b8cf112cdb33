"""The edited images against their records (law 15)."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from slurm_bench.run.layout import RunDir
from slurm_bench.run.records import Record

READERS = 8


# What a name raises that leads to no file, also one that no file can have.
NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError)


def read_recorded(run: RunDir, record: Record) -> tuple[bytes, str]:
    """The image that a record names, and what is wrong with it, if anything is."""
    try:
        data = (run.root / record["image"]).read_bytes()
    except NOT_THERE:
        return b"", f"{record['image']} is gone"
    if hashlib.sha256(data).hexdigest() != record["sha256"]:
        return b"", f"{record['image']} isn't the image that was recorded (another sha256)"
    return data, ""


def find_changed(run: RunDir, records: Iterable[Record]) -> dict[str, str]:
    """Every image read: the ids whose image is gone or isn't what was recorded, each with what is wrong."""

    def look(record: Record) -> tuple[str, str]:
        return record["id"], read_recorded(run, record)[1]

    with ThreadPoolExecutor(READERS) as readers:
        return {sample_id: problem for sample_id, problem in readers.map(look, records) if problem}


def _sizes(folder: Path) -> dict[str, int]:
    """Of the files in a folder, by name. One that goes while they are looked at (a task at work renames what it has
    written) says nothing of the others."""
    sizes = {}
    with suppress(*NOT_THERE), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(*NOT_THERE):
                sizes[entry.name] = entry.stat().st_size
    return sizes


def find_gone(run: RunDir, records: Iterable[Record]) -> dict[str, str]:
    """As far as the folders' listings tell: gone, or of another size. It reads no image, and asks for no file by
    itself: on a parallel file system that is what takes long."""
    by_folder: Mapping[str, list[Record]] = defaultdict(list)
    for record in records:
        by_folder[record["image"].rpartition("/")[0]].append(record)
    found = {}
    for folder, inside in by_folder.items():
        sizes = _sizes(run.root / folder)
        for record in inside:
            size = sizes.get(os.path.basename(record["image"]))
            if size is None:
                found[record["id"]] = f"{record['image']} is gone"
            elif size == 0:
                found[record["id"]] = f"{record['image']} is empty"
            elif size != record.get("bytes", size):
                found[record["id"]] = f"{record['image']} has {size} bytes, not the {record['bytes']} recorded"
    return found
