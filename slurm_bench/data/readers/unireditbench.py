"""UniREditBench: `data.json`, a list beside its images. The id is the name and the index (`maze/12`), the category the
name. Where a sample has `rules`, they stand before its instruction, as the benchmark itself puts them to an editor."""

from __future__ import annotations

from collections.abc import Iterator

from slurm_bench.config import DataConfig
from slurm_bench.data.checks import identifier
from slurm_bench.data.item import Item
from slurm_bench.data.readers.benchmark import find_file, images_root, list_of, other_facts, values_of, within
from slurm_bench.data.readers.fields import mapped_names

_NAMES = {
    "id": ("idx",),
    "category": ("name",),
    "instruction": ("instruction",),
    "rules": ("rules",),
    "image": ("original_image_path",),
    "reference": ("reference_image_path",),
    "rationale": ("reference_effect",),
}
_REQUIRED = ("id", "category", "instruction", "image")


def read_unireditbench(data: DataConfig) -> Iterator[Item]:
    """Raises UserError."""
    file = find_file(data, "data.json")
    names = mapped_names(_NAMES, data.fields)
    rows = list_of(data, file, names, _REQUIRED)
    root = images_root(data, file, (values_of(row.cells, names)["image"] for row in rows))
    for row in rows:
        values = values_of(row.cells, names)
        name = identifier(values["category"], row.place, row.cells)
        index = identifier(values["id"], row.place, row.cells)
        source, problem = within(root, values["image"])
        reference, reference_problem = within(root, values["reference"])
        instruction = values["instruction"]
        if isinstance(values["rules"], str) and isinstance(instruction, str):
            instruction = f"{values['rules']} {instruction}"
        yield Item(
            id=f"{name}/{index}",
            category=name,
            instruction=instruction,
            source=source,
            rationale=values["rationale"],
            reference=reference,
            problem=problem or reference_problem,
            facts={**other_facts(row.cells, names), "idx": index, "rules": values["rules"] is not None},
        )
