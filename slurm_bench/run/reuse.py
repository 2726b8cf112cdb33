"""Taking over what an earlier run made: for data that grew, since a plan never does."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from slurm_bench.data.images import file_bytes
from slurm_bench.errors import SampleError
from slurm_bench.run.durable import LineWriter, write_atomic
from slurm_bench.run.images import READERS, read_recorded
from slurm_bench.run.layout import VERSION
from slurm_bench.run.opened import Run
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import Record, State, read_records, reserve_manifest


def reuse(run: Run, old: Run) -> int:
    """Take over every image of `old` whose sample (id, instruction, seed, sources' sha256) and editor (`by`) are the
    same, as links where the file system allows; gives how many. Raises OSError."""
    made = reusable(run, old, run.state())
    same = [sample for sample in run.samples if sample.id in made]
    if not same:
        return 0
    restart = reserve_manifest(run.folder, "edit", 0, 0)
    manifest = LineWriter(run.folder.manifest("edit", 0, 0, restart), reserved=True)
    taken = 0
    with closing(manifest), ThreadPoolExecutor(READERS) as readers:
        for record in readers.map(lambda sample: _take(run, old, sample, made[sample.id]), same):
            if record is not None:
                manifest.write(record)
                taken += 1
    return taken


def reusable(run: Run, old: Run, state: State) -> dict[str, Record]:
    """What `old` has of the samples that have no image yet, by id, as far as plans and records tell: whether sources
    and images are still the same is known when they are read."""
    by, known, missing = run.by["editor"], {s.id: s for s in old.samples}, set(state.to_edit())
    made = {r["id"]: r for r in read_records(old.folder, "edit") if r["status"] == "ok" and r.get("by") == by}
    return {s.id: made[s.id] for s in run.samples if s.id in made and s.id in missing and _alike(s, known.get(s.id))}


def _alike(sample: Sample, before: Sample | None) -> bool:
    """What follows another sample is made anew: its source is made first."""
    return (
        not sample.follows
        and before is not None
        and (sample.instruction, sample.seed) == (before.instruction, before.seed)
    )


def _take(run: Run, old: Run, sample: Sample, record: Record) -> dict[str, Any] | None:
    """The record of the image in its new place (law 2), or None where its source or the image itself is another."""
    try:
        sources = [hashlib.sha256(file_bytes(run.root / source)).hexdigest() for source in sample.sources]
    except SampleError:
        return None
    if record.get("source_sha256") != (sources[0] if len(sources) == 1 else sources):
        return None
    data, problem = read_recorded(old.folder, record)
    if problem:
        return None
    path = run.folder.image(sample.id, record["by"])
    place = run.root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old.root / record["image"], place)
    except OSError:  # no links here, or a file is there that nobody recorded
        write_atomic(place, data)
    facts = {"image": path, "attempt": 0, "task": 0, "host": socket.gethostname(), "time": time.time(), "v": VERSION}
    return {**record, **facts, "reused": str(old.root)}
