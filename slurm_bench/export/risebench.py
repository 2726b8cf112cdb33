"""RISEBench and RISEBench++: outputs/<model>/images/<category>/<index>.png. No language stands in it: a run that has
both is exported in the one that comes first. Of a case of several turns there is the last one's image."""

from __future__ import annotations

from slurm_bench.export.layout import File, Layout, edited, fact
from slurm_bench.run.plan import Sample


def _files(sample: Sample, model: str) -> tuple[File, ...]:
    turn, turns = fact(sample, "turn"), fact(sample, "turns")
    if turn and turn != turns:
        return ()
    index = fact(sample, "index") or sample.id
    return edited("outputs", model, "images", sample.category, f"{index}.png")


LAYOUT = Layout(_files)
