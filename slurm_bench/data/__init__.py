"""Where samples come from. `read_items` resolves the reader, filters, limits and checks what it yields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from slurm_bench.config import nearest
from slurm_bench.data.categories import CATEGORIES, canonical
from slurm_bench.data.checks import as_item, checked
from slurm_bench.data.item import Item
from slurm_bench.data.text import BROKEN, as_text, listed, shown
from slurm_bench.errors import UserError
from slurm_bench.plugins import import_name

READERS = {
    "five_category": "slurm_bench.data.readers.five_category.read_five_category",
    "jsonl": "slurm_bench.data.readers.table.read_jsonl",
    "csv": "slurm_bench.data.readers.table.read_csv",
    "demo": "slurm_bench.data.demo.samples.read_demo",
}


def read_items(data: Any) -> Iterator[Item]:
    """The items that `data` (a DataConfig) asks for, in the reader's order, one in memory at a time.

    What is wrong with one sample is in its `problem`. Raises UserError, also in mid-reading, for what is wrong
    with the file: then none of it must be used.
    """
    where = data.path or f"reader '{data.reader}'"
    positions: dict[str, int] = {}
    first_problem = ""
    all_bad = True
    for position, item in _chosen(data, where):
        item = checked(item, f"{where}: item {position}")
        item = _told_apart(item, position, positions, where)
        positions[item.id] = position
        first_problem = first_problem or f"item {position} ({shown(item.id)}): {item.problem}"
        all_bad = all_bad and bool(item.problem)
        yield item
    if not positions:
        raise UserError(f"{where}: there are no samples in it")
    if all_bad:
        raise UserError(f"{where}: no sample of {len(positions)} can be edited; {first_problem}; see data.fields")


def _chosen(data: Any, where: str) -> Iterator[tuple[int, Item]]:
    """Items that pass the filter, with their position among all from 1, until the limit.

    At the limit the reading ends, unless the filter has a name that is neither ours nor met so far: it may be
    mistyped, and a run without it would say nothing.
    """
    wanted = {canonical(name): name for name in data.categories or ()}
    unmet = set(wanted)
    met: dict[str, None] = {}
    kept = 0
    items = _reader(data)(data)
    for position, value in enumerate(items, 1):
        item = as_item(value, f"{where}: item {position}")
        category = item.category if isinstance(item.category, str) else ""
        met.setdefault(category)
        unmet.discard(canonical(category))
        if kept != data.limit and (not wanted or canonical(category) in wanted):
            kept += 1
            yield position, item
        if kept == data.limit and unmet <= set(CATEGORIES):
            return
    if unmet and met:
        name = wanted[min(unmet)]
        raise UserError(f"'data.categories': {where} has no category '{name}'; there are: {listed(map(as_text, met))}")


def _reader(data: Any) -> Any:
    if data.reader in READERS:
        return import_name(READERS[data.reader], "data.reader")
    if "." not in data.reader:
        raise UserError(
            f"'data.reader': no reader '{data.reader}'; {nearest(data.reader, READERS)} "
            f"(bundled: {', '.join(READERS)}; or the dotted path of your own function)"
        )
    reader = import_name(data.reader, "data.reader")
    if not callable(reader):
        raise UserError(f"'data.reader': {data.reader} is a {type(reader).__name__}, not a function")
    return reader


def _told_apart(item: Item, position: int, positions: dict[str, int], where: str) -> Item:
    """Refuse an id that was there before; ids that broken bytes made alike get their position."""
    if item.id in positions and BROKEN in item.id:
        item = replace(item, id=f"{item.id}-{position}")
    if item.id in positions:
        raise UserError(
            f"{where}: items {positions[item.id]} and {position} have the same id {shown(item.id)}; "
            "give each its own, or name another field with data.fields.id"
        )
    return item
