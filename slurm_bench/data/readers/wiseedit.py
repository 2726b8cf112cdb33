"""WiseEdit: a table a subset (`WiseEdit/Awareness/Awareness_1/Awareness_1.csv`) of the columns `idx, prompt, promptcn,
hint, ref, input_1, input_2 …`, whose images are named from the benchmark's folder, or from the table's own. The id is
the subset, the index and the language (`Awareness_1/12-en`), the category the subset without its number."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slurm_bench.config import DataConfig
from slurm_bench.data.checks import identifier
from slurm_bench.data.item import Item
from slurm_bench.data.readers.benchmark import languages, other_facts, refuse_unlike, values_of, within
from slurm_bench.data.readers.csv_rows import csv_table
from slurm_bench.data.readers.fields import data_path, files_below, mapped_names
from slurm_bench.data.readers.rows import Row
from slurm_bench.errors import UserError

_NAMES = {
    "id": ("idx",),
    "instruction": ("prompt",),
    "instruction_cn": ("promptcn",),
    "rationale": ("hint",),
    "reference": ("ref",),
    "image": ("input_1",),
}
_REQUIRED = ("id", "instruction", "image")
_INPUT = re.compile(r"input_(\d+)")


def read_wiseedit(data: DataConfig) -> Iterator[Item]:
    """Subset by subset, in the order of their names. Raises UserError."""
    wanted = languages(data, ("en", "cn"), ("en",))
    names = mapped_names(_NAMES, data.fields)
    required = _REQUIRED if wanted == ["en"] else (*_REQUIRED, "instruction_cn")
    for file in _tables(data_path(data)):
        table = csv_table(file, data.encoding, ",")
        refuse_unlike(data, names, required, table.names, file)
        for row in table.rows:
            for language in wanted:
                yield _item(row, names, data, file, language)


def _item(row: Row, names: dict[str, tuple[str, ...]], data: DataConfig, file: Path, language: str) -> Item:
    values = values_of(row.cells, names)
    index, subset = identifier(values["id"], row.place, row.cells), file.stem
    further = {int(found[1]): name for name in row.cells if (found := _INPUT.fullmatch(name))}
    columns = [*names["image"], *(further[n] for n in sorted(further) if n > 1)]
    images = [row.cells[name] for name in columns if row.cells.get(name, "").strip()]
    sources, problems = _found(images, data, file)
    references, reference_problems = _found(_several(values["reference"]), data, file)
    facts = {name: value for name, value in other_facts(row.cells, names).items() if not _INPUT.fullmatch(name)}
    facts |= {"subset": subset, "idx": index, "language": language, "inputs": len(sources)}
    if len(references) > 1:
        facts["references"] = [str(reference.absolute()) for reference in references]
    return Item(
        id=f"{subset}/{index}-{language}",
        category=re.sub(r"_\d+$", "", subset),
        instruction=values["instruction_cn" if language == "cn" else "instruction"],
        source=tuple(sources),
        rationale=values["rationale"],
        reference=references[0] if references else None,
        problem=row.problem or next(iter([*problems, *reference_problems]), ""),
        facts=facts,
    )


def _tables(path: Path) -> list[Path]:
    """Those that have their folder's name: others in a folder of results are scores."""
    files = [path] if path.is_file() else [file for file in files_below(path) if _is_table(file)]
    if not files:
        raise UserError(
            f"'data.path': {path}: no folder in it has a table of its own name (Awareness_1/Awareness_1.csv)"
        )
    return sorted(files, key=lambda file: file.stem)


def _is_table(file: Path) -> bool:
    return file.suffix == ".csv" and file.stem == file.parent.name


def _found(names: list[str], data: DataConfig, file: Path) -> tuple[list[Path], list[str]]:
    """Each image in the first folder that has it, from the benchmark's own (`data.image_root`) to the table's."""
    path = data_path(data)
    top = Path(data.image_root) if data.image_root else path if path.is_dir() else path.parent
    images, problems = [], []
    for name in names:
        places = [within(folder, name) for folder in (top, *_between(top, file.parent))]
        found = [image for image, _ in places if image is not None]
        images += [next((image for image in found if os.path.isfile(image)), found[0])] if found else []
        problems += [problem for _, problem in places[:1] if problem]
    return images, problems


def _between(top: Path, folder: Path) -> list[Path]:
    """The folders below `top` on the way to `folder`, which is one of them."""
    return [place for place in (*reversed(folder.parents), folder) if top in place.parents] or [folder]


def _several(reference: Any) -> list[str]:
    """One name, several with | or ; between, or a JSON list of them."""
    if not isinstance(reference, str):
        return []
    try:
        listed = json.loads(reference)
    except ValueError:
        listed = re.split(r"[|;]", reference)
    names = listed if isinstance(listed, list) else [listed]
    return [name.strip() for name in names if isinstance(name, str) and name.strip()]
