"""JSONL (an object a line) and a JSON list of objects, with any fields. The file is read twice: once for the names
that its objects have, so that a wrong map is told before anything is planned, and once for the items, each alone in
memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from slurm_bench.config import DataConfig
from slurm_bench.data.item import Item
from slurm_bench.data.readers.encoding import utf8_lines
from slurm_bench.data.readers.fields import data_file, field_names
from slurm_bench.data.readers.json_text import decode, read_object, stream_list
from slurm_bench.data.readers.rows import Row, items_of
from slurm_bench.data.text import as_text, quoted
from slurm_bench.errors import UserError


def read_json(data: DataConfig) -> Iterator[Item]:
    """A JSON list of objects. Raises UserError."""
    return _items(data, list_rows)


def read_jsonl(data: DataConfig) -> Iterator[Item]:
    """One JSON object a line; empty lines are passed over. Raises UserError."""
    return _items(data, _line_rows)


def _items(data: DataConfig, rows: Callable[[Path, str | None], Iterator[Row]]) -> Iterator[Item]:
    file = data_file(data)
    found = dict.fromkeys(name for row in rows(file, data.encoding) for name in field_names(row.cells))
    return items_of(data, rows(file, data.encoding), found)


def list_rows(file: Path, encoding: str | None, nan: bool = False) -> Iterator[Row]:
    """The objects of a JSON list. Raises UserError."""
    for position, (line, record) in enumerate(stream_list(file, encoding, nan), 1):
        if not isinstance(record, dict):
            raise UserError(f"{file}:{line}: item {position} is a {type(record).__name__}; each must be an object")
        yield Row(f"{file}:{line}", record)


def object_rows(file: Path, encoding: str | None) -> dict[str, Row]:
    """Key → its object, of a JSON object of objects. Raises UserError."""
    entries = read_object(file, encoding)
    for key, entry in entries.items():
        if not isinstance(entry, dict):
            raise UserError(f"{file}: {quoted(key)} is a {type(entry).__name__}; each entry must be an object")
    return {as_text(key): Row(f"{file}: {quoted(key)}", entry) for key, entry in entries.items()}


def _line_rows(file: Path, encoding: str | None) -> Iterator[Row]:
    for number, line in enumerate(utf8_lines(file, encoding), 1):
        text = line.decode("utf-8", "replace").strip()
        if not text:
            continue
        try:
            record = decode(text)
        except ValueError as error:
            raise UserError(f"{file}:{number}: not JSON: {error}; {_mend(number, text)}") from None
        if not isinstance(record, dict):
            raise UserError(
                f"{file}:{number}: a {type(record).__name__}; each line must be one JSON object (for a list of them "
                "say data.reader=json)"
            )
        yield Row(f"{file}:{number}", record)


def _mend(number: int, text: str) -> str:
    if number == 1 and text.startswith("["):
        return "mend or remove this line; a JSON list is no JSONL: say data.reader=json"
    if number == 1 and not text.startswith("{"):
        return "mend or remove this line, or name another reader where the file is no JSONL: data.reader=…"
    return "mend or remove this line"
