"""The plan: the frozen list of a run's samples. It never changes once it is there (law 1)."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from sys import intern
from typing import Any

import msgspec
from msgspec import structs

from slurm_bench.command import command
from slurm_bench.data.formats.kinds import sniff_extension
from slurm_bench.data.item import Item
from slurm_bench.errors import UserError
from slurm_bench.machine import process_start, without_collection
from slurm_bench.run.durable import create_once, json_line, move_into, parse_line, write_atomic
from slurm_bench.run.layout import CHAINED, VERSION, RunDir, check_version
from slurm_bench.run.shapes import UNFIT, Int64
from slurm_bench.run.slices import seed_of

MOST = 10_000_000  # samples of a plan, each under each of its seeds

_ASIDE = ".sources."  # what the folder is called in which a launcher unpacks, up to its host

_NO_FACTS: Mapping[str, Any] = {}  # of all that have none: a million empty dicts take 64 MB


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One line of the plan. Image paths are absolute, or relative to the run folder where unpacked. Where every sample
    has several seeds, `sample` is the data's id, and `repeat` counts its lines from 1. One that `follows` another, of a
    line before it, has that one's edited image as its source. `source` is the path of one source alone, or those of
    several."""

    index: Int64
    id: str
    category: str
    instruction: str
    source: str | tuple[str, ...] | None
    seed: Int64
    description: str = ""
    rationale: str = ""
    reference: str | None = None
    problem: str = ""
    facts: Mapping[str, Any] = msgspec.field(default_factory=dict)
    mask: str | None = None
    sample: str = ""
    repeat: Int64 = 1
    follows: str = ""

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,) if isinstance(self.source, str) else self.source or ()

    @property
    def data_id(self) -> str:
        """The id that the data gave: what the repeats of one sample share."""
        return self.sample or self.id

    def to_json(self) -> dict[str, Any]:
        row = structs.asdict(self)
        if not self.mask:
            del row["mask"]
        if not self.sample:
            del row["sample"], row["repeat"]
        if not self.follows:
            del row["follows"]
        source = row.pop("source")
        row["source"] = list(source) if isinstance(source, tuple) else source
        row["v"] = VERSION
        return row

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Sample:
        """Raises one of `shapes.UNFIT`."""
        return msgspec.convert(row, cls)

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) or not self.source:  # of one alone a tuple takes 48 bytes more
            several = self.source or ()
            structs.force_setattr(self, "source", several if len(several) > 1 else next(iter(several), None))
        if not self.facts:
            structs.force_setattr(self, "facts", _NO_FACTS)
        structs.force_setattr(self, "category", intern(self.category))


_DECODER = msgspec.json.Decoder(Sample)


