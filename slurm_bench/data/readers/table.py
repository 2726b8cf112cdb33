"""JSONL and CSV: one sample a line, images as files beside it.

Fields: `id`, `instruction`, `image` (a path; in JSONL also a list of paths) and, where there are any, `category`,
`reference` (a path), `description`, `rationale`. Other names are mapped with `data.fields` (ours: theirs).
Paths are relative to `data.image_root`, or to the file's own folder; absolute ones are taken as they are.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm_bench.data.checks import identifier
from slurm_bench.data.item import Item
from slurm_bench.data.readers.fields import data_file, image_folder, mapped_names, refuse_absent, value_of
from slurm_bench.data.text import as_text, listed
from slurm_bench.errors import UserError

_REQUIRED = ("id", "instruction", "image")
_FIELDS = (*_REQUIRED, "category", "reference", "description", "rationale")


@dataclass(frozen=True)
class Row:
    number: int
    cells: dict[str, Any]
    problem: str = ""


def read_jsonl(data: Any) -> Iterator[Item]:
    """One JSON object a line; empty lines are passed over. Raises UserError."""
    file = data_file(data)
    return _items(data, file, list(_jsonl_rows(file)))


def read_csv(data: Any) -> Iterator[Item]:
    """Comma-separated with a header line, UTF-8 with or without a byte-order mark. Raises UserError."""
    file = data_file(data)
    return _items(data, file, list(_csv_rows(file)))


def _items(data: Any, file: Path, rows: list[Row]) -> Iterator[Item]:
    """The rows are held (they are text, the images aren't), so that a name no row has is told before any is read."""
    names = mapped_names({name: (name,) for name in _FIELDS}, data.fields)
    found = list(dict.fromkeys(name for row in rows for name in row.cells))
    if not rows:
        raise UserError(f"{file}: there are no samples in it; fields there: {listed(found)}")
    refuse_absent({name: names[name][0] for name in _FIELDS if name in _REQUIRED or name in data.fields}, found, file)
    categorised = names["category"][0] in found
    folder = image_folder(data)
    for row in rows:
        values = {name: value_of(row.cells, theirs) for name, theirs in names.items()}
        yield Item(
            id=identifier(values["id"], f"{file}:{row.number}", row.cells),
            category=values["category"] or "" if categorised else "all",
            instruction=values["instruction"],
            source=_placed(folder, values["image"]),
            description=values["description"],
            rationale=values["rationale"],
            reference=_placed(folder, values["reference"]),
            problem=row.problem,
        )


def _placed(folder: Path, value: Any) -> Any:
    """A path, or the paths of a list, from `folder`; what is no text stays as it is and becomes a problem later."""
    if isinstance(value, list):
        return tuple(_placed(folder, part) for part in value)
    return folder / as_text(value) if isinstance(value, str) else value


def _jsonl_rows(file: Path) -> Iterator[Row]:
    for number, line in enumerate(_read(file).split(b"\n"), 1):
        text = line.decode("utf-8-sig" if number == 1 else "utf-8", "replace").strip()
        if not text:
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            hint = "; a JSON list is no JSONL" if number == 1 and text.startswith("[") else ""
            raise UserError(f"{file}:{number}: not JSON: {str(error)[:120]}; mend or remove this line{hint}") from None
        if not isinstance(record, dict):
            raise UserError(f"{file}:{number}: a {type(record).__name__}; each line must be one JSON object")
        yield Row(number, record)


def _csv_rows(file: Path) -> Iterator[Row]:
    lines = io.StringIO(_read(file).decode("utf-8-sig", "replace"), newline="")
    reader = csv.reader(lines, strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not cells:
                continue
            if header is None:
                header = _checked_header(cells, file)
                continue
            extra = len(cells) - len(header)
            problem = f"line {reader.line_num} has {extra} cells more than the header; quote a text that has a comma"
            yield Row(reader.line_num, dict(zip(header, cells, strict=False)), problem if extra > 0 else "")
    except csv.Error as error:
        raise UserError(f"{file}:{reader.line_num}: not CSV: {error}; mend or remove this line") from None


def _checked_header(cells: list[str], file: Path) -> list[str]:
    header = [cell.strip() for cell in cells]
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise UserError(f"{file}: the column '{twice[0]}' stands twice in the header; rename one")
    return header


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
