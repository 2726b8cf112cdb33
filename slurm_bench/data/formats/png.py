"""PNG. Specification: https://www.w3.org/TR/png-3/

Pillow refuses a file for megabytes of text that no one asked for, compares a transparent colour (tRNS) after it has
scaled or cut the pixels, and decodes what has a wrong checksum.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image

from slurm_bench.data.formats.base import CUT, Format, deep_grey
from slurm_bench.errors import SampleError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_STANDARD = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_USED = (b"tRNS", b"eXIf")
_GREY, _RGB = 0, 2


def essential(data: bytes) -> bytes:
    """The file without text, profiles and animation: what decides the still picture, up to where it is cut."""
    return _SIGNATURE + b"".join(chunk for name, chunk in _chunks(data) if name in _USED or name[:1].isupper())


def check(image: Image.Image, data: bytes) -> None:
    """`data` is what `essential` left."""
    name = b""
    for name, chunk in _chunks(data):
        if name not in (*_STANDARD, *_USED):
            raise SampleError(f"its chunk {name!r} isn't of standard PNG, and the image depends on it; save it anew")
        if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            raise SampleError(f"damaged: the checksum of its {name.decode()} chunk is wrong")
    if name != b"IEND":
        raise SampleError(CUT)


def decode(image: Image.Image, data: bytes) -> Image.Image:
    depth, colour = data[24], data[25]
    transparent = next((chunk[8:-4] for name, chunk in _chunks(data) if name == b"tRNS"), None)
    image.load()
    if colour not in (_GREY, _RGB):
        return image.convert("RGBA" if colour > 3 or transparent else "RGB")
    image.info.pop("transparency", None)
    plain = deep_grey(image) if colour == _GREY and depth == 16 else image.convert("RGB")
    if transparent is not None:
        plain.putalpha(_opaque(image, data, depth, colour, transparent))
    return plain


def _opaque(image: Image.Image, data: bytes, depth: int, colour: int, transparent: bytes) -> Image.Image:
    """0 where all bits of the sample are those of the transparent colour, else 255."""
    import numpy as np

    levels = np.asarray(image)
    count = 1 if colour == _GREY else 3
    if len(transparent) < 2 * count:
        raise SampleError("damaged: its tRNS chunk is too short")
    key = np.array(struct.unpack_from(f">{count}H", transparent)) & ((1 << depth) - 1)
    if depth < 8:
        key = key * (255 // ((1 << depth) - 1))
    same = levels == (key > 0 if image.mode == "1" else key if depth < 16 or colour == _GREY else key >> 8)
    if colour == _RGB:
        same = same.all(axis=-1)
        if depth == 16:
            same &= (_low_bytes(data) == (key & 255)).all(axis=-1)
    return Image.fromarray(np.where(same, 0, 255).astype(np.uint8))


def _low_bytes(data: bytes) -> Any:
    """The lower halves of 16-bit RGB, which Pillow drops: read as if the samples were little-endian."""
    import numpy as np

    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.tile = [(*tile[:3], "RGB;16L") for tile in image.tile]  # type: ignore[misc]
        return np.asarray(image)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, the chunk from its length to its checksum) for each that is whole, up to IEND."""
    place = len(_SIGNATURE)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunk = data[place : place + 12 + length]
        if len(chunk) < 12 + length:
            return
        yield chunk[4:8], chunk
        if chunk[4:8] == b"IEND":
            return
        place += len(chunk)


FORMAT = Format(check, decode)
