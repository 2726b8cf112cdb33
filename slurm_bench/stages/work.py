"""What the two stages do with one sample: an adaptor each between the run folder and a plug-in."""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from slurm_bench.data.images import open_image
from slurm_bench.editors.base import Edited, EditRequest
from slurm_bench.errors import SampleError
from slurm_bench.run.durable import write_atomic
from slurm_bench.run.layout import RunDir
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import Record
from slurm_bench.scorers.base import Score, Scored, ScoreRequest, declared_score, declared_scores

# zlib's level 1: half the time of the default for a photograph, a tenth more bytes.
PNG_LEVEL = 1


class ParseFailure(SampleError):
    """The judge spoke, and no score could be read from it. `fields` go into the record; `final` says that asking
    again would get the same reply."""

    def __init__(self, scored: Scored) -> None:
        super().__init__(scored.parse)
        self.fields = {"raw": scored.raw, "parse": scored.parse, "info": checked_info(scored.info), "final": True}


@dataclass(frozen=True)
class EditWork:
    run: RunDir
    editor: Any

    def about(self, sample: Sample) -> dict[str, Any]:
        return {"seed": sample.seed}

    def read(self, sample: Sample) -> EditRequest:
        return EditRequest(sample.id, sample.instruction, read_sources(self.run, sample), sample.seed)

    def expect(self, coming: Callable[[], Sequence[EditRequest]]) -> None:
        """An editor is told of the whole task, by its `prepare`."""

    def call(self, batch: Sequence[EditRequest]) -> Sequence[Any]:
        return self.editor.edit(batch)

    def keep(self, sample: Sample, request: EditRequest, result: Any) -> dict[str, Any]:
        edited = result if isinstance(result, Edited) else Edited(result)
        if not isinstance(edited.image, Image.Image):
            raise SampleError(f"the editor gave a {type(edited.image).__name__}, not an image")
        facts = checked_info(edited.info)
        begin = time.monotonic()
        data = encode_png(edited.image)
        path = self.run.image(sample.id)
        write_atomic(self.run.root / path, data)
        parts = facts.setdefault("seconds", {})
        if isinstance(parts, dict):
            parts["encode"] = round(time.monotonic() - begin, 4)
        return {
            "image": path,
            "sha256": hashlib.sha256(data).hexdigest(),
            "width": edited.image.width,
            "height": edited.image.height,
            "unchanged": _same_pixels(request.image, edited.image),
            "info": facts,
        }


@dataclass(frozen=True)
class ScoreWork:
    run: RunDir
    name: str
    scorer: Any
    edits: Mapping[str, Record]

    def about(self, sample: Sample) -> dict[str, Any]:
        """A score, or a failure to score, holds for this very image."""
        return {"scorer": self.name, "edit_sha256": self.edits[sample.id]["sha256"]}

    def read(self, sample: Sample) -> ScoreRequest:
        record = self.edits[sample.id]
        data = (self.run.root / record["image"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != record["sha256"]:
            raise SampleError(f"{record['image']} isn't the image that was recorded (another sha256)")
        return ScoreRequest(
            id=sample.id,
            category=sample.category,
            instruction=sample.instruction,
            sources=read_sources(self.run, sample),
            edited=open_image(data),
            reference=open_image(self.run.root / sample.reference) if sample.reference else None,
            description=sample.description,
            rationale=sample.rationale,
            seed=sample.seed,
        )

    def expect(self, coming: Callable[[], Sequence[ScoreRequest]]) -> None:
        if hasattr(self.scorer, "expect"):
            self.scorer.expect(coming)

    def call(self, batch: Sequence[ScoreRequest]) -> Sequence[Any]:
        return self.scorer.score(batch)

    def keep(self, sample: Sample, request: ScoreRequest, result: Any) -> dict[str, Any]:
        scored = result if isinstance(result, Scored) else Scored(result)
        if scored.parse != "ok":
            raise ParseFailure(scored)
        return {
            "scores": checked_scores(scored.scores, declared_scores(self.scorer)),
            "raw": scored.raw,
            "parse": scored.parse,
            "info": checked_info(scored.info),
        }


def read_sources(run: RunDir, sample: Sample) -> tuple[Image.Image, ...]:
    """The source images, decoded and upright. Raises SampleError."""
    if sample.problem:
        raise SampleError(sample.problem)
    if not sample.sources:
        raise SampleError("the data names no source image")
    return tuple(open_image(run.root / source) for source in sample.sources)


def encode_png(image: Image.Image) -> bytes:
    """The same pixels give the same bytes: no metadata travels with them."""
    if min(image.size) < 1:
        raise SampleError(f"the editor gave an empty image, {image.width}×{image.height}")
    plain = image if image.mode in ("RGB", "RGBA") else image.convert("RGB")
    clean = Image.frombytes(plain.mode, plain.size, plain.tobytes())
    buffer = io.BytesIO()
    clean.save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def checked_scores(scores: Any, declared: Mapping[str, Score] | None) -> dict[str, float]:
    """Finite numbers, each within its range, or SampleError: a wrong number is worse than none."""
    if not isinstance(scores, Mapping) or not scores:
        raise SampleError(f"the scorer gave {type(scores).__name__}, not {{name: number}}")
    checked = {}
    for name, value in scores.items():
        if isinstance(value, bool) or not hasattr(value, "__float__") or not math.isfinite(float(value)):
            raise SampleError(f"the score '{name}' is {value!r}, not a finite number")
        score = declared_score(declared, name)
        if score is not None and score.excludes(float(value)):
            raise SampleError(f"the score '{name}' is {value}, out of its range {score.low} to {score.high}")
        checked[str(name)] = float(value)
    return checked


def checked_info(info: Any) -> dict[str, Any]:
    """A plug-in's facts for the record, as JSON will give them back. Raises SampleError."""
    try:
        facts = json.loads(json.dumps(info, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise SampleError(f"the plug-in's info isn't JSON: {error}") from None
    if not isinstance(facts, dict):
        raise SampleError(f"the plug-in's info is a {type(info).__name__}, not a dict")
    return facts


def _same_pixels(source: Image.Image, edited: Image.Image) -> bool:
    return source.size == edited.size and source.convert("RGB").tobytes() == edited.convert("RGB").tobytes()
