"""What each image format can mean beyond eight bits of RGB: read rightly, or refused with the reason."""

from __future__ import annotations

import errno
import gc
import io
import random
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL
import pytest
from PIL import Image

from slurm_bench.data.images import check_image, open_image
from slurm_bench.errors import SampleError


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(depth: int, colour: int, rows: Sequence[bytes], width: int, *extra: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(extra) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def tiff(pixels: bytes, bits: Sequence[int], photometric: int, order: str = "<", **tags: int) -> bytes:
    """One strip of 8×1 pixels; `tags` by number, as t254=1."""
    entries: dict[int, tuple[int, Sequence[int]]] = {
        256: (3, [8]), 257: (3, [1]), 258: (3, bits), 259: (3, [1]), 262: (3, [photometric]), 273: (4, [8]),
        277: (3, [len(bits)]), 278: (3, [1]), 279: (4, [len(pixels)]),
        **{int(name[1:]): (3, [value]) for name, value in tags.items()},
    }  # fmt: skip
    body, after = b"", 8 + len(pixels) + len(pixels) % 2
    table_end = after + 2 + 12 * len(entries) + 4
    long_values = b""
    for number, (kind, values) in sorted(entries.items()):
        data = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(data) > 4:
            place, long_values = table_end + len(long_values), long_values + data
            data = struct.pack(f"{order}I", place)
        body += struct.pack(f"{order}HHI", number, kind, len(values)) + data.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", after)
    table = struct.pack(f"{order}H", len(entries)) + body + bytes(4) + long_values
    return head + pixels.ljust(after - 8, b"\0") + table


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(width: int = 64, height: int = 48) -> Image.Image:
    return Image.frombytes("RGB", (width, height), random.Random(0).randbytes(width * height * 3))


@pytest.mark.parametrize(
    ("depth", "row", "key", "grey"),
    [
        (1, b"\x80", 1, (255, 0)),
        (2, b"\x90", 2, (170, 85)),
        (4, b"\x96", 9, (153, 102)),
        (8, b"\x07\x08", 7, (7, 8)),
        (16, b"\x80\x01\x80\x02", 0x8001, (128, 128)),
        (16, b"\x00\xff\x00\xfe", 0xFF, (1, 1)),
    ],
)
def test_the_transparent_grey_of_a_png_is_compared_in_its_own_bits(
    depth: int, row: bytes, key: int, grey: tuple[int, int]
) -> None:
    image = open_image(png(depth, 0, [row], 2, chunk(b"tRNS", struct.pack(">H", key))))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(*[grey[0]] * 3, 0), (*[grey[1]] * 3, 255)]


@pytest.mark.parametrize("low", [0x80, 0x81])
def test_the_transparent_colour_of_a_16_bit_png_is_compared_in_all_bits(low: int) -> None:
    key = struct.pack(">HHH", 0x1280, 0x3480, 0x5680)
    row = key + struct.pack(">HHH", 0x1280, 0x3480, 0x5600 + low)
    image = open_image(png(16, 2, [row], 2, chunk(b"tRNS", key)))
    assert image.getpixel((0, 0)) == (0x12, 0x34, 0x56, 0)
    assert image.getpixel((1, 0)) == (0x12, 0x34, 0x56, 0 if low == 0x80 else 255)


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP"])
def test_megabytes_beside_the_pixels_of_a_png_hinder_nothing(name: bytes) -> None:
    extra = chunk(name, b"k\0\0" + zlib.compress(bytes(3_000_000)))
    data = png(8, 2, [b"\1\2\3"], 1, extra)
    assert (check_image(data), open_image(data).getpixel((0, 0))) == ("", (1, 2, 3))


def test_a_png_with_a_wrong_checksum_or_an_unknown_critical_chunk_is_refused() -> None:
    data = png(8, 2, [b"\1\2\3"], 1)
    assert "checksum of its IDAT" in check_image(data[:-13] + b"\x99" + data[-12:])
    assert "CgBI" in check_image(png(8, 2, [b"\1\2\3"], 1, chunk(b"CgBI", bytes(4))))


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_grey_of_16_bits_is_scaled(order: str) -> None:
    pixels = struct.pack(f"{order}8H", 0, 257, 257 * 77, 65535, 0, 0, 0, 0)
    image = open_image(tiff(pixels, [16], 1, order))
    assert [image.getpixel((x, 0))[0] for x in range(4)] == [0, 1, 77, 255]


