"""What the two stages do with one sample: an adaptor each between the run folder and a plug-in."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from slurm_bench.data.images import file_bytes, open_image
from slurm_bench.editors.base import Edited, EditRequest
from slurm_bench.errors import FinalError, SampleError
from slurm_bench.logs import hide_secrets
from slurm_bench.run.beside import BESIDE
from slurm_bench.run.durable import write_atomic
from slurm_bench.run.images import read_recorded
from slurm_bench.run.layout import RunDir
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import Record
from slurm_bench.run.turns import NoTurnBefore, sources_of
from slurm_bench.scorers.base import LARGEST, Score, Scored, ScoreRequest, declared_score, declared_scores
from slurm_bench.stages.picture import copied, encode_png, largest_change, pixels_digest, small
from slurm_bench.stages.rewriting import Rewriting


class ParseFailure(FinalError):
    """The judge spoke, and no score could be read from it; asked again it would say the same."""

    def __init__(self, scored: Scored) -> None:
        super().__init__(scored.parse, raw=scored.raw, parse=scored.parse, info=scored.info)


@dataclass(frozen=True)
class Sources:
    """A sample's source images, decoded and upright, with the sha256 of each file."""

    images: tuple[Image.Image, ...]
    sha256: tuple[str, ...]

    @property
    def for_record(self) -> str | list[str]:
        return self.sha256[0] if len(self.sha256) == 1 else list(self.sha256)


@dataclass(frozen=True)
class EditInput:
    """`before` is the first source as it was read: an editor may paint on the request's."""

    request: EditRequest
    source_sha256: str | list[str]
    before: Image.Image


@dataclass(frozen=True)
class Taken:
    """An edited image in memory of its own."""

    image: Image.Image
    info: dict[str, Any]
    given: EditInput


@dataclass(frozen=True)
class EditWork:
    """`turns` are the records of images that others may follow, to which those made here are added; None where no
    sample follows another. A turn's image that is no more is told to `lost`."""

    run: RunDir
    editor: Any
    by: str
    rewriting: Rewriting | None = None
    turns: dict[str, Record] | None = None
    lost: Callable[[Record, str], None] = lambda record, problem: None

    def about(self, sample: Sample) -> dict[str, Any]:
        rewrite = self.rewriting.known.get(sample.id) if self.rewriting else None
        return {"seed": sample.seed, "by": self.by} | ({"rewrite": rewrite} if rewrite else {})

    def read(self, sample: Sample) -> EditInput:
        if sample.follows and not sample.problem:
            self._check_turn(sample.follows)
        sources = read_sources(self.run, sample, self.by)
        request = EditRequest(sample.id, sample.instruction, sources.images, sample.seed)
        if self.rewriting is not None:
            request = self.rewriting.rewritten(sample, request, sources.for_record)
        return EditInput(request, sources.for_record, request.image.copy())

    def _check_turn(self, before: str) -> None:
        record = (self.turns or {}).get(before)
        if record is None:
            raise NoTurnBefore(f"its turn before, {before!r}, has no image")
        problem = read_recorded(self.run, record)[1]
        if problem:
            if "time" in record:
                self.lost(record, problem)
            raise NoTurnBefore(f"its turn before, {before!r}, has lost its image: {problem}")

    def weight(self, given: EditInput) -> int:
        return _bytes_of([*given.request.images, given.before])

    def expect(self, coming: Callable[[], Sequence[EditInput]]) -> None:
        """An editor is told of the whole task, by its `prepare`."""

    def call(self, batch: Sequence[EditInput]) -> Sequence[Any]:
        return self.editor.edit([given.request for given in batch])

    def take(self, given: EditInput, result: Any) -> Taken:
        edited = result if isinstance(result, Edited) else Edited(result)
        if not isinstance(edited.image, Image.Image):
            raise SampleError(f"the editor gave a {type(edited.image).__name__}, not an image")
        return Taken(copied(edited.image), checked_info(edited.info), given)

    def keep(self, sample: Sample, taken: Taken) -> dict[str, Any]:
        begin = time.monotonic()
        data = encode_png(taken.image)
        path = self.run.image(sample.id, self.by)
        self.run.check_there()
        write_atomic(self.run.root / path, data)
        parts = taken.info.setdefault("seconds", {})
        if isinstance(parts, dict):
            parts["encode"] = round(time.monotonic() - begin, 4)
        sha256 = hashlib.sha256(data).hexdigest()
        before = taken.given.before
        change = largest_change(small(before), small(taken.image))
        if self.turns is not None:
            self.turns[sample.id] = {"image": path, "sha256": sha256}
        return {
            "image": path,
            "sha256": sha256,
            "bytes": len(data),
            "source_sha256": taken.given.source_sha256,
            "width": taken.image.width,
            "height": taken.image.height,
            "unchanged": change == 0 and pixels_digest(taken.image) == pixels_digest(before),
            "largest_change": change,
            "info": taken.info,
        }


