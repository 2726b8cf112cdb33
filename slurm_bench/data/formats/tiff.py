"""TIFF. Specification: https://www.loc.gov/preservation/digital/formats/content/tiff_tags.shtml

Pillow takes the first page, a preview too; it doesn't turn 16-bit grey over where 0 is white, and doesn't scale
12 bits.
"""

from __future__ import annotations

from typing import Any

from PIL import Image

from slurm_bench.data.formats.base import CUT, NO_FIXED_WHITE, Format, deep_grey
from slurm_bench.errors import SampleError

_NEW_SUBFILE_TYPE, _SUBFILE_TYPE = 254, 255
_BITS, _COMPRESSION, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 259, 262, 284, 339
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES = 273, 279, 324, 325
_REDUCED, _MASK, _UNSIGNED, _YCBCR, _LAB = 1, 4, 1, 6, 8


def check(image: Image.Image, data: bytes) -> None:
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    canon = data[8:10] == b"CR"
    if canon or tags.get(_NEW_SUBFILE_TYPE, 0) & (_REDUCED | _MASK) or tags.get(_SUBFILE_TYPE) == 2:
        raise SampleError(
            "its first page is a reduced copy or a mask (as in a camera's raw file); save the image itself"
        )
    if any(format != _UNSIGNED for format in tags.get(_SAMPLE_FORMAT, ())):
        raise SampleError(NO_FIXED_WHITE.format("signed or floating-point pixels"))
    bits = max(tags.get(_BITS, (1,)))
    if bits > 16:
        raise SampleError(NO_FIXED_WHITE.format(f"{bits}-bit pixels"))
    raw = tags.get(_COMPRESSION, 1) == 1
    if raw and bits > 8 and tags.get(_PLANES, 1) == 2:
        raise SampleError("16-bit colours in separate planes aren't read; save them interleaved")
    subsampled = raw and sum(tags.get(_STRIP_BYTES, ())) < 3 * image.width * image.height
    if tags.get(_PHOTOMETRIC) == _LAB or (tags.get(_PHOTOMETRIC) == _YCBCR and subsampled):
        raise SampleError("its colours are CIE L*a*b* or subsampled without compression; save it as RGB")
    for offsets, counts in ((_STRIPS, _STRIP_BYTES), (_TILES, _TILE_BYTES)):
        ends = [start + count for start, count in zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False)]
        if max(ends, default=0) > len(data):
            raise SampleError(CUT)


def decode(image: Image.Image, data: bytes) -> Image.Image:
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits, white_is_zero = tags.get(_BITS, (1,))[0], tags.get(_PHOTOMETRIC) == 0
    image.load()
    if image.mode.startswith("I"):
        return deep_grey(image, bits, white_is_zero)
    if image.mode == "La":
        image = image.convert("LA")
    return image.convert("RGBA" if "A" in image.mode else "RGB")


FORMAT = Format(check, decode)
