"""A HuggingFace dataset's folder, read without the `datasets` library: what `save_to_disk` wrote, a folder of its
cache, or a repository's snapshot with Parquet files. One split: `data.options.split`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from slurm_bench.config import DataConfig, nearest
from slurm_bench.data.item import Item
from slurm_bench.data.readers.arrow_rows import parquet_table, stream_table
from slurm_bench.data.readers.fields import data_path, files_below
from slurm_bench.data.readers.rows import Table, items_of
from slurm_bench.data.text import joined
from slurm_bench.errors import UserError

_SHARD = re.compile(r"(?:^|[-_])([A-Za-z0-9.]+?)(?:-\d{5}-of-\d{5}(?:-[0-9a-f]{8,})?)?\.(?:arrow|parquet)$")


def read_huggingface(data: DataConfig) -> Iterator[Item]:
    """Raises UserError."""
    table = dataset_table(data)
    return items_of(data, table.rows, table.names)


def dataset_table(data: DataConfig) -> Table:
    """The rows of the one split. Raises UserError."""
    path = data_path(data)
    if path.is_file():
        return (stream_table if path.suffix == ".arrow" else parquet_table)(data, [path])
    if (path / "dataset_dict.json").is_file():
        names = _json(path / "dataset_dict.json")["splits"]
        path = path / _split(data, names)
    if (path / "state.json").is_file():
        return stream_table(data, [path / file["filename"] for file in _json(path / "state.json")["_data_files"]])
    for suffix, table_of in ((".arrow", stream_table), (".parquet", parquet_table)):
        if shards := _shards(path, suffix):
            return table_of(data, shards[_split(data, shards)])
    raise UserError(f"'data.path': {path}: not a dataset's folder (no state.json, .arrow or .parquet file in it)")


def _shards(folder: Path, suffix: str) -> dict[str, list[Path]]:
    """Split → its files in order; with their folder, where several have splits (`en/train`)."""
    files = [f for f in files_below(folder) if f.suffix == suffix and not f.name.startswith("cache-")]
    splits = {}
    for file in files:
        found = _SHARD.search(file.name)
        if found and found[1].isdigit():  # train/0000.parquet
            splits[file] = file.parent
        elif found:
            splits[file] = file.parent / found[1]
    alone = len({split.parent for split in splits.values()}) == 1
    shards: dict[str, list[Path]] = {}
    for file, split in splits.items():
        shards.setdefault(split.name if alone else split.relative_to(folder).as_posix(), []).append(file)
    return shards


def _split(data: DataConfig, names: Iterable[str]) -> str:
    """The one asked for, or the only one. Raises UserError."""
    names, asked = list(names), data.options.get("split")
    if asked is None and len(names) == 1:
        return names[0]
    if asked is None:
        raise UserError(f"{data.path}: it has the splits {joined(names)}; say data.options.split={names[0]}")
    if asked not in names:
        raise UserError(f"'data.options.split': {data.path} has no split '{asked}'; {nearest(str(asked), names)}")
    return str(asked)


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
