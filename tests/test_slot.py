"""A task's supervisor in this process."""

from __future__ import annotations

import os
from pathlib import Path

from tasks import prepare

from slurm_bench.cluster.slot import Slot
from slurm_bench.run.attempts import claim
from slurm_bench.run.journal import read_journals
from slurm_bench.run.opened import open_run


def test_what_is_killed_is_not_started_again(tmp_path: Path) -> None:
    """Also where it was never told to end before: a second Ctrl-C may come first."""
    run = open_run(prepare(tmp_path, "WaitsFor", {"mark": str(tmp_path / "never")}, count=1))
    attempt = claim(run.folder, "edit", ["s-0"], 1, "local", 0, 1)
    assert attempt is not None
    slot = Slot(run.folder, attempt, 0, os.environ, output=tmp_path / "out")
    slot.kill()
    assert slot.over()
    (process,) = read_journals(run.folder, "edit")
    assert (process.end, process.message, process.exit) == ("stopped", "SIGKILL", -9), "no sample is to blame for it"
