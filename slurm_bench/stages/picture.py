"""An edited picture: a copy of its own, the bytes that are written, and how far it is from its source."""

from __future__ import annotations

import hashlib
import io

from PIL import Image, ImageChops

from slurm_bench.data.images import MAX_BYTES, MAX_PIXELS
from slurm_bench.errors import SampleError

# zlib's level 1: half the time of the default for a photograph, a tenth more bytes.
PNG_LEVEL = 1

CELLS = 64  # a side: one is 16 pixels wide in an image of a megapixel


def copied(image: Image.Image) -> Image.Image:
    """The pixels in memory of their own, RGB or RGBA: the plug-in may use its buffer again, or not have decoded it yet.
    Raises SampleError."""
    if min(image.size) < 1:
        raise SampleError(f"the editor gave an empty image, {image.width}×{image.height}")
    if image.width * image.height > MAX_PIXELS:  # what no scorer gets, nor a turn that follows
        raise SampleError(f"the editor gave {image.width}×{image.height}; at most {MAX_PIXELS} pixels are scored")
    if image.mode[0] in "IF":  # Pillow would cut off all above 255, and of 0 to 1 make black
        raise SampleError(f"nothing tells what is white in the editor's image, of mode {image.mode}; give it as RGB")
    try:
        own = image.copy() if image.mode in ("RGB", "RGBA") else image.convert("RGB")
    except Exception as error:
        raise SampleError(f"the editor's image can't be decoded: {type(error).__name__}: {error}") from None
    own.info = {}  # else a profile, or a colour that counts as transparent, would go into the PNG
    return own


def pixels_digest(image: Image.Image) -> bytes:
    """Equal for equal pictures; an opaque one equals the same with alpha at 255."""
    return hashlib.sha256(repr(image.size).encode() + image.convert("RGBA").tobytes()).digest()


def small(image: Image.Image) -> Image.Image:
    """The means over CELLS × CELLS areas, whatever the image's size; RGB premultiplied by alpha, as what lies under a
    transparent pixel isn't seen."""
    plain = image if image.mode == "RGB" else _premultiplied(image)
    return plain.resize((CELLS, CELLS), Image.Resampling.BOX)


def largest_change(source: Image.Image, edited: Image.Image) -> int:
    """By how much an area's mean differs at most in a channel, 0 … 255, between two that `small` gave. It is near 0 for
    images that differ by an encoder's noise or by their size alone."""
    if source.mode != edited.mode:
        source, edited = _premultiplied(source), _premultiplied(edited)
    return max(most for _, most in ImageChops.difference(source, edited).getextrema())  # type: ignore[misc] # a pair a band


def _premultiplied(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGBa" else image.convert("RGBA").convert("RGBa")


def encode_png(image: Image.Image) -> bytes:
    """The same pixels give the same bytes: no metadata travels with them. `image` is what `copied` gave. Raises
    SampleError."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=PNG_LEVEL)
    if buffer.tell() > MAX_BYTES:
        raise SampleError(f"the editor's image takes {buffer.tell()} bytes as PNG; at most {MAX_BYTES} are scored")
    return buffer.getvalue()
