"""KRIS-Bench: a folder a task, each with its images and `annotation.json`, `{"1": {ori_img, gt_img, ins_en,
explain_en}}`. The id is the folder and the key (`temporal_prediction/1`), the category the folder. `ori_img` is a name
or a list; `gt_img` and `explain_en` may be empty, and the fact `explained` says whether there is an explanation. In
`temporal_prediction` the facts `frames` and `frame` say which of a scene's frames are given, and which is wanted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
            if file.parent.name == "temporal_prediction":
                facts |= _frames(values["image"], values["reference"])
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


def _frames(given: Any, wanted: Any) -> dict[str, Any]:
    """Which frames are given and wanted, by the images' names, `SCENE-FRAME.jpg`. Where none is wanted by name, it is
    the one of a scene's four that isn't given; {} where the names don't tell."""
    names = given if isinstance(given, list) else [given]
    frames = [_frame(name) for name in names]
    missing = {1, 2, 3, 4} - {*frames}
    frame = _frame(wanted) or (missing.pop() if len(missing) == 1 else None)
    return {} if None in (frame, *frames) else {"frames": frames, "frame": frame}


def _frame(name: Any) -> int | None:
    match = re.fullmatch(r"\d+-(\d{1,3})\.\w+", name) if isinstance(name, str) else None
    return int(match[1]) if match else None


def _annotations(path: Path) -> list[Path]:
    """The annotation.json of each task's folder: in `path`, in the one folder in it that has them, or of `path`
    itself."""
    for pattern in ("*/annotation.json", "*/*/annotation.json", "annotation.json"):
        if files := sorted(file for file in path.glob(pattern) if not file.parent.name.startswith(".")):
            return files
    raise UserError(f"'data.path': {path}: no folder with an annotation.json in it")
