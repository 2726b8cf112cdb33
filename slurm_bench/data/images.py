"""Image files from anywhere, decoded in bounds: what is wrong with one is one clear line, never a crash."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from slurm_bench.data.text import shown
from slurm_bench.errors import SampleError

MAX_PIXELS = 64 * 1024 * 1024
MAX_BYTES = 256 * 1024 * 1024
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")

# Pillow's warning begins above our own, stricter limit, and would stand between the progress lines.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\x00", "tif"),
    (b"MM\x00*", "tif"),
)


def open_image(source: Path | bytes) -> Image.Image:
    """Fully decoded, upright by its EXIF, RGB or (where it has transparency) RGBA, without metadata; an
    animation's first frame. Colour profiles aren't applied. Raises SampleError, whatever is wrong."""
    with _header(source) as image:
        try:
            image.load()
            upright = _upright(image)
            plain = _plain(upright)
        except SampleError:
            raise
        except Exception as error:
            raise SampleError(f"{_name(source)}: truncated or damaged: {_line(error)}") from None
        plain = plain.copy() if plain is image else plain
    plain.info = {}
    return plain


def check_image(source: Path | bytes) -> str:
    """What can be told from the header alone: "" or the problem. Cheap, so that the plan can hold it."""
    try:
        with _header(source):
            return ""
    except SampleError as error:
        return str(error)


def sniff_extension(data: bytes) -> str:
    """The file name's extension by the first bytes, "bin" where they are no image of ours."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((extension for magic, extension in _MAGIC if data.startswith(magic)), "bin")


@contextmanager
def _header(source: Path | bytes) -> Iterator[Image.Image]:
    """The image, opened but not decoded, its size found within bounds."""
    name = _name(source)
    try:
        size = len(source) if isinstance(source, bytes) else _file_size(source)
        if size > MAX_BYTES:
            raise SampleError(f"{name}: {size} bytes; at most {MAX_BYTES} are read")
        opened = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except SampleError:
        raise
    except FileNotFoundError:
        raise SampleError(f"{name}: no such file") from None
    except Image.DecompressionBombError:
        raise SampleError(f"{name}: far more than {MAX_PIXELS} pixels") from None
    except Image.UnidentifiedImageError:
        raise SampleError(f"{name}: not an image of a known format ({', '.join(FORMATS)})") from None
    except Exception as error:
        raise SampleError(f"{name}: cannot be read: {_line(error)}") from None
    with opened as image:
        if image.width * image.height > MAX_PIXELS:
            raise SampleError(f"{name}: {image.width}×{image.height} is more than {MAX_PIXELS} pixels")
        yield image


def _file_size(path: Path) -> int:
    """Of a regular file: opening a pipe or a device could wait forever."""
    if not path.is_file():
        raise SampleError(f"{_name(path)}: {'not a file' if path.exists() else 'no such file'}")
    return path.stat().st_size


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF doesn't spoil the picture
        return image
    return image if turn is None else image.transpose(turn)


def _plain(image: Image.Image) -> Image.Image:
    if image.mode in ("RGB", "RGBA") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _sixteen_bit(image)
    if image.mode == "F":
        raise SampleError("floating-point pixels have no fixed white; save the image with 8 or 16 bits")
    has_alpha = image.mode in ("RGBA", "LA", "La", "PA", "RGBa") or "transparency" in image.info
    return image.convert("RGBA" if has_alpha else "RGB")


def _sixteen_bit(image: Image.Image) -> Image.Image:
    """0 … 65535 → 0 … 255; Pillow's own conversion would clip at 255."""
    wide = image.convert("I")
    low, high = wide.getextrema()
    if low < 0 or high > 65535:  # type: ignore[operator]
        raise SampleError("32-bit pixels have no fixed white; save the image with 8 or 16 bits")
    return wide.point(lambda value: value * (1 / 257) + 0.5).convert("L").convert("RGB")


def _name(source: Path | bytes) -> str:
    if isinstance(source, bytes):
        return "the image"
    return str(source) if str(source).isprintable() and len(str(source)) < 300 else shown(str(source), 200)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