class Plan:
    """A plan in the making. Images that the data have within are unpacked on the way, into a folder of this launcher's
    own until the plan is frozen: another one that plans the same run must not lose its images to one that fails, nor
    have them replaced. A plan that is only to be looked at unpacks none: `unlike` has the samples of which the run
    folder has another image."""

    def __init__(self, run: RunDir, unpack: bool = True) -> None:
        self._run, self._unpack = run, unpack
        self.samples: list[Sample] = []
        self._aside = run.root / f"{_ASIDE}{socket.gethostname()}-{os.getpid()}-{time.monotonic_ns()}.tmp"
        self.unlike: set[str] = set()

    def add(self, items: Iterable[Item], base_seed: int, repeats: int = 1) -> None:
        """Raises UserError where the data can't be trusted."""
        for index, item in enumerate(items, len(self.samples)):
            self.samples.append(self._planned(index, item, base_seed))
        if repeats > 1:
            self.samples = repeated(self.samples, base_seed, repeats)

    def freeze(self) -> list[Sample]:
        """Where two launchers plan the same run at once, the first to finish wins and both get its plan."""
        version = {"v": CHAINED} if any(sample.follows for sample in self.samples) else {}
        lines = b"".join(json_line(sample.to_json() | version) for sample in self.samples)
        won = create_once(self._run.plan, lines, self._settle)
        self.withdraw()
        self._remove_left()
        return self.samples if won else read_plan(self._run)

    def withdraw(self) -> None:
        """Remove what was unpacked and isn't the run's."""
        shutil.rmtree(self._aside, ignore_errors=True)

    def _remove_left(self) -> None:
        """What launchers of this host unpacked that were killed. With the plan frozen nobody else's is of use."""
        own = f"{_ASIDE}{socket.gethostname()}-"
        for folder in self._run.root.glob(f"{own}*.tmp"):
            pid = folder.name.removeprefix(own).partition("-")[0]
            if pid.isdecimal() and process_start(int(pid)) is None:
                shutil.rmtree(folder, ignore_errors=True)

    def _settle(self) -> None:
        """The images to where the plan says; in the plan's last moment, so that a full disk leaves none there."""
        if self._aside.exists() and not self._run.plan.exists():
            move_into(self._aside, self._run.sources)

    def _planned(self, index: int, item: Item, base_seed: int) -> Sample:
        parts = item.source if isinstance(item.source, tuple) else (item.source,)
        sources = tuple(
            self._placed(item.id, f"-{n}" if n else "", part) for n, part in enumerate(parts) if part is not None
        )
        reference = None if item.reference is None else self._placed(item.id, "-reference", item.reference)
        mask = None if item.mask is None else self._placed(item.id, "-mask", item.mask)
        return Sample(
            index=index,
            id=item.id,
            category=item.category,
            instruction=item.instruction,
            source=sources,
            seed=seed_of(item.id, base_seed),
            description=item.description,
            rationale=item.rationale,
            reference=reference,
            problem="" if item.on_storage else item.problem,
            facts=item.facts,
            mask=mask,
            follows=item.follows,
        )

    def _placed(self, sample_id: str, part: str, image: Path | bytes) -> str:
        if isinstance(image, Path):
            return str(image.absolute())
        relative = self._run.source(sample_id, part, sniff_extension(image))
        file = self._run.root / relative
        if self._unpack:
            write_atomic(self._aside / file.relative_to(self._run.sources), image)
        elif file.is_file() and file.read_bytes() != image:
            self.unlike.add(sample_id)
        return relative


def repeated(samples: Sequence[Sample], base_seed: int, repeats: int) -> list[Sample]:
    """Every sample under so many seeds: first all as they are, then all again as `id@2`, and so on, so that what has
    been made at any time covers the samples alike. Raises UserError where the data have such an id themselves."""
    taken = {sample.id for sample in samples}
    if len(samples) * repeats > MOST:
        raise UserError(f"'repeats' is {repeats}: with {len(samples)} samples that are more than {MOST:,} to make")
    rows = [structs.replace(sample, sample=sample.id) for sample in samples]
    for repeat in range(2, repeats + 1):
        for sample in samples:
            name = f"{sample.id}@{repeat}"
            if name in taken:
                raise UserError(
                    f"the data have a sample {name!r}, which is {sample.id!r} under seed number {repeat}; "
                    "give it another id, or plan with repeats=1"
                )
            row = structs.replace(sample, index=len(rows), id=name, seed=seed_of(name, base_seed), repeat=repeat)
            follows = f"{sample.follows}@{repeat}" if sample.follows else ""
            rows.append(structs.replace(row, sample=sample.id, follows=follows))
    return rows


@without_collection()
def read_plan(run: RunDir) -> list[Sample]:
    """Raises UserError where there is no plan, or one that was damaged: it is written whole, or not at all."""
    try:
        with open(run.plan, "rb") as file:
            check_version(parse_line(file.readline()), run.plan)
            file.seek(0)
            return [_sample(line) for line in file]
    except FileNotFoundError:
        if run.provenance.exists():
            raise UserError(f"{run.plan}: it is gone; restore it from a copy") from None
        line = command("run", "--run-dir", run.root)
        raise UserError(f"{run.root}: it has no {run.plan.name} yet; where nobody makes it, type: {line}") from None
    except UNFIT as error:
        raise UserError(f"{run.plan}: damaged: {error}") from None


def _sample(line: bytes) -> Sample:
    try:
        return _DECODER.decode(line)
    except UNFIT:  # half of a character, in a path; or damaged
        return Sample.from_json(parse_line(line))
