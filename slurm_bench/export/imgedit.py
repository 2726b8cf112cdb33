"""ImgEdit, Basic: <key>.png, all in one folder. Other endings aren't looked for."""

from __future__ import annotations

from slurm_bench.export.layout import File, Layout, edited, fact
from slurm_bench.run.plan import Sample


def _files(sample: Sample, model: str) -> tuple[File, ...]:
    return edited(f"{fact(sample, 'key') or sample.id}.png")


LAYOUT = Layout(_files, by_model=False)
