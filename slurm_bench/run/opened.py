"""A run that was opened: read once by a process, and handed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slurm_bench.config import Config, load_config
from slurm_bench.errors import UserError
from slurm_bench.run.layout import RunDir
from slurm_bench.run.plan import Sample, read_plan
from slurm_bench.run.records import State, read_state


@dataclass(frozen=True)
class Run:
    """The run's folder, its configuration and its plan. What the records say grows while tasks write, so it is read
    when it is asked for."""

    folder: RunDir
    config: Config
    samples: Sequence[Sample]

    @property
    def root(self) -> Path:
        return self.folder.root

    def state(self) -> State:
        return read_state(self.folder, self.samples, self.config.scorers)


def open_run(root: Path) -> Run:
    """Raises UserError where there is no run, or a damaged one."""
    folder = RunDir(root.resolve())
    if not folder.config.exists():
        raise UserError(f"{root}: not a run folder (it has no {folder.config.name})")
    return Run(folder, load_config(folder.config), read_plan(folder))
