"""A minute of the chaos driver; by hand more: `python -m tests.chaos --seeds 1-50`."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos import deal
from cluster import SlurmCluster


@pytest.mark.parametrize("seed", [1, 2])  # the first one's disk can be filled
def test_a_run_ends_whole_and_by_itself_whatever_dies(
    slurm: SlurmCluster, tmp_path: Path, bench: Path, undisturbed: Path, seed: int
) -> None:
    assert deal(slurm, bench, undisturbed, tmp_path / "place", seed, faults=7).total()
