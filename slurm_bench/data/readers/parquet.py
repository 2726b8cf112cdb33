"""A Parquet file, or a folder of them in the order of their names. Images are paths, bytes or `{bytes, path}`."""

from __future__ import annotations

from collections.abc import Iterator

from slurm_bench.config import DataConfig
from slurm_bench.data.item import Item
from slurm_bench.data.readers.arrow_rows import parquet_table
from slurm_bench.data.readers.fields import data_path
from slurm_bench.data.readers.rows import items_of
from slurm_bench.errors import UserError


def read_parquet(data: DataConfig) -> Iterator[Item]:
    """Raises UserError."""
    path = data_path(data)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise UserError(
            f"'data.path': {path}: there is no .parquet file in it; a dataset's folder: data.reader=huggingface"
        )
    table = parquet_table(data, files)
    return items_of(data, table.rows, table.names)
