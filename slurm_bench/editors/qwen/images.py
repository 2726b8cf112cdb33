"""Source images in the form that the model takes, and the sizes that follow from them. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image

from slurm_bench.errors import SampleError

MEGAPIXEL = 1024 * 1024
CONDITION_PIXELS = 384 * 384  # of a source as Edit-Plus shows it to the text encoder
MAX_RATIO = 200  # of the sides; the text encoder's image processor refuses more


@dataclass(frozen=True)
class Size:
    width: int
    height: int


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB; transparent pixels become white."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def target_size(pixels: float, image: Image.Image) -> Size:
    """About `pixels` in the image's aspect, sides in multiples of 32, rounded as the pipelines do it. Raises
    SampleError for an image too long and thin for the model."""
    ratio = image.width / image.height
    exact_width = math.sqrt(pixels * ratio)
    width, height = (32 * round(side / 32) for side in (exact_width, exact_width / ratio))
    if min(width, height) < 32 or max(width, height) >= MAX_RATIO * min(width, height):
        raise SampleError(f"a source of {image.width}x{image.height} pixels is too long and thin to edit")
    return Size(width, height)
