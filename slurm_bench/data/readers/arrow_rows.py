"""Rows of Arrow record batches: what Parquet files and HuggingFace datasets are made of. Needs pyarrow."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from slurm_bench.config import DataConfig
from slurm_bench.data.readers.rows import Row, Table
from slurm_bench.errors import UserError

_ROWS = 16  # in memory at a time, their images with them


def pyarrow(name: str, data: DataConfig) -> Any:
    """A module of pyarrow. Raises UserError where it isn't installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"the reader '{data.reader}' needs pyarrow, which isn't installed: pip install 'slurm_bench[data]'"
        ) from None


def arrow_table(data: DataConfig, schema: Any, batches: Iterable[tuple[Path, Any]]) -> Table:
    """The rows of (file, record batch)es that have this schema. Raises UserError."""
    twice = [name for name in schema.names if schema.names.count(name) > 1]
    if twice:
        raise UserError(f"{data.path}: the column '{twice[0]}' stands twice; rename one")
    return Table(list(_names(schema)), _rows(batches, _labels(schema)))


def parquet_table(data: DataConfig, files: list[Path]) -> Table:
    parquet = pyarrow("pyarrow.parquet", data)

    def batches() -> Iterator[tuple[Path, Any]]:
        for file in files:
            with parquet.ParquetFile(file) as opened:
                yield from ((file, batch) for batch in opened.iter_batches(batch_size=_ROWS))

    return arrow_table(data, parquet.read_schema(files[0]), batches())


def stream_table(data: DataConfig, files: list[Path]) -> Table:
    """Of Arrow stream files, as `datasets` saves and caches them; mapped into memory, not read."""
    arrow = pyarrow("pyarrow", data)

    def batches() -> Iterator[tuple[Path, Any]]:
        for file in files:
            with arrow.memory_map(str(file)) as mapped, arrow.ipc.open_stream(mapped) as opened:
                for batch in opened:
                    yield from ((file, batch.slice(start, _ROWS)) for start in range(0, batch.num_rows, _ROWS))

    with arrow.memory_map(str(files[0])) as mapped:
        schema = arrow.ipc.open_stream(mapped).schema
    return arrow_table(data, schema, batches())


def _rows(batches: Iterable[tuple[Path, Any]], labels: dict[str, list[str]]) -> Iterator[Row]:
    numbers: Counter[Path] = Counter()
    for file, batch in batches:
        _refuse_damaged(file, batch, numbers[file])
        for cells in batch.to_pylist():
            numbers[file] += 1
            for name, texts in labels.items():
                if isinstance(cells.get(name), int) and 0 <= cells[name] < len(texts):
                    cells[name] = texts[cells[name]]
            yield Row(f"{file}: row {numbers[file]}", cells)


def _refuse_damaged(file: Path, batch: Any, row: int) -> None:
    """Where each cell lies is the file's to say, and pyarrow looks there, be it outside of the file: the process ends,
    or another's memory passes for a cell. Raises UserError."""
    try:
        batch.validate(full=True)
    except ValueError as error:
        said = " ".join(str(error).split())
        raise UserError(f"{file}: damaged behind row {row} ({said}); download it again") from None


def _names(fields: Iterable[Any], prefix: str = "") -> Iterator[str]:
    """The columns, and the fields of structs within as `meta.text`."""
    for field in fields:
        yield prefix + field.name
        if hasattr(field.type, "fields"):  # a struct
            yield from _names(field.type.fields, f"{prefix}{field.name}.")


def _labels(schema: Any) -> dict[str, list[str]]:
    """Column → the names that its numbers stand for (`ClassLabel`), as `datasets` notes it in the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: kind["names"] for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
