"""JPEG. Pillow drops libjpeg's warnings, and with them that a picture is grey or torn from some row on."""

from __future__ import annotations

import re

from PIL import Image

from slurm_bench.data.formats.base import CUT, Format
from slurm_bench.errors import SampleError

_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_DAMAGE = re.compile(r"Corrupt JPEG data|Premature end|Inconsistent progression|found marker")
_PADDING = re.compile(r"(\d+) extraneous bytes before marker 0xd9")


def check(image: Image.Image, data: bytes) -> None:
    if _end(data) < 0:
        raise SampleError(CUT)


def decode(image: Image.Image, data: bytes) -> Image.Image:
    image.load()
    if problem := _damage(image, data):
        raise SampleError(f"damaged: {problem}")
    return image.convert("RGB")


def _damage(image: Image.Image, data: bytes) -> str:
    """What libjpeg warns of, "" where it is content. Decoded again for that, at an eighth of the size."""
    import simplejpeg

    try:
        simplejpeg.decode_jpeg(data, "CMYK" if image.mode == "CMYK" else "GRAY", min_factor=8)
    except ValueError as error:
        if _DAMAGE.search(str(error)) and not _only_padding(str(error), data):
            return str(error)
    return ""


def _only_padding(warning: str, data: bytes) -> bool:
    """Some cameras fill up the file with zeros before its end."""
    found = _PADDING.search(warning)
    if not found:
        return False
    end = _end(data)
    return not data[max(0, end - int(found[1])) : end].strip(b"\0\xff")


def _end(data: bytes) -> int:
    """Where the end's marker is, or -1. In the pixels' data 0xff is followed by 0, so that the first after the scan's
    begin is it; a thumbnail before has one of its own, and whatever follows the image may have more."""
    place = 2
    while data[place : place + 1] == b"\xff" and data[place : place + 2] != _SCAN:
        fill = data[place + 1 : place + 2] == b"\xff"
        place += 1 if fill else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return data.find(_END, max(place, data.find(_SCAN, place)))


FORMAT = Format(check, decode)
