"""MagicBrush: a HuggingFace dataset of the columns `img_id, turn_index, source_img, mask_img, instruction, target_img`.
Each turn is a sample of its own, from its own `source_img` to its `target_img`: the single-turn setting. With
`data.options.turns=multi` a session's later turns are made of what was made in the one before instead, with `both` too:
the benchmark's own scorer reads either. The id is the image's and the turn (`242679-1`; `242679-2-iter` beside
`242679-2`)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from slurm_bench.config import DataConfig
from slurm_bench.data.checks import identifier
from slurm_bench.data.item import Item
from slurm_bench.data.readers.benchmark import other_facts, refuse_unlike, turns, values_of
from slurm_bench.data.readers.embedded import image_of
from slurm_bench.data.readers.fields import data_path, image_folder, mapped_names
from slurm_bench.data.readers.huggingface import dataset_table

_NAMES = {
    "id": ("img_id",),
    "turn": ("turn_index",),
    "image": ("source_img",),
    "instruction": ("instruction",),
    "reference": ("target_img",),
    "mask": ("mask_img",),
}
_REQUIRED = ("id", "turn", "image", "instruction")


def _number(turn: str) -> float:
    """One that is none is behind all."""
    try:
        return float(turn)
    except ValueError:
        return math.inf


def read_magicbrush(data: DataConfig) -> Iterator[Item]:
    """Raises UserError."""
    names = mapped_names(_NAMES, data.fields)
    table, folder, setting = dataset_table(data), image_folder(data), turns(data, ("single", "multi", "both"))
    before: dict[str, str] = {}  # by image: its latest turn of the multi-turn setting
    latest: dict[str, float] = {}
    refuse_unlike(data, names, _REQUIRED, table.names, data_path(data))
    for row in table.rows:
        values = values_of(row.cells, names)
        image = identifier(values["id"], row.place, row.cells)
        turn = identifier(values["turn"], row.place, row.cells)
        source, problem = image_of(values["image"], folder)
        reference, reference_problem = image_of(values["reference"], folder)
        mask, mask_problem = image_of(values["mask"], folder)
        known = (reference_problem and f"reference: {reference_problem}") or (mask_problem and f"mask: {mask_problem}")
        single = Item(
            id=f"{image}-{turn}",
            category="single-turn" if setting == "both" else "all",
            instruction=values["instruction"],
            source=source,
            reference=reference,
            mask=mask,
            problem=problem or known,
            facts={**other_facts(row.cells, names), "img_id": image, "turn": values["turn"]},
        )
        follows = before.get(image)
        if follows is None or setting != "multi":
            yield single
        if follows is not None and setting != "single":
            disorder = f"turn {turn} stands behind turn {latest[image]:g}" if _number(turn) <= latest[image] else ""
            multi = replace(single, source=None, follows=follows, problem=known or disorder)
            if setting == "both":
                multi = replace(multi, id=f"{single.id}-iter", category="multi-turn")
            yield multi
            before[image] = multi.id
        else:
            before[image] = single.id
        latest[image] = max(_number(turn), latest.get(image, 0))
