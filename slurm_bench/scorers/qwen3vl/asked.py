"""What the judge is asked about, prompt by prompt."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from PIL import Image

from slurm_bench.errors import FinalError
from slurm_bench.scorers.base import ScoreRequest
from slurm_bench.scorers.judge.prompt import Prompt
from slurm_bench.scorers.judge.question import Question

# The model's own processor refuses longer strips.
MAX_ASPECT_RATIO = 200
PLACE = "<|image_pad|>"


@dataclass(frozen=True)
class Asked:
    """One prompt to the judge; `place` is its request's in the batch, `aspects` what its answer gives, `length` as
    `length_of` has it."""

    place: int
    request: ScoreRequest | Question
    aspects: tuple[str, ...]
    prompt: Prompt
    length: int

    @property
    def key(self) -> tuple[int, int, tuple[str, ...]]:
        return self.place, id(self.request), self.aspects

    @property
    def alike(self) -> Hashable:
        """At a glance at the first image: aspects of one sample, edits of one source."""
        first = next(iter(self.prompt.images), None)
        return first and (first.size, first.resize((8, 8), Image.Resampling.NEAREST).tobytes())


def length_of(prompt: Prompt, max_pixels: int) -> int:
    """About how many pixels, and letters of text, the model will see."""
    pixels = sum(min(image.width * image.height, max_pixels) for image in prompt.images)
    return pixels + sum(len(part) for part in prompt.parts if isinstance(part, str))


def refusal(prompt: Prompt) -> FinalError | None:
    """Why the model refuses one of the images, or the texts, if it does."""
    for part in prompt.parts:
        if isinstance(part, str):
            if PLACE in part:
                return FinalError(f"the prompt has {PLACE} in its text, which to the judge is a place for an image")
        elif max(part.size) > MAX_ASPECT_RATIO * min(part.size):
            return FinalError(f"an image of {part.width}×{part.height} is too narrow for the judge")
    return None
