"""A run that was opened: read once by a process, and handed on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from slurm_bench.command import command
from slurm_bench.config import Config, differences, identity, load_config, nearest, with_identity
from slurm_bench.errors import UserError
from slurm_bench.logs import log
from slurm_bench.run.layout import RunDir
from slurm_bench.run.ledger import Ledger
from slurm_bench.run.plan import Sample, read_plan
from slurm_bench.run.provenance import read_provenance
from slurm_bench.run.records import State

# Of a folder that is no run, so many entries are looked at for runs, and so many of these are named.
LOOKED_AT, NAMED = 1000, 3


@dataclass(frozen=True)
class Run:
    """The run's folder, its configuration, its plan, and the configured plug-ins' marks (law 14). What the records say
    grows while tasks write, so it is read when it is asked for. `unstored` is the provenance of a run that is to go on
    under another configuration, until `run.create.store` has both on disk."""

    folder: RunDir
    config: Config
    samples: Sequence[Sample]
    by: Mapping[str, str] = field(default_factory=dict)
    unstored: Mapping[str, Any] | None = None

    @property
    def root(self) -> Path:
        return self.folder.root

    def state(self) -> State:
        return self.ledger(whole=True).look()

    def ledger(self, whole: bool = False) -> Ledger:
        """For who looks again and again, or only at what became of the samples."""
        return Ledger(self.folder, self.samples, self.config.scorers, self.by, whole)


def open_run(root: Path) -> Run:
    """Raises UserError where there is no run, or a damaged one."""
    folder = RunDir(root.resolve())
    if not folder.config.exists():
        raise UserError(f"{root}: {_no_run(folder)}")
    facts = read_provenance(folder)
    if not facts and folder.provenance.exists():
        log.warning(
            "%s: damaged, so that nobody knows whose the records are, and all count; restore it from a copy",
            folder.provenance,
        )
    config = _as_stored(folder, load_config(folder.config), facts.get("config", ""))
    return Run(folder, config, checked_plan(folder), facts.get("by", {}))


def _as_stored(folder: RunDir, config: Config, stored: str) -> Config:
    """What decides the results is what was stored with the marks of its plug-ins: edited in config.yaml alone, it would
    make others' records by their marks. Who goes on with the run is told what differs, as for any other
    configuration. A run of before this was kept is taken at its word."""
    if not stored or identity(config) == stored:
        return config
    before = with_identity(config, stored, str(folder.provenance))
    log.warning(
        "%s was edited since (%s): that counts for nothing until the run goes on by it: %s",
        *(folder.config, "; ".join(differences(before, config)), command("resubmit", folder.root, "--force")),
    )
    return before


def _no_run(folder: RunDir) -> str:
    """What it is instead, and which runs may be meant."""
    root = folder.root
    if not root.exists():
        near = nearest(root.name, (run.name for run in _runs_in(root.parent)))
        return "no such folder" + (f"; {near}" if near.startswith("did you mean") else "")
    if not root.is_dir():
        return "not a run folder, but a file"
    what = f"not a run folder (it has no {folder.config.name})"
    if around := next((path for path in root.parents if RunDir(path).plan.exists()), None):
        return f"{what}; it lies in the run {around}"
    names = [run.name for run in _runs_in(root)]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return what + (f"; runs in it, the newest first: {', '.join(names[:NAMED])}{more}" if names else "")


def _runs_in(folder: Path) -> list[Path]:
    """The newest first."""
    dated = []
    with suppress(OSError):
        for path in islice(folder.iterdir(), LOOKED_AT):
            with suppress(OSError):
                dated.append((RunDir(path).plan.stat().st_mtime, path))
    return [path for _, path in sorted(dated, reverse=True)]


def checked_plan(folder: RunDir) -> list[Sample]:
    """The plan, if it is what was frozen. Raises UserError: a run whose plan was cut would pass for complete."""
    samples = read_plan(folder)
    frozen = read_provenance(folder).get("plan", {}).get("sha256")
    if frozen is not None and _sha256(folder.plan) != frozen:
        raise UserError(f"{folder.plan}: not the plan that was frozen (another sha256); restore it from a copy")
    return samples


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as data:
        while block := data.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
