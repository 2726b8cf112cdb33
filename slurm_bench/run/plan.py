"""The plan: the frozen list of a run's samples. It never changes once it is there (law 1)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slurm_bench.data.images import sniff_extension
from slurm_bench.data.item import Item
from slurm_bench.errors import UserError
from slurm_bench.run.durable import create_once, json_line, write_atomic
from slurm_bench.run.layout import RunDir
from slurm_bench.run.slices import seed_of


@dataclass(frozen=True)
class Sample:
    """One line of the plan. Image paths are absolute, or relative to the run folder where unpacked."""

    index: int
    id: str
    category: str
    instruction: str
    sources: tuple[str, ...]
    seed: int
    description: str = ""
    rationale: str = ""
    reference: str | None = None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        row = asdict(self)
        sources = row.pop("sources")
        row["source"] = sources[0] if len(sources) == 1 else list(sources) or None
        return row

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Sample:
        row = dict(row)
        source = row.pop("source")
        row["sources"] = tuple(source) if isinstance(source, list) else (source,) if source else ()
        return cls(**row)


def make_plan(run: RunDir, items: Iterable[Item], base_seed: int) -> list[Sample]:
    """Freeze the items, unpacking what images the data had within. Where two launchers plan the same run
    at once, the first to finish wins and both get its plan."""
    samples = [_planned(run, index, item, base_seed) for index, item in enumerate(items)]
    create_once(run.plan, b"".join(json_line(sample.to_json()) for sample in samples))
    return read_plan(run)


def read_plan(run: RunDir) -> list[Sample]:
    """Raises UserError where there is no plan, or one that was damaged: it is written whole, or not at all."""
    try:
        lines = run.plan.read_bytes().splitlines()
        return [Sample.from_json(json.loads(line)) for line in lines]
    except FileNotFoundError:
        raise UserError(f"{run.root}: not a run folder (it has no {run.plan.name})") from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{run.plan}: damaged: {error}") from None


def _planned(run: RunDir, index: int, item: Item, base_seed: int) -> Sample:
    parts = item.source if isinstance(item.source, tuple) else (item.source,)
    sources = tuple(
        _placed(run, item.id, f"-{n}" if n else "", part) for n, part in enumerate(parts) if part is not None
    )
    reference = None if item.reference is None else _placed(run, item.id, "-reference", item.reference)
    return Sample(
        index=index,
        id=item.id,
        category=item.category,
        instruction=item.instruction,
        sources=sources,
        seed=seed_of(item.id, base_seed),
        description=item.description,
        rationale=item.rationale,
        reference=reference,
        problem=item.problem,
    )


def _placed(run: RunDir, sample_id: str, part: str, image: Path | bytes) -> str:
    if isinstance(image, Path):
        return str(image.absolute())
    relative = run.source(sample_id, part, sniff_extension(image))
    write_atomic(run.root / relative, image)
    return relative
