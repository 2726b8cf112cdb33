"""GEdit-Bench v1: a HuggingFace dataset of the columns `task_type, key, instruction, instruction_language, input_image,
input_image_raw, Intersection_exist`. The id is the key and the language, the category the task type.

The source is `input_image_raw`, the picture at its own size, from which the benchmark's own example makes an editor's
input; `input_image` is a smaller copy for its judge, and stands in where there is no other.
"""

from __future__ import annotations

from collections.abc import Iterator

from slurm_bench.config import DataConfig
from slurm_bench.data.checks import identifier
from slurm_bench.data.item import Item
from slurm_bench.data.readers.benchmark import flags, languages, other_facts, refuse_unlike, values_of
from slurm_bench.data.readers.embedded import image_of
from slurm_bench.data.readers.fields import data_path, image_folder, mapped_names
from slurm_bench.data.readers.huggingface import dataset_table
from slurm_bench.data.text import as_text, joined
from slurm_bench.errors import UserError

_NAMES = {
    "id": ("key",),
    "category": ("task_type",),
    "instruction": ("instruction",),
    "image": ("input_image_raw", "input_image"),
    "language": ("instruction_language",),
    "intersection": ("Intersection_exist",),
}
_REQUIRED = ("id", "category", "instruction", "image", "language")


def read_gedit(data: DataConfig) -> Iterator[Item]:
    """Raises UserError."""
    wanted = languages(data, ("en", "cn"), ())
    names = mapped_names(_NAMES, data.fields)
    table, folder = dataset_table(data), image_folder(data)
    refuse_unlike(data, names, _REQUIRED, table.names, data_path(data))
    met: dict[str, None] = {}
    for row in table.rows:
        values = values_of(row.cells, names)
        language = as_text(values["language"]).strip()
        met.setdefault(language)
        if wanted and language not in wanted:
            continue
        key = identifier(values["id"], row.place, row.cells)
        source, problem = image_of(values["image"], folder)
        told, flag_problem = flags(values, ("intersection",))
        yield Item(
            id=f"{key}-{language}" if language else key,
            category=values["category"] or "",
            instruction=values["instruction"],
            source=source,
            problem=problem or flag_problem,
            facts={**other_facts(row.cells, names), "key": key, "language": language, **told},
        )
    if met and wanted and not met.keys() & {*wanted}:
        raise UserError(
            f"'data.options.language': {data.path} has no sample in {joined(wanted)}; it has: {joined(met)}"
        )