@dataclass(frozen=True)
class ScoreWork:
    """`edits` are the records of the images to score; one whose image is no more is told to `lost`. `beside` has the
    sha256 of what was read beside the sources and the edit, for the record to come."""

    run: RunDir
    name: str
    scorer: Any
    by: str
    edits: Mapping[str, Record]
    lost: Callable[[Record, str], None]
    beside: dict[str, dict[str, str]] = field(default_factory=dict)

    def about(self, sample: Sample) -> dict[str, Any]:
        """A score, or a failure to score, holds for this very image, made from these very sources."""
        record = self.edits[sample.id]
        facts = {"scorer": self.name, "by": self.by, "edit_sha256": record["sha256"]}
        facts |= {"source_sha256": record["source_sha256"]} if "source_sha256" in record else {}
        return facts | self.beside.pop(sample.id, {})

    def read(self, sample: Sample) -> ScoreRequest:
        record = self.edits[sample.id]
        data, problem = read_recorded(self.run, record)
        if problem:
            self.lost(record, problem)
            raise SampleError(f"the edited image is lost, and will be made again: {problem}")
        sources = edited_sources(self.run, sample, record)
        beside, self.beside[sample.id] = _beside(self.run, sample)
        return ScoreRequest(
            id=sample.id,
            category=sample.category,
            instruction=sample.instruction,
            sources=sources.images,
            edited=open_image(data),
            reference=beside.get("reference"),
            description=sample.description,
            rationale=sample.rationale,
            seed=sample.seed,
            facts=sample.facts,
            mask=beside.get("mask"),
        )

    def weight(self, given: ScoreRequest) -> int:
        return _bytes_of([*given.sources, given.edited, *(image for image in (given.reference, given.mask) if image)])

    def expect(self, coming: Callable[[], Sequence[ScoreRequest]]) -> None:
        if hasattr(self.scorer, "prefetch"):
            self.scorer.prefetch(coming)

    def call(self, batch: Sequence[ScoreRequest]) -> Sequence[Any]:
        return self.scorer.score(batch)

    def take(self, given: ScoreRequest, result: Any) -> Scored:
        scored = result if isinstance(result, Scored) else Scored(result)
        if not isinstance(scored.raw, str | None):
            raise SampleError(f"the scorer's raw reply is a {type(scored.raw).__name__}, not text")
        if not isinstance(scored.parse, str):
            raise SampleError(f"the scorer's 'parse' is {scored.parse!r}; it is \"ok\", or a text that says why not")
        raw = hide_secrets(scored.raw) if scored.raw else scored.raw
        return replace(scored, raw=raw, info=checked_info(scored.info))

    def keep(self, sample: Sample, taken: Scored) -> dict[str, Any]:
        if taken.parse != "ok":
            raise ParseFailure(taken)
        return {
            "scores": checked_scores(taken.scores, declared_scores(self.scorer)),
            "raw": taken.raw,
            "parse": taken.parse,
            "info": taken.info,
        }


def read_sources(run: RunDir, sample: Sample, by: str) -> Sources:
    """Those of a sample that this editor edits. Raises SampleError. A file that wasn't there when the run was planned
    is looked for again."""
    if sample.problem:
        raise SampleError(sample.problem)
    paths = sources_of(run, sample, by)
    if not paths:
        raise SampleError("the data names no source image")
    files = []
    for source in paths:
        try:
            files.append(file_bytes(run.root / source))
        except SampleError as error:
            raise SampleError(f"{source}: {error}") from error.__cause__
    images = []
    for source, data in zip(paths, files, strict=True):
        try:
            images.append(open_image(data))
        except SampleError as error:
            raise SampleError(f"{source}: {error}") from error.__cause__
    return Sources(tuple(images), tuple(hashlib.sha256(data).hexdigest() for data in files))


def _beside(run: RunDir, sample: Sample) -> tuple[dict[str, Image.Image], dict[str, str]]:
    """What the scorer gets beside the sources and the edit, and the sha256 of each file. Raises SampleError that says
    which one it is."""
    images, sha256 = {}, {}
    for name in BESIDE:
        if not (path := getattr(sample, name)):
            continue
        try:
            data = file_bytes(run.root / path)
            images[name] = open_image(data)
        except SampleError as error:
            raise SampleError(f"{name}: {path}: {error}") from error.__cause__
        sha256[f"{name}_sha256"] = hashlib.sha256(data).hexdigest()
    return images, sha256


def edited_sources(run: RunDir, sample: Sample, record: Record) -> Sources:
    """Those that the image of this record was made from, for whoever judges it. Raises SampleError."""
    sources = read_sources(run, sample, record.get("by", ""))
    if record.get("source_sha256", sources.for_record) != sources.for_record:
        raise SampleError("the source isn't the one that was edited (another sha256); restore it, or plan a new run")
    return sources


def checked_scores(scores: Any, declared: Mapping[str, Score] | None) -> dict[str, float]:
    """Finite numbers, each within its range, or SampleError: a wrong number is worse than none."""
    if not isinstance(scores, Mapping) or not scores:
        raise SampleError(f"the scorer gave {type(scores).__name__}, not {{name: number}}")
    checked = {}
    for name, value in scores.items():
        if isinstance(value, bool) or not hasattr(value, "__float__") or not math.isfinite(float(value)):
            raise SampleError(f"the score '{name}' is {value!r}, not a finite number")
        if abs(float(value)) > LARGEST:
            raise SampleError(f"the score '{name}' is {value}; it is from {-LARGEST} to {LARGEST}")
        score = declared_score(declared, name)
        if score is not None and score.excludes(float(value)):
            raise SampleError(f"the score '{name}' is {value}, out of its range {score.low} to {score.high}")
        checked[str(name)] = float(value)
    return checked


def checked_info(info: Any) -> dict[str, Any]:
    """A plug-in's facts for the record, as JSON will give them back, without secrets. Raises SampleError."""
    try:
        facts = json.loads(hide_secrets(json.dumps(info, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise SampleError(f"the plug-in's info isn't JSON: {error}") from None
    if not isinstance(facts, dict):
        raise SampleError(f"the plug-in's info is a {type(info).__name__}, not a dict")
    return facts


def _bytes_of(images: Iterable[Image.Image]) -> int:
    return sum(image.width * image.height * len(image.getbands()) for image in images)
