"""Where samples come from. `read_items` resolves the reader, filters, limits and checks what it yields."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from slurm_bench.config import DataConfig
from slurm_bench.data.categories import CATEGORIES, UNCATEGORISED, canonical, one_spelling
from slurm_bench.data.checks import as_item, checked
from slurm_bench.data.item import Item
from slurm_bench.data.progress import counted
from slurm_bench.data.readers import find_reader, meant_for_another
from slurm_bench.data.text import BROKEN, as_text, joined, quoted
from slurm_bench.errors import UserError

# Image files are waited for, not computed: on shared storage one takes milliseconds to open.
_THREADS = 16
_AHEAD = 32
_AHEAD_BYTES = 32 * 1024 * 1024


def read_items(data: DataConfig) -> Iterator[Item]:
    """The items that `data` asks for, in the reader's order, a few in memory at a time.

    What is wrong with one sample is in its `problem`. Raises UserError, also in mid-reading, for what is wrong
    with the file: then none of it must be used.
    """
    where = data.path or f"reader '{data.reader}'"
    positions: dict[str, int] = {}
    first_problem = ""
    all_bad = True
    for position, item in counted(_checked_ahead(_chosen(data, where), where), where.rpartition("/")[2]):
        item = _after_its_turn(_told_apart(item, position, positions, where), positions)
        positions[item.id] = position
        first_problem = first_problem or f"item {position} ({quoted(item.id)}): {item.problem}"
        all_bad = all_bad and bool(item.problem)
        yield item
    if not positions:
        raise UserError(f"{where}: there are no samples in it")
    if all_bad:
        raise UserError(
            f"{where}: no sample of {len(positions)} can be edited; {first_problem}; see data.fields, data.image_root"
        )


def _checked_ahead(chosen: Iterator[tuple[int, Item]], where: str) -> Iterator[tuple[int, Item]]:
    """Each item checked, in their order, while the images of the next are looked at in threads."""
    waiting: deque[tuple[int, Future[Item], int]] = deque()
    held = 0
    with ThreadPoolExecutor(_THREADS, "check") as pool:
        try:
            for position, item in chosen:
                waiting.append((position, pool.submit(checked, item, f"{where}: item {position}"), _size(item)))
                held += _size(item)
                while len(waiting) > _AHEAD or held > _AHEAD_BYTES:
                    position, first, size = waiting.popleft()
                    held -= size
                    yield position, first.result()
            for position, first, _ in waiting:
                yield position, first.result()
        finally:
            for _, future, _ in waiting:
                future.cancel()


def _size(item: Item) -> int:
    """The bytes of the images that an item holds."""
    images = item.source if isinstance(item.source, (list, tuple)) else (item.source,)
    return sum(len(image) for image in (*images, item.reference, item.mask) if isinstance(image, bytes))


def _chosen(data: DataConfig, where: str) -> Iterator[tuple[int, Item]]:
    """Items that pass the filter, with their position among all from 1, until the limit.

    At the limit the reading ends, unless the filter has a name that is neither ours nor met so far: it may be
    mistyped, and a run without it would say nothing.
    """
    wanted = {canonical(name): name for name in data.categories or ()}
    unmet = set(wanted)
    spellings: dict[str, str] = {}
    met: dict[str, None] = {}
    kept = 0
    for position, value in _records(data, where):
        item = as_item(value, f"{where}: item {position}")
        if isinstance(item.category, str | int | float) and not isinstance(item.category, bool):
            item = replace(item, category=one_spelling(as_text(item.category), spellings))
        category = (item.category if isinstance(item.category, str) else "") or UNCATEGORISED
        met.setdefault(category)
        unmet.discard(canonical(category))
        if kept != data.limit and (not wanted or canonical(category) in wanted):
            kept += 1
            yield position, item
        if kept == data.limit and unmet <= set(CATEGORIES):
            return
    if unmet and met:
        name = wanted[min(unmet)]
        raise UserError(f"'data.categories': {where} has no category '{name}'; there are: {joined(map(as_text, met))}")


def _records(data: DataConfig, where: str) -> Iterator[tuple[int, Any]]:
    """What the reader gives, numbered from 1. Any exception of it becomes one line that names the place in it."""
    reader, position = find_reader(data), 0
    try:
        for position, value in enumerate(reader(data), 1):
            yield position, value
    except UserError as error:
        if position or "data.reader=" in str(error):
            raise
        raise UserError(f"{error}{meant_for_another(data)}") from None
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = " ".join(str(error).split())[:200]
        raise UserError(
            f"{where}: the reader '{data.reader}' failed after {position} items: {type(error).__name__}: {message} "
            f"({place.filename}:{place.lineno}){'' if position else meant_for_another(data)}"
        ) from error


def _after_its_turn(item: Item, before: Collection[str]) -> Item:
    """What follows a sample that isn't among those before it can't be edited."""
    if not item.follows or item.follows in before:
        return item
    if (whole := item.follows.removesuffix(".0")) in before:  # as pandas writes it to CSV, where some rows have none
        return replace(item, follows=whole)
    why = f"it follows {quoted(item.follows)}, which isn't before it in the data, or was left out of it"
    return replace(item, follows="", problem=item.problem or why, on_storage=False)


def _told_apart(item: Item, position: int, positions: dict[str, int], where: str) -> Item:
    """Refuse an id that was there before; ids that broken bytes made alike get their position."""
    if item.id in positions and BROKEN in item.id:
        item = replace(item, id=f"{item.id}-{position}")
    if item.id in positions:
        raise UserError(
            f"{where}: items {positions[item.id]} and {position} have the same id {quoted(item.id)}; "
            "give each its own, or name another field with data.fields.id"
        )
    return item
