"""Rows of Arrow record batches: what Parquet files and HuggingFace datasets are made of. Needs pyarrow."""

from __future__ import annotations

import importlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from slurm_bench.config import DataConfig
from slurm_bench.data.formats.kinds import no_table
from slurm_bench.data.readers.fields import data_path
from slurm_bench.data.readers.rows import Row, Table
from slurm_bench.errors import UserError

_ROWS = 16  # in memory at a time, their images with them
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=[-.])")


def pyarrow(name: str, data: DataConfig) -> Any:
    """A module of pyarrow. Raises UserError where it isn't installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"the reader '{data.reader}' needs pyarrow, which isn't installed: pip install 'slurm_bench[data]'"
        ) from None


def arrow_table(data: DataConfig, schemas: Mapping[Path, Any], batches: Iterable[tuple[Path, Any]]) -> Table:
    """The rows of (file, record batch)es. A file may have columns that others lack. Raises UserError."""
    if data_path(data) not in schemas:  # else it is the one that was asked for
        _refuse_incomplete(schemas)
    for file, schema in schemas.items():
        twice = [name for name in schema.names if schema.names.count(name) > 1]
        if twice:
            raise UserError(f"{file}: the column '{twice[0]}' stands twice; rename one")
    names = dict.fromkeys(name for schema in schemas.values() for name in _names(schema))
    return Table(list(names), _rows(batches, {file: _labels(schema) for file, schema in schemas.items()}))


def _refuse_incomplete(files: Iterable[Path]) -> None:
    """Files that say of how many they are (`train-00000-of-00004.parquet`) must all be there: a download that was cut
    short would pass for a smaller benchmark. Raises UserError."""
    shards: dict[tuple[str, str], set[int]] = {}
    for file in files:
        if found := _SHARD.search(file.name):
            shards.setdefault((str(file.parent / file.name[: found.start()]), found[2]), set()).add(int(found[1]))
    for (start, of), numbers in shards.items():
        if missing := sorted({*range(int(of))} - numbers):
            raise UserError(
                f"{start}-*-of-{of}: {len(missing)} of {int(of)} files missing, the first {missing[0]:05}; "
                "download it again, or name one file as data.path"
            )


def parquet_table(data: DataConfig, files: list[Path]) -> Table:
    arrow, parquet = pyarrow("pyarrow", data), pyarrow("pyarrow.parquet", data)

    def batches() -> Iterator[tuple[Path, Any]]:
        for file in files:
            with _named(file, arrow), parquet.ParquetFile(file) as opened:
                yield from ((file, batch) for batch in opened.iter_batches(batch_size=_ROWS))

    def schema_of(file: Path) -> Any:
        with _named(file, arrow):
            return parquet.read_schema(file)

    return arrow_table(data, {file: schema_of(file) for file in files}, batches())


def stream_table(data: DataConfig, files: list[Path]) -> Table:
    """The rows of Arrow stream files, as `datasets` saves and caches them; mapped into memory, not read."""
    arrow = pyarrow("pyarrow", data)

    def batches() -> Iterator[tuple[Path, Any]]:
        for file in files:
            with _named(file, arrow), arrow.memory_map(str(file)) as mapped, arrow.ipc.open_stream(mapped) as opened:
                for batch in opened:
                    yield from ((file, batch.slice(start, _ROWS)) for start in range(0, batch.num_rows, _ROWS))

    def schema_of(file: Path) -> Any:
        with _named(file, arrow), arrow.memory_map(str(file)) as mapped, arrow.ipc.open_stream(mapped) as opened:
            return opened.schema

    return arrow_table(data, {file: schema_of(file) for file in files}, batches())


@contextmanager
def _named(file: Path, arrow: Any) -> Iterator[None]:
    """What is wrong with one of many files, with its name. Raises UserError."""
    try:
        yield
    except (arrow.ArrowException, OSError) as error:
        said = " ".join(str(error).split())[:200]
        wrong = f"it is no table but {other}" if (other := _what_else(file)) else ""
        raise UserError(f"{file}: {wrong or f'damaged, or of another kind ({said}); download it again'}") from None


def _what_else(file: Path) -> str:
    with suppress(OSError), file.open("rb") as raw:
        return no_table(raw.read(1024))
    return ""


def _rows(batches: Iterable[tuple[Path, Any]], labels: Mapping[Path, dict[str, list[str]]]) -> Iterator[Row]:
    numbers: Counter[Path] = Counter()
    for file, batch in batches:
        _refuse_damaged(file, batch, numbers[file])
        for cells in batch.to_pylist():
            numbers[file] += 1
            for name, texts in labels[file].items():
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
