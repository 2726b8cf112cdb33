"""RISEBench++: `overall_data.json`, a list beside its images, in English and Chinese. `image` is always a list, and a
flag is the text "True" or absent. The id is the index, and `-cn` where the Chinese is read.

A hybrid case has a list of turns, each to be run on what was made in the one before. With `data.options.turns=multi`
each is a sample, `index-1` and so on, in the category `hybrid_reasoning`, and the last one is told what is expected.
Without, the case stays in the plan with that as its problem.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
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
    turns,
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
    multi = turns(data) == "multi"
    for row in rows:
        for language in wanted:
            yield from _items(row, names, root, language, multi)


def _items(row: Row, names: dict[str, tuple[str, ...]], root: Path, language: str, multi: bool) -> Iterator[Item]:
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
    item = Item(
        id=index + suffix.replace("_", "-"),
        category=_HYBRID if hybrid else categories[0],
        instruction="\n".join(map(str, turns)) if hybrid else turns[0],
        source=source,
        rationale=values["rationale" + suffix],
        reference=reference,
        problem=problem or reference_problem or consistency_problem or flag_problem,
        facts={**facts, "turns": len(turns)} if hybrid else facts,
    )
    if hybrid and not multi:
        why = f"{len(turns)} turns, each on what was made in the one before: data.options.turns=multi runs them"
        item = replace(item, problem=why)
    yield from _turns(item, turns) if hybrid and multi else [item]


def _turns(item: Item, turns: list[Any]) -> Iterator[Item]:
    """What is told of each turn apart goes to that one; what is expected of the whole, to the last."""
    before = ""
    for number, instruction in enumerate(turns, 1):
        facts = {
            name: value[number - 1] if isinstance(value, list) and len(value) == len(turns) else value
            for name, value in item.facts.items()
        }
        last = number == len(turns)
        turn = replace(
            item,
            id=f"{item.id}-{number}",
            instruction=instruction,
            source=None if before else item.source,
            rationale=item.rationale if last else "",
            reference=item.reference if last else None,
            facts={**facts, "turn": number},
            follows=before,
        )
        yield turn
        before = turn.id


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) and value else [value]
