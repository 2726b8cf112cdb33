"""KRIS-Bench: results/<model>/<folder>/<key>.jpg. The scorer looks for .jpg alone, and tells its judge that it is
JPEG, so JPEG it is."""

from __future__ import annotations

from slurm_bench.export.layout import File, Layout, edited, fact, split_id
from slurm_bench.run.plan import Sample


def _files(sample: Sample, model: str) -> tuple[File, ...]:
    folder, key = sample.category, fact(sample, "key")
    if not key:
        folder, key = split_id(sample, "(.+)/([^/]+)", "<folder>/<key>").groups()
    return edited("results", model, folder, f"{key}.jpg")


LAYOUT = Layout(_files)
