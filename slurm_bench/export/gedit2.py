"""GEditBench v2's gallery: <model>/<key>.png, and a line a key in metadata.jsonl with the images of every model that
has one. A key without a line ends the script, so a key without any image has a line too."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from slurm_bench.errors import UserError
from slurm_bench.export.layout import INDEX, File, Layout, edited, fact
from slurm_bench.run.durable import json_line, parse_line
from slurm_bench.run.plan import Sample


def _files(sample: Sample, model: str) -> tuple[File, ...]:
    return edited(model, f"{_key(sample)}.png")


def _index(before: bytes, samples: Sequence[Sample], model: str, exported: Collection[str]) -> bytes:
    lines: dict[str, dict[str, Any]] = {}
    try:
        for row in map(parse_line, before.splitlines()):
            others = [candidate for candidate in row["candidates"] if candidate["model"] != model]
            lines[row["key"]] = {**row, "candidates": others}
    except (TypeError, KeyError):
        raise UserError(f"{INDEX}: damaged; move it away, and export each model again") from None
    for sample in samples:
        key = _key(sample)
        facts = {"key": key, "task": sample.category, "instruction": sample.instruction}
        line = lines.setdefault(key, {**facts, "candidates": []})
        if sample.id in exported:
            line["candidates"].append({"model": model, "image": f"{model}/{key}.png"})
    return b"".join(json_line(line) for line in lines.values())


def _key(sample: Sample) -> str:
    return fact(sample, "key") or sample.id


LAYOUT = Layout(_files, index=_index)
