"""GIF and WebP, whose first frame may cover a part of the picture: the rest shows what is behind, so it is clear."""

from __future__ import annotations

import struct

from PIL import Image

from slurm_bench.data.formats.base import CUT, Format
from slurm_bench.errors import SampleError

Box = tuple[int, int, int, int]


def check_gif(image: Image.Image, data: bytes) -> None:
    _first_gif_frame(data)


def decode_gif(image: Image.Image, data: bytes) -> Image.Image:
    image.load()
    plain = image.convert("RGBA" if "transparency" in image.info or "A" in image.mode else "RGB")
    return _clear_outside(plain, _first_gif_frame(data))


def check_webp(image: Image.Image, data: bytes) -> None:
    if len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise SampleError(CUT)


def decode_webp(image: Image.Image, data: bytes) -> Image.Image:
    image.load()
    return _clear_outside(image.convert("RGBA" if image.mode == "RGBA" else "RGB"), _first_webp_frame(data))


def _first_gif_frame(data: bytes) -> Box:
    """https://www.w3.org/Graphics/GIF/spec-gif89a.txt. Raises SampleError where the frame isn't whole."""
    try:
        place = 13 + _colours(data[10])
        while data[place] == 0x21:  # extensions
            place = _after_blocks(data, place + 2)
        if data[place] != 0x2C:
            raise SampleError("damaged: there is no image in it")
        left, top, width, height, flags = struct.unpack_from("<HHHHB", data, place + 1)
        _after_blocks(data, place + 10 + _colours(flags) + 1)
    except (IndexError, struct.error):
        raise SampleError(CUT) from None
    return left, top, left + width, top + height


def _colours(flags: int) -> int:
    """The bytes of a colour table."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_blocks(data: bytes, place: int) -> int:
    while data[place]:
        place += data[place] + 1
    return place + 1


def _first_webp_frame(data: bytes) -> Box | None:
    """https://developers.google.com/speed/webp/docs/riff_container. None for a still picture."""
    place = 12
    while place + 24 <= len(data):
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        if data[place : place + 4] == b"ANMF":
            left, top, width, height = (
                int.from_bytes(data[place + 8 + n : place + 11 + n], "little") for n in (0, 3, 6, 9)
            )
            return 2 * left, 2 * top, 2 * left + width + 1, 2 * top + height + 1
        place += 8 + size + size % 2
    return None


def _clear_outside(image: Image.Image, box: Box | None) -> Image.Image:
    if box is None or (box[0] <= 0 and box[1] <= 0 and box[2] >= image.width and box[3] >= image.height):
        return image
    clear = Image.new("RGBA", image.size)
    clear.paste(image.convert("RGBA").crop(box), box[:2])
    return clear


GIF = Format(check_gif, decode_gif)
WEBP = Format(check_webp, decode_webp)
