"""KRIS-Bench: a folder a task, each with its images and `annotation.json`, `{"1": {ori_img, gt_img, ins_en,
explain_en}}`. The id is the folder and the key (`temporal_prediction/1`), the category the folder. `ori_img` is a name
or a list; `gt_img` and `explain_en` may be empty, and the fact `explained` says whether there is an explanation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from slurm_bench.config import DataConfig
from slurm_bench.data.item import Item
from slurm_bench.data.readers.benchmark import names_in, other_facts, refuse_unlike, values_of, within
from slurm_bench.data.readers.fields import data_path, mapped_names
from slurm_bench.data.readers.json_rows import object_rows
from slurm_bench.errors import UserError

_NAMES = {
    "image": ("ori_img",),
    "instruction": ("ins_en",),
    "reference": ("gt_img",),
    "rationale": ("explain_en",),
}


def read_kris(data: DataConfig) -> Iterator[Item]:
    """Folder by folder, in the order of their names. Raises UserError."""
    names = mapped_names(_NAMES, data.fields)
    tasks = {file: object_rows(file, data.encoding) for file in _annotations(data_path(data))}
    found = names_in(row for rows in tasks.values() for row in rows.values())
    refuse_unlike(data, names, ("image", "instruction"), found, data_path(data))
    for file, rows in tasks.items():
        for key, row in rows.items():
            values = values_of(row.cells, names)
            source, problem = within(file.parent, values["image"])
            reference, reference_problem = within(file.parent, values["reference"])
            facts = {"key": key, "explained": values["rationale"] is not None}
            yield Item(
                id=f"{file.parent.name}/{key}",
                category=file.parent.name,
                instruction=values["instruction"],
                source=source,
                rationale=values["rationale"],
                reference=reference,
                problem=problem or reference_problem,
                facts={**other_facts(row.cells, names), **facts},
            )


def _annotations(path: Path) -> list[Path]:
    """Of each task's folder in `path`, in the one folder in it that has them, or of the one that `path` is."""
    for pattern in ("*/annotation.json", "*/*/annotation.json", "annotation.json"):
        if files := sorted(file for file in path.glob(pattern) if not file.parent.name.startswith(".")):
            return files
    raise UserError(f"'data.path': {path}: no folder with an annotation.json in it")
