"""WiseEdit: <model>/<subset>/<cn|en>/<id>.png."""

from __future__ import annotations

from slurm_bench.export.layout import File, Layout, edited, fact, split_id
from slurm_bench.run.plan import Sample


def _files(sample: Sample, model: str) -> tuple[File, ...]:
    found = [fact(sample, name) for name in ("subset", "idx", "language")]
    if not all(found):
        found = list(split_id(sample, "(.+)/([^/]+)-(cn|en)", "<subset>/<id>-<cn|en>").groups())
    subset, number, language = found
    return edited(model, subset, language, f"{number}.png")


LAYOUT = Layout(_files)
