"""A minute of the chaos driver; by hand more: `python -m tests.chaos --seeds 1-50`."""

from __future__ import annotations

from pathlib import Path

from chaos import deal
from cluster import SlurmCluster


def test_a_run_ends_whole_and_by_itself_whatever_dies(
    slurm: SlurmCluster, tmp_path: Path, bench: Path, undisturbed: Path
) -> None:
    odd = 3  # its disk can be filled
    assert deal(slurm, bench, undisturbed, tmp_path / "place", odd, faults=5).total()
