"""A run's edited images written in a format's layout. What has none is left out and named, never made up.

A layout has one image a sample: where samples have several seeds, that of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from slurm_bench.data.text import quoted
from slurm_bench.errors import SampleError, UserError
from slurm_bench.export.folder import Folder, alone_in, open_folder
from slurm_bench.export.layout import INDEX, File, Layout, name_problem
from slurm_bench.export.pictures import JPEG_QUALITY, picture
from slurm_bench.run.durable import write_atomic
from slurm_bench.run.images import READERS
from slurm_bench.run.opened import Run
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import Record

NO_PLACE = "no place: "  # how the reason begins where no image is missing
Files = Mapping[str, tuple[File, ...]]  # by sample id


@dataclass(frozen=True)
class Exported:
    """`samples` has the paths of each sample's files, from the folder; `left_out` says of each other why it has none.
    Both are in the plan's order. Of `unwanted` samples the layout has no file: a turn before the last one."""

    samples: Mapping[str, Sequence[str]]
    left_out: Mapping[str, str]
    unwanted: int


def export(run: Run, name: str, out: Path, model: str) -> Exported:
    """`name` is one of FORMATS. Raises UserError; then nothing has changed, unless the disk failed.

    The list is there before the images, so that an export that is cut short is known for one, and gone on with.
    """
    layout: Layout = import_module(f"slurm_bench.export.{name}").LAYOUT
    if problem := name_problem(model):
        raise UserError(f"--model {model!r}: can't be a folder's name: {problem}")
    records, left_out = _edited(run)
    places, unplaced = _placed(first_repeats(run), layout, model)
    unwanted = {sample_id for sample_id, each in places.items() if not each}
    left_out = {i: why for i, why in (left_out | unplaced).items() if i not in unwanted}
    files = _less(places, left_out.keys() | unwanted)
    placed = [sample for sample in first_repeats(run) if sample.id in places]
    look = partial(_look, out, name, model, layout, placed, files)
    look()  # refused before anything is made
    try:
        with alone_in(out.absolute()):
            folder, index = look()  # another export may have ended meanwhile
            folder.remove_others(model, _paths(files))
            folder = folder.note(model, _entry(run, files, left_out, whole=False))
            left_out |= _write_images(run, folder.root, files, records)
            files = _less(files, left_out)
            folder.remove_others(model, _paths(files))
            if index:
                write_atomic(folder.root / INDEX, index(files))
            entry = _entry(run, files, left_out, whole=True)
            folder.note(model, entry)
    except OSError as error:
        raise UserError(f"{error.filename or out}: {error.strerror}; mend it and type the same again") from None
    return Exported(entry["samples"], entry["left_out"], len(unwanted))


def _look(
    out: Path, name: str, model: str, layout: Layout, placed: Sequence[Sample], files: Files
) -> tuple[Folder, Callable[[Collection[str]], bytes] | None]:
    """The folder as it is, and what gives its metadata.jsonl, where the layout has one. Raises UserError."""
    folder = open_folder(out, name, model, layout)
    folder.refuse_foreign(_paths(files))
    index = layout.index and partial(layout.index, folder.read(INDEX), placed, model)
    if index:
        index(())  # refuses what is damaged
    return folder, index


def first_repeats(run: Run) -> list[Sample]:
    return [sample for sample in run.samples if sample.repeat == 1]


def _edited(run: Run) -> tuple[dict[str, Record], dict[str, str]]:
    """The record of each edited sample, and why any other has none."""
    state = run.state()
    edited = {sample_id: outcome.ok for sample_id, outcome in state.edits.items() if outcome.ok is not None}
    others = [sample.id for sample in first_repeats(run) if sample.id not in edited]
    return edited, {sample_id: state.failure(sample_id) or "missing: not edited yet" for sample_id in others}


def _placed(samples: Sequence[Sample], layout: Layout, model: str) -> tuple[Files, dict[str, str]]:
    """The files of each sample, and why others have no place. Of two with one place the first has it, edited or not:
    another sample's image never stands for one that failed."""
    placed: dict[str, tuple[File, ...]] = {}
    unplaced: dict[str, str] = {}
    owners: dict[str, str] = {}
    for sample in samples:
        try:
            files = layout.files(sample, model)
            taken = next((file.path for file in files if file.path in owners), None)
            if taken is not None:
                raise SampleError(f"its place {taken} is that of the sample {quoted(owners[taken])}")
        except SampleError as error:
            unplaced[sample.id] = f"{NO_PLACE}{error}"
        else:
            placed[sample.id] = files
            owners |= {file.path: sample.id for file in files}
    return placed, unplaced


def _write_images(run: Run, root: Path, files: Files, records: Mapping[str, Record]) -> dict[str, str]:
    """What is wrong with those that couldn't be."""
    samples = [sample for sample in run.samples if sample.id in files]
    with ThreadPoolExecutor(READERS) as pool:
        problems = pool.map(lambda s: _write_one(run, root, s, records[s.id], files[s.id]), samples)
        return {sample.id: problem for sample, problem in zip(samples, problems, strict=True) if problem}


def _write_one(run: Run, root: Path, sample: Sample, record: Record, files: Sequence[File]) -> str:
    """All of a sample's files, or none and what is wrong."""
    try:
        pictures = [picture(run.folder, sample, record, file) for file in files]
    except SampleError as error:
        return str(error)
    for file, data in zip(files, pictures, strict=True):
        write_atomic(root / file.path, data)
    return ""


def _entry(run: Run, files: Files, left_out: Mapping[str, str], whole: bool) -> dict[str, Any]:
    paths = {sample_id: [file.path for file in each] for sample_id, each in files.items()}
    jpeg = any(path.endswith(".jpg") for each in paths.values() for path in each)
    return {
        "run": str(run.root),
        "whole": whole,
        **({"jpeg_quality": JPEG_QUALITY} if jpeg else {}),
        "samples": paths,
        "left_out": {sample.id: left_out[sample.id] for sample in run.samples if sample.id in left_out},
    }


def _paths(files: Files) -> set[str]:
    return {file.path for each in files.values() for file in each}


def _less(files: Files, left_out: Collection[str]) -> Files:
    return {sample_id: each for sample_id, each in files.items() if sample_id not in left_out}
