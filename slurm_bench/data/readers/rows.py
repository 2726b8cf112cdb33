"""What the readers of tables share: a row of named cells → an item.

Fields: `id`, `instruction`, `image` and, where there are any, `category`, `reference`, `description`, `rationale`. A
`mask` is read where `data.fields` names it, as many mean other things by that name. Other names are mapped with
`data.fields` (ours: theirs, `meta.text` for a nested one, nothing for one that isn't to be read). An image is a path,
relative to `data.image_root` or to the file's own folder, or lies within the data; several stand in a list. Fields of
other names are kept as facts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from slurm_bench.config import DataConfig
from slurm_bench.data.checks import identifier
from slurm_bench.data.item import Item
from slurm_bench.data.readers.embedded import image_of
from slurm_bench.data.readers.fields import data_path, image_folder, mapped_names, refuse_absent, value_of
from slurm_bench.errors import UserError

_REQUIRED = ("id", "instruction", "image")
FIELDS = (*_REQUIRED, "category", "reference", "description", "rationale", "mask", "follows")


@dataclass(frozen=True)
class Row:
    """`place` says where it stands, for messages: the file and its line."""

    place: str
    cells: Mapping[str, Any]
    problem: str = ""


class Table(NamedTuple):
    """`names` are the columns, nested ones as `meta.text`."""

    names: list[str]
    rows: Iterator[Row]


def wanted_fields(data: DataConfig) -> dict[str, str]:
    """Our name → the file's, of the fields that must be there. Raises UserError."""
    names = _names(data)
    return {name: names[name][0] for name in FIELDS if name in _REQUIRED or data.fields.get(name)}


def _names(data: DataConfig) -> dict[str, tuple[str, ...]]:
    names = mapped_names({name: (name,) if name not in ("mask", "follows") else () for name in FIELDS}, data.fields)
    unread = [name for name in data.fields if not data.fields[name].strip()]
    if needed := next((name for name in unread if name in _REQUIRED), None):
        raise UserError(f"'data.fields.{needed}' is empty; the reader needs its field's name")
    return names | dict.fromkeys(unread, ())


def items_of(data: DataConfig, rows: Iterable[Row], found: Collection[str]) -> Iterator[Item]:
    """The rows as items. `found` are the names that any row has, told before the first is used. Raises UserError."""
    file, folder = data_path(data), image_folder(data)
    if not found:
        raise UserError(f"{file}: there are no samples in it; fields there: none")
    refuse_absent(wanted_fields(data), found, file)
    names = _names(data)
    categorised = any(name in found for name in names["category"])
    used = {name for theirs in names.values() for name in theirs}
    for row in rows:
        values = {name: value_of(row.cells, theirs) for name, theirs in names.items()}
        source, problem = image_of(values["image"], folder)
        others = {name: image_of(values[name], folder) for name in ("reference", "mask")}
        problems = [f"{name}: {problem}" for name, (_, problem) in others.items() if problem]
        yield Item(
            id=identifier(values["id"], row.place, row.cells),
            category=values["category"] or "" if categorised else "all",
            instruction=values["instruction"],
            source=source,
            description=values["description"],
            rationale=values["rationale"],
            reference=others["reference"][0],
            mask=others["mask"][0],
            problem=row.problem or problem or next(iter(problems), ""),
            follows=values["follows"] or "",
            facts={name: value for name, value in row.cells.items() if name not in used},
        )
