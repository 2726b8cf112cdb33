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
# So many seconds a file server's clock may be ahead of a node's, and so many images that were written after their
# records are read. Where more were, the clock is wrong or the folder was copied, and `verify` tells.
AHEAD, MOST_READ = 0.5, 256


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


def _listed(folder: Path) -> dict[str, os.stat_result]:
    """The files in a folder, by name. One that goes while they are looked at (a task at work renames what it has
    written) says nothing of the others."""
    listed = {}
    with suppress(*NOT_THERE), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(*NOT_THERE):
                listed[entry.name] = entry.stat()
    return listed


def find_gone(run: RunDir, records: Iterable[Record]) -> dict[str, str]:
    """As far as the folders' listings tell: gone, of another size, or written after its record, and then it is read. Of
    no other file is anything asked by itself: on a parallel file system that is what takes long."""
    by_folder: Mapping[str, list[Record]] = defaultdict(list)
    for record in records:
        by_folder[record["image"].rpartition("/")[0]].append(record)
    found, written_since = {}, []
    for folder, inside in by_folder.items():
        listed = _listed(run.root / folder)
        for record in inside:
            file = listed.get(os.path.basename(record["image"]))
            if file is None:
                found[record["id"]] = f"{record['image']} is gone"
            elif file.st_size == 0:
                found[record["id"]] = f"{record['image']} is empty"
            elif file.st_size != record.get("bytes", file.st_size):
                found[record["id"]] = f"{record['image']} has {file.st_size} bytes, not the {record['bytes']} recorded"
            elif file.st_mtime > record.get("time", 0.0) + AHEAD:
                written_since.append(record)
    return found | (find_changed(run, written_since) if len(written_since) <= MOST_READ else {})
