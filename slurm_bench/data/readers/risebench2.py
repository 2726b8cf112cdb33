"""RISEBench++: `overall_data.json`, a list beside its images, in English and Chinese. `image` is always a list, and a
flag is the text "True" or absent. The id is the index, and `-cn` where the Chinese is read.

A hybrid case has a list of turns, each to be run on what the one before made. It can't be run yet: it stays in the
plan with that as its problem, in the category `hybrid_reasoning`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slurm_bench.config import DataConfig
from slurm_bench.data.checks import identifier
from slurm_bench.data.item import Item
from slurm_bench.data.readers.benchmark import (
    find_file,
    flags,
    images_root,
    languages,
    list_of,
    other_facts,
    values_of,
    within,
)
from slurm_bench.data.readers.fields import mapped_names
from slurm_bench.data.readers.rows import Row

_FLAGS = ("reasoning_img", "reasoning_wo_ins", "consistency_free", "multi_img", "multi_turn")
_NAMES = {
    "id": ("index",),
    "category": ("category",),
    "instruction": ("instruction",),
    "instruction_cn": ("instruction_chinese",),
    "image": ("image",),
    "rationale": ("reference_txt", "reference"),
    "rationale_cn": ("reference_txt_chinese", "reference_txt", "reference"),
    "reference": ("reference_img",),
    "consistency": ("consistency_img",),
}
_REQUIRED = ("id", "category", "instruction", "image")
_HYBRID = "hybrid_reasoning"


def read_risebench2(data: DataConfig) -> Iterator[Item]:
    """Raises UserError."""
    wanted = languages(data, ("en", "cn"), ("en",))
    file = find_file(data, "overall_data.json")
    names = mapped_names(_NAMES, data.fields)
    rows = list_of(data, file, names, _REQUIRED if wanted == ["en"] else (*_REQUIRED, "instruction_cn"))
    root = images_root(data, file, (name for row in rows for name in _as_list(values_of(row.cells, names)["image"])))
    for row in rows:
        for language in wanted:
            yield _item(row, names, root, language)


def _item(row: Row, names: dict[str, tuple[str, ...]], root: Path, language: str) -> Item:
    values = values_of(row.cells, names)
    suffix = "_cn" if language == "cn" else ""
    index = identifier(values["id"], row.place, row.cells)
    turns, categories = _as_list(values["instruction" + suffix]), _as_list(values["category"] or "")
    source, problem = within(root, values["image"])
    reference, reference_problem = within(root, values["reference"])
    consistency, consistency_problem = within(root, values["consistency"])
    told, flag_problem = flags(row.cells, _FLAGS)
    facts = {**other_facts(row.cells, names), **told, "index": index, "language": language}
    if isinstance(consistency, Path):
        facts["consistency_img"] = str(consistency.absolute())
    hybrid = len(turns) > 1 or len(categories) > 1
    if hybrid:
        problem = f"{len(turns)} turns, each on what the one before made: chained samples can't be run yet"
        facts["turns"] = len(turns)
    return Item(
        id=index + suffix.replace("_", "-"),
        category=_HYBRID if hybrid else categories[0],
        instruction="\n".join(map(str, turns)) if hybrid else turns[0],
        source=source,
        rationale=values["rationale" + suffix],
        reference=reference,
        problem=problem or reference_problem or consistency_problem or flag_problem,
        facts=facts,
    )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) and value else [value]
