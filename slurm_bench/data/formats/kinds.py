"""What a file is, told by its first bytes alone: without Pillow, so that it costs nothing to import."""

from __future__ import annotations

import re
from collections.abc import Iterable

_EXTENSIONS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "png"),
    (re.compile(rb"\xff\xd8\xff"), "jpg"),
    (re.compile(rb"GIF8"), "gif"),
    (re.compile(rb"BM"), "bmp"),
    (re.compile(rb"(?:II|MM)(?:[*+]\0|\0[*+])"), "tif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "webp"),
)

_MARKUP = rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*"


def _kinds(*starts: tuple[bytes, str]) -> tuple[tuple[re.Pattern[bytes], str], ...]:
    return tuple((re.compile(start, re.DOTALL | re.IGNORECASE), name) for start, name in starts)


# What is found where an image or a table should be, with the mend.
_NEITHER = _kinds(
    (rb"version https://git-lfs", "a git-lfs pointer; fetch the file itself with 'git lfs pull'"),
    (rb"[./]*(?:git)?/annex/objects/", "a git-annex pointer; fetch the file itself with 'git annex get'"),
    (
        rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|BZh[1-9]1AY&SY|\xfd7zXZ|\x28\xb5\x2f\xfd",
        "an archive, or a packed file; unpack it",
    ),
    (_MARKUP + rb"<(?:!doctype html|html|head|body|script)", "an HTML page; the download went wrong"),
)
# What is found where an image should be.
_NO_IMAGES = _kinds(
    (rb"\Z", "an empty file"),
    (rb"....ftyp(?:hei[cxms]|hev[cx]|mif1|msf1)", "a HEIC file; save it as JPEG or PNG"),
    (rb"....ftypavi[fs]", "an AVIF file; save it as JPEG or PNG"),
    (rb"....ftyp|\x1a\x45\xdf\xa3", "a video"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "a JPEG XL file; save it as JPEG or PNG"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 file; save it as JPEG or PNG"),
    (rb"8BPS", "a Photoshop file; save it as PNG"),
    (rb"%PDF-", "a PDF document; save its page as PNG"),
    (_MARKUP + rb"<(?:!doctype svg|svg)", "an SVG drawing, which has no pixels; save it as PNG"),
    (_MARKUP + rb"<(?:\?xml|[a-z]+>)", "an XML text; the download went wrong"),
    (rb"\s*(?:\{\s*\"|\[\s*[{\[\"])", "a JSON text; the download went wrong"),
)


def sniff_extension(data: bytes) -> str:
    """A file name's extension, "bin" where the data are no image that is read."""
    return next((extension for start, extension in _EXTENSIONS if start.match(data)), "bin")


def what_else(data: bytes) -> str:
    """What the data are in an image's place, "" where that can't be told."""
    return no_table(data) or _named(_NO_IMAGES, data)


def no_table(data: bytes) -> str:
    """What the data are in the place of JSON or CSV, "" where they may be that."""
    return _named(_NEITHER, data)


def _named(kinds: Iterable[tuple[re.Pattern[bytes], str]], data: bytes) -> str:
    return next((name for start, name in kinds if start.match(data[:1024])), "")
