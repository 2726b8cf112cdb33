"""Every path of a run folder, and the version of what lies there."""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm_bench.errors import UserError

_UNREADABLE = re.compile(r"[^A-Za-z0-9_-]+")


def fanned(sample_id: str) -> str:
    """A file name for any id, in one of 256 sub-folders, so that no folder grows large on a parallel file system:
    readable where it can be, unique by the hash, never a path."""
    digest = hashlib.sha256(sample_id.encode("utf-8", "surrogatepass")).hexdigest()
    readable = _UNREADABLE.sub("-", sample_id).strip("-")[:40]
    return f"{digest[:2]}/{readable}-{digest[:16]}" if readable else f"{digest[:2]}/{digest[:16]}"


# What the lines of plan, records and attempts look like. It goes up when a reader of before would misread them; a run
# of version 1 (no `v`: records without `by`) is still gone on with.
VERSION = 2
# A run in which samples follow others says this instead, in plan and attempts: who doesn't know of it would edit them
# out of turn. Other runs don't, so that an earlier slurm_bench still reads them.
CHAINED = 3


def check_version(row: Any, file: Path) -> None:
    """Raises UserError where a newer slurm_bench wrote it."""
    version = row.get("v", 1) if isinstance(row, Mapping) else 1
    if not isinstance(version, int) or version > CHAINED:
        raise UserError(f"{file}: written by a newer slurm_bench (format {version}, this one reads up to {CHAINED})")


@dataclass(frozen=True)
class RunDir:
    root: Path

    @property
    def key(self) -> str:
        """The run's name in the queue: the folder's own, told apart by its whole path."""
        path = str(self.root)
        readable = _UNREADABLE.sub("-", self.root.name)[:32]
        return f"{readable}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"

    def check_there(self) -> None:
        """Raises FileNotFoundError where the folder was moved or deleted under whoever works in it. A write would make
        one of that name again, while records go on in the one that was moved, by files that are open."""
        try:
            there = self.config.exists()
        except OSError:  # a file server that doesn't answer now says nothing of that
            return
        if not there:
            raise FileNotFoundError(errno.ENOENT, "the run folder was moved, renamed or deleted", str(self.root))

    def is_copy_of(self, home: Path) -> bool:
        """Whether the run at `home` is another one. Where it was moved there is none any more, and this is that one."""
        try:
            return home != self.root and RunDir(home).config.exists() and not home.samefile(self.root)
        except OSError:
            return False

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def plan(self) -> Path:
        return self.root / "plan.jsonl"

    @property
    def provenance(self) -> Path:
        return self.root / "provenance.json"

    @property
    def attempts(self) -> Path:
        return self.root / "attempts"

    def attempt(self, stage: str, number: int) -> Path:
        return self.attempts / f"{stage}-{number:03d}.json"

    def records(self, stage: str) -> Path:
        return self.root / stage / "records"

    def manifest(self, stage: str, attempt: int, task: int, restart: int) -> Path:
        """A task that Slurm restarts writes a new file: the process before it may not be dead yet."""
        again = f"-r{restart}" if restart else ""
        return self.records(stage) / f"{attempt:03d}-{task:04d}{again}.jsonl"

    def claims(self, stage: str, attempt: int) -> Path:
        """What tasks of an attempt take of one another's slices; of no use once it is over."""
        return self.root / stage / "claims" / f"{attempt:03d}"

    def slice_claims(self, stage: str, attempt: int, plugin: str, task: int) -> Path:
        return self.claims(stage, attempt) / plugin / f"{task:04d}"

    @property
    def sources(self) -> Path:
        return self.root / "sources"

    def source(self, sample_id: str, part: str, extension: str) -> str:
        """Where an image that came inside the dataset is unpacked, from the run folder."""
        return f"sources/{fanned(sample_id)}{part}.{extension}"

    def image(self, sample_id: str, by: str) -> str:
        """The edited image's path from the run folder. What another editor makes, or this one with other params, has
        another name: it overwrites nobody's image."""
        return f"edit/images/{fanned(sample_id)}{f'-{by}' if by else ''}.png"

    def rewrite(self, sample_id: str, mark: str) -> str:
        """The text that its instruction was rewritten to, by the rewriter and from the sources that `mark` tells."""
        return f"edit/rewrites/{fanned(sample_id)}-{mark}.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def log(self, stage: str, attempt: int, task: int) -> Path:
        return self.logs / f"{stage}-{attempt:03d}-{task:04d}.log"

    def submit_log(self, stage: str, attempt: int) -> Path:
        """The log of the process that sees an attempt's jobs kept, after its launcher has left."""
        return self.logs / f"{stage}-{attempt:03d}-submit.log"

    def output(self, stage: str, attempt: int, task: int) -> Path:
        """What a task's processes print, where several tasks share a job or a launcher."""
        return self.logs / f"{stage}-{attempt:03d}-{task:04d}.out"

    def journal(self, stage: str, attempt: int, task: int, restart: int) -> Path:
        return self.logs / "tasks" / f"{stage}-{attempt:03d}-{task:04d}-r{restart}.jsonl"

    @property
    def journals(self) -> Path:
        return self.logs / "tasks"

    @property
    def submitit(self) -> Path:
        return self.logs / "submitit"

    @property
    def report(self) -> Path:
        return self.root / "report"
