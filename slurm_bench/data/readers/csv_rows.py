"""CSV with a header line. The delimiter is said with `data.delimiter` or found: the one of , ; tab | whose header has
the wanted names, else the most columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from slurm_bench.config import DataConfig
from slurm_bench.data.images import MAX_BYTES
from slurm_bench.data.item import Item
from slurm_bench.data.readers.encoding import utf8_chunks
from slurm_bench.data.readers.fields import data_file
from slurm_bench.data.readers.rows import Row, Table, items_of, wanted_fields
from slurm_bench.errors import UserError

_DELIMITERS = (",", ";", "\t", "|")
# An image may stand in a cell, in base64; Python's own limit is 131,072 characters.
csv.field_size_limit(2 * MAX_BYTES)

_NAMED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}


def read_csv(data: DataConfig) -> Iterator[Item]:
    """Raises UserError."""
    wanted = set(wanted_fields(data).values())
    table = csv_table(data_file(data), data.encoding, _said(data.delimiter) if data.delimiter else None, wanted)
    return items_of(data, table.rows, table.names)


def csv_table(file: Path, encoding: str | None, delimiter: str | None, wanted: Collection[str] = ()) -> Table:
    """The rows of a CSV file. Where the delimiter isn't said it is found by the `wanted` columns. Raises UserError."""
    text = b"".join(utf8_chunks(file, encoding)).decode("utf-8", "replace")
    delimiter = delimiter or _found(text, set(wanted))
    header = _checked_header(_header(text, delimiter), file)
    return Table([name for name in header if name], _rows(file, text, delimiter, header))


def _reader(text: str, delimiter: str) -> Any:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)


def _rows(file: Path, text: str, delimiter: str, header: list[str]) -> Iterator[Row]:
    reader = _reader(text, delimiter)
    try:
        lines = (cells for cells in reader if cells)
        next(lines, None)  # the header
        for cells in lines:
            extra = len(cells) - len(header)
            problem = f"line {reader.line_num} has {extra} cells more than the header; quote a text that has a comma"
            cells = dict(zip(header, cells, strict=False))
            yield Row(f"{file}:{reader.line_num}", cells, problem if extra > 0 else "")
    except csv.Error as error:
        raise UserError(f"{file}:{reader.line_num}: not CSV: {error}; mend or remove this line") from None


def _header(text: str, delimiter: str) -> list[str]:
    """The first line that isn't empty; what is wrong with it is told when the rows are read."""
    try:
        return [cell.strip() for cell in next((cells for cells in _reader(text, delimiter) if cells), [])]
    except csv.Error:
        return []


def _said(delimiter: str) -> str:
    sign = _NAMED.get(delimiter, delimiter)
    if len(sign) != 1 or sign in '"\r\n':
        raise UserError(f"'data.delimiter' is {delimiter!r}; it must be one character, or tab")
    return sign


def _found(text: str, wanted: set[str]) -> str:
    def worth(delimiter: str) -> tuple[int, int]:
        header = _header(text, delimiter)
        return len(wanted & set(header)), len(header)

    return max(_DELIMITERS, key=worth)


def _checked_header(header: list[str], file: Path) -> list[str]:
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise UserError(f"{file}: the column '{twice[0]}' stands twice in the header; rename one")
    return header
