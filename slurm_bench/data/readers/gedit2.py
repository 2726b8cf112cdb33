"""GEditBench v2: a HuggingFace dataset of the columns `key, instruction, source_image`. The id is the key, and the
category what stands in it before its number (`subject_add_000123`)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from slurm_bench.config import DataConfig
from slurm_bench.data.checks import identifier
from slurm_bench.data.item import Item
from slurm_bench.data.readers.benchmark import other_facts, refuse_unlike, values_of
from slurm_bench.data.readers.embedded import image_of
from slurm_bench.data.readers.fields import data_path, image_folder, mapped_names
from slurm_bench.data.readers.huggingface import dataset_table

_NAMES = {"id": ("key",), "instruction": ("instruction",), "image": ("source_image",)}
_TASK = re.compile(r"(.+?)[_-]\d+")


def read_gedit2(data: DataConfig) -> Iterator[Item]:
    """Raises UserError."""
    names = mapped_names(_NAMES, data.fields)
    table, folder = dataset_table(data), image_folder(data)
    refuse_unlike(data, names, _NAMES, table.names, data_path(data))
    for row in table.rows:
        values = values_of(row.cells, names)
        key = identifier(values["id"], row.place, row.cells)
        task = _TASK.fullmatch(key)
        source, problem = image_of(values["image"], folder)
        yield Item(
            id=key,
            category=task[1] if task else "",
            instruction=values["instruction"],
            source=source,
            problem=problem,
            facts=other_facts(row.cells, names),
        )
