"""Images within the data: base64 text, data URLs, bytes, and HuggingFace's `{bytes, path}`."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from slurm_bench.data.images import MAX_BYTES
from slurm_bench.data.text import as_text, quoted

# How the base64 text of a PNG, JPEG, GIF, WEBP, BMP or TIFF file begins; no path is so long without a dot.
_BASE64_IMAGE = re.compile(r"\s*(iVBORw0KGgo|/9j/|R0lGOD|UklGR|Qk[0-3]|SUkqA|TU0AK)[A-Za-z0-9+/\s]{100,}={0,2}\s*")
_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]{1,20}://")


def image_of(value: Any, folder: Path) -> tuple[Any, str]:
    """(the image or images, what is wrong): a path from `folder`, bytes, base64 text, a data URL, `{bytes, path}`, or
    a list of these. What is none stays as it is and becomes a problem later."""
    if isinstance(value, list):
        parts = [image_of(part, folder) for part in value]
        return tuple(image for image, _ in parts), next((problem for _, problem in parts if problem), "")
    if isinstance(value, Mapping) and ("bytes" in value or "path" in value):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and (value.startswith("data:image/") or _BASE64_IMAGE.fullmatch(value)):
        return decode_base64(value)
    if isinstance(value, str) and _URL.match(value):
        return None, f"the image is a URL, and none is fetched: {quoted(value)}; download it, and name the file"
    return (folder / as_text(value) if isinstance(value, str) and value else value), ""


def decode_base64(encoded: Any) -> tuple[bytes | None, str]:
    """The bytes, or what is wrong. Strict but for white space, for a lenient decoder makes another image of a
    damaged text; the size is held against the limit before anything is decoded."""
    if not isinstance(encoded, str):
        return None, f"the image is a {type(encoded).__name__}, not base64 text"
    if len(encoded) > MAX_BYTES // 3 * 4:
        return None, f"the image has {len(encoded)} base64 characters; at most {MAX_BYTES // 3 * 4} are read"
    text = re.sub(r"\Adata:[^,]{0,200},", "", encoded.strip())
    with suppress(ValueError):
        return base64.b64decode(text, validate=True), ""
    try:  # white space is allowed, rare, and not worth looking for in megabytes that have none
        return base64.b64decode("".join(text.split()), validate=True), ""
    except ValueError as error:
        return None, f"the image isn't base64: {error}"
