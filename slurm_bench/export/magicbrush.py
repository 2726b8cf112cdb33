"""MagicBrush: <img_id>/<img_id>_1.png for the first turn of a session, <img_id>_inde_<turn>.png for a later one that
starts from the data's own image, <img_id>_iter_<turn>.png where it starts from what was made in the one before."""

from __future__ import annotations

from slurm_bench.export.layout import File, Layout, edited, fact, split_id
from slurm_bench.run.plan import Sample


def _files(sample: Sample, model: str) -> tuple[File, ...]:
    session, turn = fact(sample, "img_id"), fact(sample, "turn", "turn_index")
    if not (session and turn):
        session, turn = split_id(sample, r"(.+)-(\d+)", "<img_id>-<turn>").groups()
    later = "iter" if sample.follows else "inde"
    return edited(session, f"{session}_1.png" if turn == "1" else f"{session}_{later}_{turn}.png")


LAYOUT = Layout(_files, by_model=False)
