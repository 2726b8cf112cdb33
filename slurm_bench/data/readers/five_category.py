"""The five-category benchmark: one JSON list, each item with its image in base64 and Chinese or English fields.

The file is half a gigabyte and more: it is streamed, one item in memory at a time, and bytes that aren't UTF-8
spoil no item but their own. Where a field has an English twin (`edit_instruction_en`), the twin counts unless it is
empty. The id is the stem of `original_image_path`, else `id`; where another folder's image had that stem before, it
is the path without its suffix. The items' own `seed` is ignored: a sample's seed comes from its id and the run's base
seed alone, so that a retry or another number of GPUs gives the same image. `tags` and `difficulty` are kept as facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from slurm_bench.config import DataConfig
from slurm_bench.data.categories import ALIASES, CATEGORIES, canonical
from slurm_bench.data.checks import identifier
from slurm_bench.data.item import Item
from slurm_bench.data.readers.embedded import decode_base64
from slurm_bench.data.readers.fields import data_file, image_folder, mapped_names, refuse_absent, value_of
from slurm_bench.data.readers.json_text import stream_list
from slurm_bench.data.text import as_text, joined, quoted
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
_FACTS = ("tags", "difficulty")


def read_five_category(data: DataConfig) -> Iterator[Item]:
    """The file's items, in its order. Raises UserError."""
    file = data_file(data)
    for name in data.categories or ():
        _category(name, "'data.categories'")
    names = mapped_names(_FIELDS, data.fields)
    folder = image_folder(data)
    seen: set[str] = set()
    stems: dict[str, str] = {}
    for position, (_, record) in enumerate(stream_list(file, data.encoding), 1):
        where = f"{file}: item {position}"
        if not isinstance(record, dict):
            raise UserError(f"{where} is a {type(record).__name__}; each must be an object with named fields")
        seen |= record.keys()
        values = {name: value_of(record, theirs) for name, theirs in names.items()}
        if "id" not in data.fields:
            values["id"] = _id_of_path(values["path"], stems) or values["id"]
        yield _item(record, values, names, folder, where)
    refuse_absent({ours: theirs for ours, theirs in data.fields.items() if seen}, seen, file)


def _id_of_path(path: Any, stems: dict[str, str]) -> str:
    """The path's stem, or all of it but the suffix where `stems` has that stem from another path already."""
    if not isinstance(path, str) or not path.strip():
        return ""
    place = PurePosixPath(path.replace("\\", "/"))
    return place.stem if stems.setdefault(place.stem, path) == path else str(place.with_suffix(""))


def _item(
    record: dict[str, Any], values: dict[str, Any], names: dict[str, tuple[str, ...]], folder: Path, where: str
) -> Item:
    path = values["path"] if isinstance(values["path"], str) else ""
    source, problem = _source(values["image"], path, folder, names, record)
    category = "" if values["category"] is None else _category(values["category"], where)
    return Item(
        id=identifier(values["id"], where, record),
        category=category,
        instruction=values["instruction"],
        source=source,
        description=values["description"],
        rationale=values["rationale"],
        problem=problem or _absent(names, values, record),
        facts={name: record.get(name) for name in _FACTS},
    )


def _absent(names: dict[str, tuple[str, ...]], values: dict[str, Any], record: dict[str, Any]) -> str:
    for name in ("instruction", "category"):
        if values[name] is None:
            return f"no {name} (in {' or '.join(names[name])}); fields there: {joined(record)}"
    return ""


def _category(value: Any, where: str) -> str:
    name = canonical(value) if isinstance(value, str) else ""
    if name not in CATEGORIES:
        raise UserError(f"{where}: unknown category {quoted(value)}; known: {', '.join((*CATEGORIES, *ALIASES))}")
    return name


def _source(
    encoded: Any, path: str, folder: Path, names: dict[str, tuple[str, ...]], record: dict[str, Any]
) -> tuple[Path | bytes | None, str]:
    """The image and what is wrong with it: the one within the file, else a file in `folder`, and only there."""
    if encoded is not None:
        return decode_base64(encoded)
    field = names["image"][0]
    if not path:
        return None, f"no image (in {field}); fields there: {joined(record)}"
    try:
        found = (folder / as_text(path).replace("\\", "/")).resolve()
        inside = found.is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return None, f"no image: {field} is empty and {quoted(path)} is no path"
    if not inside:
        return None, f"no image: {field} is empty and {quoted(path)} leads out of {folder}"
    return found, ""
