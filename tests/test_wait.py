"""What `--wait` waits for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from slurm_bench.cluster import launch
from slurm_bench.errors import INCOMPLETE
from slurm_bench.run.attempts import claim, conclude_once
from slurm_bench.run.layout import RunDir
from slurm_bench.run.opened import open_run
from tests.tasks import prepare


@pytest.mark.timeout(300)
def test_whoever_waits_learns_of_the_end_from_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the queue it would ask in an hour only."""
    root = prepare(tmp_path, "Invert", {})
    run, looks = open_run(root), []
    attempt = claim(run.folder, "edit", [sample.id for sample in run.samples], 1, "slurm", 0, 1)
    assert attempt is not None

    def is_at_work(folder: RunDir) -> bool:
        looks.append(folder)
        conclude_once(folder, attempt)
        return len(looks) == 1

    monkeypatch.setattr(launch, "_at_work", is_at_work)
    monkeypatch.setattr(launch, "QUEUE_POLL", 3600.0)
    with subprocess.Popen(["true"]) as guard:
        pass  # it has looked
    assert launch._wait(run, guard) == INCOMPLETE
    assert len(looks) == 2