@pytest.mark.parametrize(
    ("bits", "pixels"), [(1, b"\x7f"), (4, b"\x0f" * 4), (8, b"\0\xff" * 4), (16, b"\0\0\xff\xff" * 4)]
)
def test_tiff_white_is_zero_at_any_depth(bits: int, pixels: bytes) -> None:
    image = open_image(tiff(pixels, [bits], 0))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]


def test_tiff_grey_of_12_bits_has_its_white_at_4095() -> None:
    image = open_image(tiff(b"\xff\xf0\x00" * 4, [12], 1))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]


@pytest.mark.parametrize(
    "data",
    [
        tiff(struct.pack("<8I", *[200] * 8), [32], 1),
        tiff(struct.pack("<8h", *[-1] * 8), [16], 1, t339=2),
        tiff(b"\xff" * 8, [8], 1, t339=2),
        tiff(struct.pack("<8f", *[0.5] * 8), [32], 1, t339=3),
    ],
    ids=["32-bit", "signed-16", "signed-8", "float"],
)
def test_tiff_without_a_fixed_white_is_refused_at_launch(data: bytes) -> None:
    assert "no fixed white" in check_image(data)


@pytest.mark.parametrize("tag", [{"t254": 1}, {"t254": 4}, {"t255": 2}])
def test_a_tiff_that_begins_with_a_preview_or_a_mask_is_refused(tag: dict[str, int]) -> None:
    assert "reduced copy" in check_image(tiff(bytes(24), [8, 8, 8], 2, **tag))
    assert check_image(tiff(bytes(24), [8, 8, 8], 2, t254=2)) == ""


@pytest.mark.parametrize(
    ("extra", "pixel"),
    [(0, (100, 0, 0)), (1, (199, 0, 0, 128)), (2, (100, 0, 0, 128))],
    ids=["none", "premultiplied", "alpha"],
)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_alpha_is_what_the_file_says(extra: int, pixel: tuple[int, ...], order: str, bits: int) -> None:
    one = struct.pack(f"{order}4{'B' if bits == 8 else 'H'}", *(v if bits == 8 else v * 257 for v in (100, 0, 0, 128)))
    image = open_image(tiff(one * 8, [bits] * 4, 2, order, t338=extra))
    assert image.getpixel((3, 0)) == pixel


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="Pillow reads it from 13 on; before, it is refused")
def test_grey_with_premultiplied_alpha() -> None:
    data = tiff(b"\x64\x80" * 8, [8, 8], 1, t338=1)
    assert open_image(data).getpixel((3, 0)) == (199, 199, 199, 128)


def bmp_with_alpha(alpha: int) -> bytes:
    """4×4 pixels, by a header of version 5 that gives alpha a mask of its own; Pillow writes none."""
    pixels = bytes((40, 30, 200, alpha)) * 16
    header = struct.pack("<IiiHHIIiiII", 124, 4, 4, 1, 32, 3, len(pixels), 0, 0, 0, 0)
    header += struct.pack("<IIII4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs")
    return b"BM" + struct.pack("<IHHI", 138 + len(pixels), 0, 0, 138) + header.ljust(124, b"\0") + pixels


def test_a_bmp_whose_alpha_nobody_filled_in_is_opaque() -> None:
    assert open_image(bmp_with_alpha(0)).getpixel((0, 0)) == (200, 30, 40)
    assert open_image(bmp_with_alpha(128)).getpixel((0, 0)) == (200, 30, 40, 128)


def small_first_frame(format: str) -> bytes:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], lossless=True)
    if format == "GIF":
        place = data.index(b"\x2c\0\0\0\0\x20\0\x20\0")
        frame = data[: place + 1] + struct.pack("<HHHH", 4, 4, 32, 32) + data[place + 9 :]
        return frame[:6] + struct.pack("<HH", 40, 40) + frame[10:]
    place = data.index(b"ANMF") + 8
    data = data[:place] + (2).to_bytes(3, "little") * 2 + data[place + 6 :]
    size = (39).to_bytes(3, "little") * 2
    return data[:24] + size + data[30:]


