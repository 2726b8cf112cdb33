"""Images from anywhere: upright, RGB or RGBA, in bounds, and one clear line for what is wrong."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from slurm_bench.data.images import MAX_PIXELS, check_image, open_image, sniff_extension
from slurm_bench.errors import SampleError


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A valid header that promises far more than there is."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = b"IDAT" + zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))


def quadrants() -> Image.Image:
    image = Image.new("RGB", (32, 16), "white")
    image.paste("red", (0, 0, 16, 8))
    return image


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_every_format_is_read_and_told_by_its_first_bytes(format: str, tmp_path: Path) -> None:
    data = encoded(Image.new("RGB", (20, 10), (200, 30, 40)), format)
    path = tmp_path / "named.wrongly"
    path.write_bytes(data)
    for source in (data, path):
        image = open_image(source)
        assert (image.mode, image.size, check_image(source)) == ("RGB", (20, 10), "")
        assert max(abs(a - b) for a, b in zip(image.getpixel((5, 5)), (200, 30, 40), strict=True)) < 8
    known = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif", "GIF": "gif"}
    assert sniff_extension(data) == known[format]
    assert sniff_extension(b"hello") == "bin"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "red"),
    [(1, (4, 4)), (2, (28, 4)), (3, (28, 12)), (4, (4, 12)), (5, (4, 4)), (6, (12, 4)), (7, (12, 28)), (8, (4, 28))],
)
def test_an_image_stands_upright_and_forgets_its_exif(orientation: int, red: tuple[int, int], format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = open_image(encoded(quadrants(), format, exif=exif))
    assert image.size == ((32, 16) if orientation < 5 else (16, 32))
    red_value, green_value, _ = image.getpixel(red)
    assert red_value > 200
    assert green_value < 90
    assert image.getexif().get(0x0112) is None
    assert not image.info


@pytest.mark.parametrize(
    ("image", "mode", "pixel"),
    [
        (Image.new("1", (9, 9), 1), "RGB", (255, 255, 255)),
        (Image.new("L", (9, 9), 77), "RGB", (77, 77, 77)),
        (Image.new("LA", (9, 9), (77, 128)), "RGBA", (77, 77, 77, 128)),
        (Image.new("RGBA", (9, 9), (1, 2, 3, 0)), "RGBA", (1, 2, 3, 0)),
        (Image.new("RGB", (9, 9), (10, 200, 30)).quantize(4), "RGB", (10, 200, 30)),
        (Image.new("I;16", (9, 9), 77 * 257), "RGB", (77, 77, 77)),
        (Image.new("I;16", (9, 9), 65535), "RGB", (255, 255, 255)),
    ],
    ids=["bilevel", "grey", "grey-alpha", "rgba", "palette", "16-bit", "16-bit-white"],
)
def test_every_mode_becomes_rgb_or_rgba(image: Image.Image, mode: str, pixel: tuple[int, ...]) -> None:
    opened = open_image(encoded(image))
    assert opened.mode == mode
    assert opened.getpixel((4, 4)) == pixel


def test_transparency_of_a_palette_and_of_a_colour_is_kept() -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert open_image(encoded(palette, transparency=1)).getpixel((0, 0)) == (255, 0, 0, 0)
    assert open_image(encoded(Image.new("RGB", (4, 4), "red"), transparency=(255, 0, 0))).getpixel((0, 0))[3] == 0


def test_cmyk_becomes_its_colour() -> None:
    red, green, blue = open_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF")).getpixel((1, 1))
    assert red > 200
    assert green < 60
    assert blue < 60


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    image = open_image(encoded(frames[0], format, save_all=True, append_images=frames[1:]))
    assert image.getpixel((0, 0))[0] > 240


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_fixed_white_are_refused(mode: str) -> None:
    with pytest.raises(SampleError, match="no fixed white"):
        open_image(encoded(Image.new(mode, (8, 8), 70000), "TIFF"))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not an image"),
        (b"hello, this is no image", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
        (huge_png(9000, 9000), f"9000×9000 is more than {MAX_PIXELS}"),
        (huge_png(60000, 60000), "pixels"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), ""),
    ],
    ids=["empty", "text", "postscript", "large", "bomb", "header"],
)
def test_what_the_header_tells_is_told_by_both(data: bytes, says: str) -> None:
    problem = check_image(data)
    assert problem
    assert says in problem
    assert "\n" not in problem
    with pytest.raises(SampleError) as caught:
        open_image(data)
    assert str(caught.value) == problem


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
def test_a_truncated_file_is_one_clear_line(format: str, tmp_path: Path) -> None:
    noise = Image.frombytes("RGB", (64, 64), os.urandom(64 * 64 * 3))
    data = encoded(noise, format)
    path = tmp_path / "cut"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(SampleError, match="cut") as caught:
        open_image(path)
    assert "\n" not in str(caught.value)


def test_flipped_bits_never_raise_anything_else() -> None:
    data = encoded(quadrants())
    for place in range(len(data)):
        broken = data[:place] + bytes([data[place] ^ 0x5A]) + data[place + 1 :]
        with contextlib.suppress(SampleError):
            assert open_image(broken).mode in ("RGB", "RGBA")


def test_paths_that_are_no_image_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    names = [tmp_path / "absent.png", tmp_path, tmp_path / "pipe", tmp_path / "a\0b", tmp_path / ("n" * 300)]
    for path in names:
        with pytest.raises(SampleError):
            open_image(path)
        assert check_image(path).isprintable()
    assert "no such file" in check_image(names[0])
    assert "not a file" in check_image(names[2])


def test_a_file_beyond_the_byte_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(2**40)
    assert "bytes; at most" in check_image(path)
