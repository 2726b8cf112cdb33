"""Attempts: each submission of a stage, claimed by exactly one launcher (law 8)."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from slurm_bench.errors import UserError
from slurm_bench.run.durable import create_once, json_line, write_atomic
from slurm_bench.run.layout import RunDir
from slurm_bench.run.slices import slice_of

# A claim without a job id whose launcher can't be seen from here counts as alive this long, in seconds.
CLAIM_GRACE = 120


@dataclass(frozen=True)
class Attempt:
    """The frozen list of what was missing, cut into N slices. `retry` counts the chain's resubmissions since a
    person asked; `job_id` and `finish_job_id` stay empty where the launcher died before it could note them."""

    stage: str
    number: int
    samples: tuple[str, ...]
    slices: int
    executor: str
    retry: int
    time: float
    host: str
    pid: int
    pid_start: int
    job_id: str | None = None
    finish_job_id: str | None = None
    closed: bool = False

    def slice(self, task: int) -> Sequence[str]:
        return slice_of(self.samples, task, self.slices)

    @property
    def name(self) -> str:
        return f"{self.stage}-{self.number:03d}"

    def job_names(self, run: RunDir) -> tuple[str, str]:
        """What the array and the job that follows it are called in the queue."""
        return f"{run.key}.{self.name}", f"{run.key}.{self.name}.finish"

    def launcher_lives(self) -> bool | None:
        """None where it ran on another host, which can't be looked into from here."""
        if self.host != socket.gethostname():
            return None
        return process_start(self.pid) == self.pid_start


def claim(
    run: RunDir, stage: str, samples: Sequence[str], slices: int, executor: str, retry: int, number: int
) -> Attempt | None:
    """The attempt of that number, or None where another launcher has claimed it first."""
    attempt = Attempt(
        stage=stage,
        number=number,
        samples=tuple(samples),
        slices=max(1, min(slices, len(samples))),
        executor=executor,
        retry=retry,
        time=time.time(),
        host=socket.gethostname(),
        pid=os.getpid(),
        pid_start=process_start(os.getpid()) or 0,
    )
    if create_once(run.attempt(stage, number), json_line(asdict(attempt))):
        return attempt
    return None


def note_jobs(run: RunDir, attempt: Attempt, job_id: str | None, finish_job_id: str | None) -> Attempt:
    """Add the job ids, which only the claimer learns."""
    attempt = replace(attempt, job_id=job_id, finish_job_id=finish_job_id)
    write_atomic(run.attempt(attempt.stage, attempt.number), json_line(asdict(attempt)))
    return attempt


def close(run: RunDir, attempt: Attempt) -> None:
    """Say that the attempt is over, in a file of its own: whoever sees the end is seldom who claimed it."""
    create_once(_closing(run.attempt(attempt.stage, attempt.number)), b"")


def _closing(file: Path) -> Path:
    return file.with_suffix(".over")


def read_attempts(run: RunDir) -> list[Attempt]:
    """All attempts, oldest first."""
    files = sorted(run.attempts.glob("*.json")) if run.attempts.is_dir() else []
    return sorted((read_attempt(file) for file in files), key=lambda a: (a.time, a.number))


def read_attempt(file: Path) -> Attempt:
    try:
        row = json.loads(file.read_bytes())
        return Attempt(**{**row, "samples": tuple(row["samples"]), "closed": _closing(file).exists()})
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file}: damaged ({error}); move it away, its records stay valid") from None


def next_number(attempts: Sequence[Attempt], stage: str) -> int:
    return max((a.number for a in attempts if a.stage == stage), default=0) + 1


def process_start(pid: int) -> int | None:
    """When a process of this host started, in clock ticks since boot; tells a pid from its next owner."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        fields = stat[stat.rindex(")") + 2 :].split()
        return None if fields[0] == "Z" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
