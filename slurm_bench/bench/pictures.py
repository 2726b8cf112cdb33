"""Sources for the bench: a megapixel of smooth noise, which a PNG stores and reads as slowly as a photograph."""

from __future__ import annotations

import numpy as np
from PIL import Image

INSTRUCTION = "Make the ball on the left red, put it under the table, and keep all the rest as it is."


def picture(seed: int, side: int = 1024) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
