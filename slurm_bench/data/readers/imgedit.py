"""ImgEdit's Basic set: `basic_edit.json`, `{key: {id, prompt, edit_type}}`, where `id` is an image in a folder beside
it. Our id is the key, the category the edit type. Several samples share one image, whose folder is kept as a fact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from slurm_bench.config import DataConfig
from slurm_bench.data.item import Item
from slurm_bench.data.readers.benchmark import (
    find_file,
    images_root,
    names_in,
    other_facts,
    refuse_unlike,
    values_of,
    within,
)
from slurm_bench.data.readers.fields import mapped_names
from slurm_bench.data.readers.json_rows import object_rows

_NAMES = {"image": ("id",), "instruction": ("prompt",), "category": ("edit_type",)}


def read_imgedit(data: DataConfig) -> Iterator[Item]:
    """Raises UserError."""
    file = find_file(data, "basic_edit.json")
    names = mapped_names(_NAMES, data.fields)
    entries = object_rows(file, data.encoding)
    refuse_unlike(data, names, _NAMES, names_in(entries.values()), file)
    values = {key: values_of(row.cells, names) for key, row in entries.items()}
    root = images_root(data, file, (each["image"] for each in values.values()))
    for key, each in values.items():
        source, problem = within(root, each["image"])
        folder = PurePosixPath(each["image"]).parent.as_posix() if isinstance(each["image"], str) else ""
        yield Item(
            id=key,
            category=each["category"] or "",
            instruction=each["instruction"],
            source=source,
            problem=problem,
            facts={**other_facts(entries[key].cells, names), "folder": folder},
        )
