"""Image files from anywhere, decoded in bounds: what is wrong with one is one clear line, never a crash."""

from __future__ import annotations

import errno
import io
import warnings
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from slurm_bench.data.formats import animation, bmp, jpeg, png, tiff
from slurm_bench.data.formats.base import Format
from slurm_bench.data.formats.kinds import sniff_extension, what_else
from slurm_bench.data.text import quoted
from slurm_bench.errors import SampleError

MAX_PIXELS = 64 * 1024 * 1024
MAX_BYTES = 256 * 1024 * 1024
FORMATS: dict[str, Format] = {
    "PNG": png.FORMAT,
    "JPEG": jpeg.FORMAT,
    "WEBP": animation.WEBP,
    "BMP": bmp.FORMAT,
    "TIFF": tiff.FORMAT,
    "GIF": animation.GIF,
}
_ALIASES = {"MPO": "JPEG", "DIB": "BMP"}  # Pillow's names for a JPEG with further pictures, a BMP without its header

# Pillow's warnings (damaged EXIF, many pixels) would stand between the progress lines; what counts is raised.
warnings.filterwarnings("ignore", module=r"PIL\.")

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


def open_image(source: Path | bytes) -> Image.Image:
    """Fully decoded, upright by its EXIF, RGB or (where it has transparency) RGBA, without metadata; of an animation
    the first frame, of a TIFF the first page. Colour profiles aren't applied. Raises SampleError, whatever is wrong."""
    image, problem = _read(source, _decoded)
    if image is None:
        raise SampleError(problem)
    return image


def check_image(source: Path | bytes) -> str:
    """What the file's structure tells, without a pixel decoded: "" or the problem."""
    return _read(source, lambda image, data: None)[1]


def _read(
    source: Path | bytes, use: Callable[[Image.Image, bytes], Image.Image | None]
) -> tuple[Image.Image | None, str]:
    """What `use` makes of the file, or the problem. Nothing is raised from here: an exception keeps the frames that
    it passed, and so a picture of megabytes, for as long as someone keeps the exception."""
    data = b""
    try:
        data = source if isinstance(source, bytes) else file_bytes(source)
        if len(data) > MAX_BYTES:
            raise SampleError(f"{len(data)} bytes; at most {MAX_BYTES} are read")
        if sniff_extension(data) == "png":
            data = png.essential(data)
        with Image.open(io.BytesIO(data), formats=tuple(FORMATS)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise SampleError(f"{image.width}×{image.height} is more than {MAX_PIXELS} pixels")
            _format_of(image).check(image, data)
            return use(image, data), ""
    except SampleError as error:
        problem = str(error)
    except FileNotFoundError:
        problem = "no such file"
    except Image.DecompressionBombError:
        problem = f"far more than {MAX_PIXELS} pixels"
    except Image.UnidentifiedImageError:
        problem = _unidentified(data)
    except Exception as error:
        problem = f"truncated or damaged: {_line(error)}"
    return None, f"{_name(source)}: {problem}"


def _decoded(image: Image.Image, data: bytes) -> Image.Image:
    image.info.pop("xmp", None)  # its orientation isn't followed, as in browsers; Pillow would
    turn = _upright(image)
    plain = _format_of(image).decode(image, data)
    plain = plain if turn is None else plain.transpose(turn)
    plain = plain.copy() if plain is image else plain
    plain.info = {}
    return plain


def _format_of(image: Image.Image) -> Format:
    return FORMATS[_ALIASES.get(str(image.format), str(image.format))]


def _upright(image: Image.Image) -> Image.Transpose | None:
    """How to turn it; a TIFF is turned by Pillow."""
    if image.format == "TIFF":
        return None
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF doesn't spoil the picture
        return None


def file_bytes(path: Path) -> bytes:
    """The content of a regular file within the limit: reading a pipe or a device could wait for ever. A handle that has
    gone stale (the file was replaced on its server) is opened once more. Raises SampleError, and OSError where this
    process may open no file at all."""
    for last in (False, True):
        try:
            if not path.is_file():
                raise SampleError("not a file" if path.exists() else "no such file")
            if path.stat().st_size > MAX_BYTES:
                raise SampleError(f"{path.stat().st_size} bytes; at most {MAX_BYTES} are read")
            return path.read_bytes()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            if last or error.errno != errno.ESTALE:
                raise SampleError(f"cannot be read: {error.strerror or _line(error)}") from error
    raise AssertionError


def _unidentified(data: bytes) -> str:
    """Pillow says no more where a format is known and this file's variety isn't."""
    extension = sniff_extension(data)
    if extension != "bin":
        return f"not an image that is read: a damaged {extension} file, or pixels of an unusual kind; save it as PNG"
    other = what_else(data)
    return f"not an image of a known format ({', '.join(FORMATS)})" + (f" but {other}" if other else "")


def _name(source: Path | bytes) -> str:
    if isinstance(source, bytes):
        return "the image"
    return str(source) if str(source).isprintable() and len(str(source)) < 300 else quoted(str(source), 200)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
