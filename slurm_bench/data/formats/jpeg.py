"""JPEG. Pillow drops libjpeg's warnings, and with them that a picture is grey or torn from some row on."""

from __future__ import annotations

import re

from PIL import Image

from slurm_bench.data.formats.base import CUT, Format
from slurm_bench.errors import SampleError

_END = b"\xff\xd9"
_DAMAGE = re.compile(r"Corrupt JPEG data|Premature end|Inconsistent progression|found marker")
_PADDING = re.compile(r"(\d+) extraneous bytes before marker 0xd9")


def check(image: Image.Image, data: bytes) -> None:
    """Within the pixels' data 0xff is followed by 0, so that the end's marker can't be there by chance."""
    scan = data.rfind(b"\xff\xda")
    if scan < 0 or data.find(_END, scan) < 0:
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
    end = data.rfind(_END)
    return not data[max(0, end - int(found[1])) : end].strip(b"\0\xff")


FORMAT = Format(check, decode)
