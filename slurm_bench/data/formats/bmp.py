"""BMP."""

from __future__ import annotations

from PIL import Image

from slurm_bench.data.formats.base import CUT, Format
from slurm_bench.errors import SampleError


def check(image: Image.Image, data: bytes) -> None:
    codec, (_, _, _, height), offset, args = image.tile[0]  # type: ignore[attr-defined]
    if codec == "raw" and isinstance(args, tuple) and offset + height * args[1] > len(data):
        raise SampleError(CUT)


def decode(image: Image.Image, data: bytes) -> Image.Image:
    """Alpha that is 0 throughout is a fourth byte that no one filled in, as many writers leave it."""
    image.load()
    filled = image.mode == "RGBA" and image.getchannel("A").getextrema() != (0, 0)
    return image.convert("RGBA" if filled else "RGB")


FORMAT = Format(check, decode)
