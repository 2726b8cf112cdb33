"""A run folder made and worked on in this process, without a launcher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers import make_benchmark, make_config, run_dir

from slurm_bench.cluster.chain import carry_on, start
from slurm_bench.cluster.here import Debug
from slurm_bench.config import load_config
from slurm_bench.data import read_items
from slurm_bench.run.attempts import claim
from slurm_bench.run.create import create_run
from slurm_bench.run.opened import open_run
from slurm_bench.run.records import read_records
from slurm_bench.stages.engine import Tally
from slurm_bench.stages.stop import StopSignals
from slurm_bench.stages.task import run_task


def prepare(
    tmp_path: Path, editor: str, params: dict[str, Any], count: int = 6, name: str = "run", **more: Any
) -> Path:
    """A planned run. `editor` is a class of plugins.py, or a class path."""
    data = make_benchmark(tmp_path / "bench", count)
    file = make_config(tmp_path / f"{name}.yaml", data, editor, params, **more)
    config = load_config(file, [f"editor.class_path={editor}"] if "." in editor else [])
    create_run(tmp_path / name, config, lambda: read_items(config.data), {}, force=False)
    return tmp_path / name


def work(root: Path, stage: str = "edit", number: int = 1, slices: int = 1) -> list[Tally]:
    """One attempt over everything that is missing, task after task."""
    run = open_run(root)
    state = run.state()
    missing = state.to_edit() if stage == "edit" else state.to_score()
    attempt = claim(run.folder, stage, missing, slices, "debug", 0, number, run.by)
    assert attempt is not None
    return [run_task(run, stage, number, task, StopSignals()) for task in range(attempt.slices)]


def heal(root: Path, executor: Debug | None = None) -> int | None:
    """What a person who types `resubmit` gets: an attempt, and the chain until its end; gives the exit code."""
    run, executor = open_run(root), executor or Debug()
    attempt = start(run, executor, force=False)
    assert attempt is not None
    executor.execute(run, attempt)
    return carry_on(run, attempt, executor)


def edits(root: Path) -> dict[str, dict[str, Any]]:
    return {record["id"]: record for record in read_records(run_dir(root), "edit")}