@pytest.mark.parametrize("format", ["GIF", "WEBP"])
def test_around_a_smaller_first_frame_the_picture_is_clear(format: str) -> None:
    image = open_image(small_first_frame(format))
    assert (image.size, image.mode) == ((40, 40), "RGBA")
    assert [image.getpixel((x, x))[3] for x in (3, 4, 35, 36)] == [0, 255, 255, 0]
    assert image.getpixel((20, 20))[0] > 240


def test_a_jpeg_with_damage_amid_the_scan_is_refused_and_padding_is_none() -> None:
    data = encoded(noise(200, 200), "JPEG", quality=80)
    middle = len(data) // 2
    torn = data[:middle] + bytes(200) + data[middle + 200 :]
    assert check_image(torn) == ""
    with pytest.raises(SampleError, match="damaged: Corrupt JPEG data"):
        open_image(torn)
    padded = data[:-2] + bytes(7) + data[-2:] + b"trailer"
    assert open_image(padded).tobytes() == open_image(data).tobytes()


def test_a_jpegs_end_is_told_from_its_thumbnails_and_from_what_follows() -> None:
    thumbnail = encoded(noise(16, 16), "JPEG")
    data = encoded(noise(), "JPEG", exif=b"Exif\0\0" + thumbnail)
    trailer = b"video \xff\xda amid it" + thumbnail
    assert check_image(data) == check_image(data + trailer) == ""
    assert "truncated" in check_image(data[: len(data) // 2])
    padded = data[:-2] + bytes(7) + data[-2:]
    assert open_image(padded + trailer).tobytes() == open_image(data).tobytes()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_sound_jpeg_of_any_kind_is_read(mode: str, progressive: bool) -> None:
    data = encoded(noise().convert(mode), "JPEG", progressive=progressive, restart_marker_rows=1)
    assert open_image(data).size == (64, 48)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_file_is_told_without_decoding(format: str) -> None:
    data = encoded(noise(), format)
    assert check_image(data) == ""
    for share in (0.5, 0.9, 0.99):
        assert check_image(data[: int(len(data) * share)]), share


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s5--0.png\n", "git annex get"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
        (b"\n<!DOCTYPE html><html>", "HTML page"),
        (b"<?xml version='1.0'?>\n<html>", "HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML text"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b'{"error": "not found"}', "JSON text"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\x03\x04", "archive"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "video"),
        (b"II*\0nothing that follows", "damaged tif"),
        (b"just words", "not an image of a known format"),
    ],
)
def test_what_is_no_image_is_named_as_what_it_is(data: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(data)
    assert says in check_image(tmp_path / "x.png")
    with pytest.raises(SampleError, match=r"x\.png: not an image"):
        open_image(tmp_path / "x.png")


def test_the_orientation_is_exifs_and_never_xmps() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>'
    segment = b"http://ns.adobe.com/xap/1.0/\0" + xmp
    jpeg = encoded(noise(), "JPEG")
    for data in (
        jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:],
        encoded(noise(), "WEBP", xmp=xmp),
        encoded(noise(), "TIFF", tiffinfo={700: xmp}),
    ):
        assert b"Orientation>6" in data
        assert open_image(data).size == (64, 48)


def test_a_stale_handle_is_opened_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise().save(tmp_path / "x.png")
    real, failures = Path.read_bytes, [OSError(errno.ESTALE, "Stale file handle")]

    def read_bytes(path: Path) -> bytes:
        if failures:
            raise failures.pop()
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert open_image(tmp_path / "x.png").size == (64, 48)
    failures.extend(OSError(errno.ESTALE, "Stale file handle") for _ in range(2))
    assert "Stale file handle" in check_image(tmp_path / "x.png")


def test_a_failed_read_keeps_no_picture(tmp_path: Path) -> None:
    data = encoded(noise(), "JPEG")
    (tmp_path / "torn.jpg").write_bytes(data[: len(data) // 2] + data[-2:])
    gc.collect()
    before = sum(isinstance(thing, Image.Image) for thing in gc.get_objects())
    gc.disable()
    try:
        kept = []
        for _ in range(5):
            with pytest.raises(SampleError) as caught:
                open_image(tmp_path / "torn.jpg")
            kept.append(caught.value)
        assert sum(isinstance(thing, Image.Image) for thing in gc.get_objects()) == before
    finally:
        gc.enable()
