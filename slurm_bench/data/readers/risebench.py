"""RISEBench: a JSON list beside its images. `reference` and `reference_txt` are texts for the judge, `reference_img` is
an image. Of the flags, those that are absent, null or NaN are false."""

from __future__ import annotations

from collections.abc import Iterator

from slurm_bench.config import DataConfig
from slurm_bench.data.checks import identifier
from slurm_bench.data.item import Item
from slurm_bench.data.readers.benchmark import find_file, flags, images_root, list_of, other_facts, values_of, within
from slurm_bench.data.readers.fields import mapped_names

FILES = ("datav2_total_w_subtask.json", "data_total.json")
FLAGS = ("reasoning_img", "reasoning_wo_ins", "consistency_free")
_NAMES = {
    "id": ("index",),
    "category": ("category",),
    "instruction": ("instruction",),
    "image": ("image",),
    "rationale": ("reference", "reference_txt"),
    "reference": ("reference_img",),
}
_REQUIRED = ("id", "category", "instruction", "image")


def read_risebench(data: DataConfig) -> Iterator[Item]:
    """Raises UserError."""
    file = find_file(data, *FILES)
    names = mapped_names(_NAMES, data.fields)
    rows = list_of(data, file, names, _REQUIRED)
    root = images_root(data, file, (values_of(row.cells, names)["image"] for row in rows))
    for row in rows:
        values = values_of(row.cells, names)
        source, problem = within(root, values["image"])
        reference, reference_problem = within(root, values["reference"])
        told, flag_problem = flags(row.cells, FLAGS)
        yield Item(
            id=identifier(values["id"], row.place, row.cells),
            category=values["category"] or "",
            instruction=values["instruction"],
            source=source,
            rationale=values["rationale"],
            reference=reference,
            problem=problem or reference_problem or flag_problem,
            facts={**other_facts(row.cells, names), **told},
        )
