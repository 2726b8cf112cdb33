"""The five-category benchmark: one JSON list, each item with its image in base64 and Chinese or English fields.

The file is half a gigabyte and more: it is streamed, one item in memory at a time, and bytes that aren't UTF-8
spoil no item but their own. Where a field has an English twin (`edit_instruction_en`), the twin counts unless it is
empty. The id is the stem of `original_image_path`, else `id`. The items' own `seed` is ignored: a sample's seed
comes from its id and the run's base seed alone, so that a retry or another number of GPUs gives the same image.
"""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from slurm_bench.data.categories import ALIASES, CATEGORIES, canonical
from slurm_bench.data.checks import identifier
from slurm_bench.data.images import MAX_BYTES
from slurm_bench.data.item import Item
from slurm_bench.data.readers.fields import data_file, image_folder, mapped_names, refuse_absent, value_of
from slurm_bench.data.text import as_text, listed, shown
from slurm_bench.errors import UserError

_FIELDS = {
    "id": ("id",),
    "path": ("original_image_path",),
    "image": ("src_img_b64",),
    "category": ("subset",),
    "instruction": ("edit_instruction_en", "edit_instruction"),
    "description": ("original_description_en", "original_description"),
    "rationale": ("rationale_short_en", "rationale_short"),
}
_MAX_DEPTH = 32
_CHUNK = 256 * 1024


def read_five_category(data: Any) -> Iterator[Item]:
    """The file's items, in its order. Raises UserError."""
    file = data_file(data)
    for name in data.categories or ():
        _category(name, "'data.categories'")
    names = mapped_names(_FIELDS, data.fields)
    folder = image_folder(data)
    seen: set[str] = set()
    for position, record in enumerate(stream_list(file), 1):
        where = f"{file}: item {position}"
        if not isinstance(record, dict):
            raise UserError(f"{where} is a {type(record).__name__}; each must be an object with named fields")
        seen |= record.keys()
        yield _item(record, names, "id" in data.fields, folder, where)
    refuse_absent({ours: theirs for ours, theirs in data.fields.items() if seen}, seen, file)


def stream_list(file: Path) -> Iterator[Any]:
    """The elements of a JSON list, one at a time. Raises UserError where the file isn't one.

    The pure-Python parser is meant: the compiled ones turn a lone surrogate into a question mark, which then
    reads as the author's own.
    """
    from ijson import JSONError, ObjectBuilder, get_backend

    position, depth = 1, 0
    builder: Any = None
    try:
        with file.open("rb") as raw:
            for event, value in get_backend("python").basic_parse(_Utf8(raw), buf_size=_CHUNK):
                if depth == 0 and event == "start_map":
                    raise UserError(f"{file}: holds one JSON object; the reader wants a list of them")
                depth += (event in ("start_array", "start_map")) - (event in ("end_array", "end_map"))
                if depth > _MAX_DEPTH:
                    raise UserError(f"{file}: item {position} is nested more than {_MAX_DEPTH} deep")
                if event == "start_array" and builder is None:
                    builder = ObjectBuilder()
                elif depth >= 1:
                    builder.event(event, value)
                    if depth == 1:
                        yield builder.value
                        position, builder = position + 1, ObjectBuilder()
                elif builder is None:
                    raise UserError(f"{file}: holds one JSON {event}; the reader wants a list of objects")
    except (JSONError, ValueError, ArithmeticError) as error:
        detail = " ".join(str(error).split())[:120]
        raise UserError(f"{file}: not a whole JSON list: {detail} (at item {position})") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None


class _Utf8:
    """A file's bytes as valid UTF-8: what is broken becomes U+FFFD, for the parser refuses it with all the rest."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")

    def read(self, size: int = -1) -> bytes:
        text = ""
        while size and not text:
            data = self._raw.read(size)
            text = self._decoder.decode(data, final=not data)
            if not data:
                break
        return text.encode()


def _item(
    record: dict[str, Any], names: dict[str, tuple[str, ...]], id_is_mapped: bool, folder: Path, where: str
) -> Item:
    values = {name: value_of(record, theirs) for name, theirs in names.items()}
    path = values["path"] if isinstance(values["path"], str) else ""
    stem = PurePosixPath(path.replace("\\", "/")).stem
    source, problem = _source(values["image"], path, folder, names, record)
    category = "" if values["category"] is None else _category(values["category"], where)
    return Item(
        id=identifier(values["id"] if id_is_mapped or not stem else stem, where, record),
        category=category,
        instruction=values["instruction"],
        source=source,
        description=values["description"],
        rationale=values["rationale"],
        problem=problem or _absent(names, values, record),
    )


def _absent(names: dict[str, tuple[str, ...]], values: dict[str, Any], record: dict[str, Any]) -> str:
    for name in ("instruction", "category"):
        if values[name] is None:
            return f"no {name} (in {' or '.join(names[name])}); fields there: {listed(record)}"
    return ""


def _category(value: Any, where: str) -> str:
    name = canonical(value) if isinstance(value, str) else ""
    if name not in CATEGORIES:
        raise UserError(f"{where}: unknown category {shown(value)}; known: {', '.join((*CATEGORIES, *ALIASES))}")
    return name


def _source(
    encoded: Any, path: str, folder: Path, names: dict[str, tuple[str, ...]], record: dict[str, Any]
) -> tuple[Path | bytes | None, str]:
    """The image and what is wrong with it: the one within the file, else a file in `folder`, and only there."""
    if encoded is not None:
        return decode_base64(encoded)
    field = names["image"][0]
    if not path:
        return None, f"no image (in {field}); fields there: {listed(record)}"
    try:
        found = (folder / as_text(path).replace("\\", "/")).resolve()
        inside = found.is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return None, f"no image: {field} is empty and {shown(path)} is no path"
    if not inside:
        return None, f"no image: {field} is empty and {shown(path)} leads out of {folder}"
    return found, ""


def decode_base64(encoded: Any) -> tuple[bytes | None, str]:
    """The bytes, or what is wrong. Strict but for white space, for a lenient decoder makes another image of a
    damaged text; the size is held against the limit before anything is decoded."""
    if not isinstance(encoded, str):
        return None, f"the image is a {type(encoded).__name__}, not base64 text"
    if len(encoded) > MAX_BYTES // 3 * 4:
        return None, f"the image has {len(encoded)} base64 characters; at most {MAX_BYTES // 3 * 4} are read"
    text = re.sub(r"\Adata:[^,]{0,200},", "", encoded.strip())
    try:
        return base64.b64decode("".join(text.split()), validate=True), ""
    except ValueError as error:
        return None, f"the image isn't base64: {error}"
