"""Making a run folder, or going on with one."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from slurm_bench.config import PLANNED, Config, config_hash, differences, dump, load_config
from slurm_bench.data.item import Item
from slurm_bench.errors import UserError
from slurm_bench.run.durable import create_once, write_atomic
from slurm_bench.run.layout import RunDir
from slurm_bench.run.plan import Sample, make_plan, read_plan
from slurm_bench.run.provenance import provenance


def new_run_dir(name: str) -> Path:
    """runs/<name>-<time>, made so that two launchers of the same second get two."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        path = Path("runs") / f"{name}-{stamp}{suffix}"
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
    raise UserError(f"runs/{name}-{stamp} and 98 more are there already; name another with --run-dir")


def open_run(root: Path) -> RunDir:
    """An existing run. Raises UserError."""
    run = RunDir(root.resolve())
    if not run.config.exists():
        raise UserError(f"{root}: not a run folder (it has no {run.config.name})")
    return run


def make_run_dir(root: Path) -> RunDir:
    """Raises UserError where the folder can't serve."""
    run = RunDir(root.resolve())
    if "%" in str(run.root):
        raise UserError(f"{run.root}: Slurm reads '%' in a path as a pattern; choose another --run-dir")
    try:
        run.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--run-dir {root}: {error.strerror}") from None
    if not run.config.exists() and any(p.name != "config.yaml" for p in run.root.iterdir()):
        raise UserError(f"--run-dir {root}: this folder has other things in it; choose a new or an empty one")
    return run


def settle_config(run: RunDir, config: Config, force: bool) -> Config:
    """Put the configuration into the run, or hold it against the one that is there (law 10)."""
    if create_once(run.config, dump(config).encode()):
        return config
    stored = load_config(run.config)
    changed = differences(stored, config)
    if changed and not force:
        raise UserError(
            f"{run.root} was begun with another configuration ({'; '.join(changed)}); "
            "start a new run folder, or say --force to go on with the new one for what is missing"
        )
    for key in PLANNED:  # the plan never changes (law 1)
        setattr(config, key, getattr(stored, key))
    write_atomic(run.config, dump(config).encode())
    return config


def settle_plan(run: RunDir, config: Config, items: Iterable[Item], models: dict[str, Any]) -> list[Sample]:
    """The run's plan, made from the data if it isn't there yet, with a note of where it all comes from."""
    if run.plan.exists():
        return read_plan(run)
    try:
        samples = make_plan(run, items, config.seed)
    except UserError:
        _abandon(run)
        raise
    text = json.dumps(provenance(config_hash(config), models), indent=1, default=str)
    create_once(run.provenance, (text + "\n").encode())
    return samples


def _abandon(run: RunDir) -> None:
    """Data that can't be planned leaves no run behind, so that the mended configuration finds a free place."""
    run.config.unlink(missing_ok=True)
    shutil.rmtree(run.sources, ignore_errors=True)
    with suppress(OSError):
        run.root.rmdir()
