"""What `open_image` asks of a format, and what several formats need."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from slurm_bench.errors import SampleError

CUT = "truncated: the file ends amid the image"
NO_FIXED_WHITE = "{} have no fixed white; save the image with 8 or 16 unsigned bits"


class Format(NamedTuple):
    """Both take Pillow's image, opened but not decoded, and the whole file. `check` raises SampleError for what the
    file's structure says (cut short, a preview page); `decode` gives RGB or RGBA, or raises SampleError where the
    pixels have no one right meaning."""

    check: Callable[[Image.Image, bytes], None]
    decode: Callable[[Image.Image, bytes], Image.Image]


def deep_grey(image: Image.Image, bits: int = 16, white_is_zero: bool = False) -> Image.Image:
    """Grey of more than eight bits, 0 … 2^bits - 1 → 0 … 255, rounded; Pillow's own conversion would clip at 255."""
    import numpy as np

    white = (1 << bits) - 1
    levels = np.asarray(image)
    if levels.max() > white:
        raise SampleError(f"there are pixels above {white}, the white of {bits} bits")
    table = ((np.arange(white + 1) * 255 + white // 2) // white).astype(np.uint8)
    return Image.fromarray((table[::-1] if white_is_zero else table)[levels]).convert("RGB")
