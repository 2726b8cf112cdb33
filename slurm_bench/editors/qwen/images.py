"""Source images in the form that the model takes, and the sizes that follow from them. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image

from slurm_bench.errors import FinalError

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
    FinalError for an image too long and thin for the model."""
    ratio = image.width / image.height
    exact_width = math.sqrt(pixels * ratio)
    width, height = (32 * round(side / 32) for side in (exact_width, exact_width / ratio))
    if min(width, height) < 32:
        raise _too_thin(image)
    return Size(width, height)


def check_shown(pixels: float, image: Image.Image) -> None:
    """Raises FinalError where the text encoder, which sees the image at so many pixels, would refuse it."""
    size = target_size(pixels, image)
    if max(size.width, size.height) > MAX_RATIO * min(size.width, size.height):
        raise _too_thin(image)


def _too_thin(image: Image.Image) -> FinalError:
    return FinalError(f"a source of {image.width}x{image.height} pixels is too long and thin to edit")
