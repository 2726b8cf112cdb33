"""Images that are no more, noted so that they are made again (law 15)."""

from __future__ import annotations

from collections.abc import Callable, Collection

from slurm_bench.run.opened import Run
from slurm_bench.run.records import Record, State, note_lost


def note_losses(run: Run, find: Callable[[Collection[Record]], dict[str, str]]) -> tuple[State, dict[str, str]]:
    """What is known then, and what is wrong with each lost image, by id. `find` looks at records' images. Two tasks may
    have recorded the same image of a sample: once the newest record holds no more, the one before it is looked at."""
    lost: dict[str, str] = {}
    noted = set[tuple[str, object]]()
    while True:
        state = run.state()
        edited = {i: o.ok for i, o in state.edits.items() if o.ok is not None and (i in lost or not noted)}
        fresh = [r for i, r in edited.items() if (i, r.get("time")) not in noted]
        found = find(fresh)
        if not found:
            return state, lost
        note_lost(run.folder, [edited[sample_id] for sample_id in found], found)
        noted |= {(sample_id, edited[sample_id].get("time")) for sample_id in found}
        lost |= found
