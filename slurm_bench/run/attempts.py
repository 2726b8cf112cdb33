"""Attempts: each submission of a stage, claimed by exactly one launcher (law 8)."""

from __future__ import annotations

import itertools
import math
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import msgspec

from slurm_bench.errors import UserError
from slurm_bench.machine import process_start
from slurm_bench.run.durable import create_once, json_line, parse_line, write_atomic
from slurm_bench.run.layout import CHAINED, VERSION, RunDir, check_version
from slurm_bench.run.shapes import Number, Pid, Time
from slurm_bench.run.slices import slice_of
from slurm_bench.run.turns import chains_of

_FILE = re.compile(r"(edit|score)-\d+\.json")

# A claim without a job id whose launcher can't be seen from here counts as alive this long, in seconds.
CLAIM_GRACE = 120

# Two readings of a process's start may differ by as much as the clock was set by, in seconds.
SAME_START = 2.0


@dataclass(frozen=True)
class Attempt:
    """The frozen list of what was missing, cut into N slices. Where samples follow others, each chain's turns stand
    together, and `chains` has how many each chain has here. `retry` counts the attempts that brought no sample
    forward since a person asked; with `only_scores` that was for scores, and nothing is edited afterwards. `key` and
    `by` are the run's name in the queue and the plug-ins' marks (law 14) at that time. `pack` tasks share a job.
    `root` is the run folder that it was claimed in, of which this one is a copy where it is `copied`.
    With `anew` its jobs are started otherwise than those before, of which what a node did says nothing then.
    `job_id` is its array's, `more_job_ids` those of further arrays, where the cluster takes none that is long enough;
    `more_standby_job_ids` are of the standbys behind jobs that took over.

    The job ids stay empty where the launcher died before it could note them: then nothing of the attempt has begun to
    work, for its first job is held until they are noted.
    """

    stage: str
    number: Number
    samples: tuple[str, ...]
    slices: int
    executor: str
    retry: int
    time: Time
    host: str
    pid: Pid
    pid_start: Time
    key: str = ""
    by: Mapping[str, str] = field(default_factory=dict)
    only_scores: bool = False
    pack: int = 1
    job_id: str | None = None
    more_job_ids: tuple[str, ...] = ()
    finish_job_id: str | None = None
    standby_job_id: str | None = None
    closed: bool = False
    chains: tuple[Number, ...] = ()
    more_standby_job_ids: tuple[str, ...] = ()
    root: str = ""
    copied: bool = False
    anew: bool = False

    def slice(self, task: int) -> Sequence[str]:
        if not self.chains:
            return list(slice_of(self.samples, task, self.slices))
        return [sample_id for unit in self.units(task) for sample_id in unit]

    def units(self, task: int) -> Sequence[Sequence[str]]:
        """A slice's samples, those together that follow one another."""
        return slice_of(self._units, task, self.slices)

    @cached_property
    def _units(self) -> Sequence[Sequence[str]]:
        if not self.chains:
            return [(sample_id,) for sample_id in self.samples]
        ends = list(itertools.accumulate(self.chains))
        return [self.samples[end - count : end] for count, end in zip(self.chains, ends, strict=True)]

    @property
    def name(self) -> str:
        return f"{self.stage}-{self.number:03d}"

    @property
    def job_names(self) -> JobNames:
        """What its jobs are called in the queue, also after the run folder was moved."""
        name = f"{self.key}.{self.name}"
        return JobNames(name, f"{name}.finish", f"{name}.standby")

    @property
    def job_ids(self) -> tuple[str, ...]:
        return (*self.arrays, *self.following)

    @property
    def following(self) -> tuple[str, ...]:
        """The ids of the job that follows its arrays and of the standbys, each behind the one before it."""
        return tuple(filter(None, (self.finish_job_id, self.standby_job_id, *self.more_standby_job_ids)))

    @property
    def arrays(self) -> tuple[str, ...]:
        """The ids of its arrays (of one element: of its job). Its jobs are spread over them as evenly as can be."""
        return (self.job_id, *self.more_job_ids) if self.job_id else ()

    @property
    def jobs(self) -> int:
        """How many jobs its tasks are packed into."""
        return math.ceil(self.slices / self.pack)

    def tasks_of(self, job: int) -> range:
        return range(job * self.pack, min((job + 1) * self.pack, self.slices))

    def job_of(self, task: int) -> str:
        """The id of the job that works on a task, as the queue calls it: `4242_3` where it is one of an array's. ""
        where there is none."""
        if not self.arrays:
            return self.finish_job_id or ""
        job = task // self.pack
        parts = spread(self.jobs, len(self.arrays))
        number = next(n for n, part in enumerate(parts) if job in part)
        array, part = self.arrays[number], parts[number]
        return f"{array}_{job - part.start}" if len(part) > 1 else array

    @property
    def submitted(self) -> bool:
        return self.finish_job_id is not None

    @property
    def void(self) -> bool:
        """Claimed for Slurm and never submitted: nothing was tried."""
        return self.executor == "slurm" and self.closed and not self.submitted

    def launcher_lives(self) -> bool | None:
        """None where it ran on another host, which can't be looked into from here. A copy's works on the other run."""
        if self.copied:
            return False
        if self.host != socket.gethostname():
            return None
        started = process_start(self.pid)
        return started is not None and abs(started - self.pid_start) < SAME_START


def spread(jobs: int, arrays: int) -> list[range]:
    """Which of an attempt's jobs each of its arrays has."""
    ends = [jobs * n // arrays for n in range(arrays + 1)]
    return [range(begin, end) for begin, end in itertools.pairwise(ends)]


class JobNames(NamedTuple):
    array: str
    finish: str
    standby: str


def claim(
    run: RunDir,
    stage: str,
    samples: Sequence[str],
    slices: int,
    executor: str,
    retry: int,
    number: int,
    by: Mapping[str, str] | None = None,
    only_scores: bool = False,
    follows: Mapping[str, str] | None = None,
) -> Attempt | None:
    """The attempt of that number, or None where another launcher has claimed it first."""
    attempt = draft(run, stage, samples, slices, executor, retry, number, by, only_scores, follows=follows)
    return attempt if claim_draft(run, attempt) else None


def claim_draft(run: RunDir, attempt: Attempt) -> bool:
    """False where another launcher has claimed the attempt of that number first."""
    return create_once(run.attempt(attempt.stage, attempt.number), _line(attempt))


def draft(
    run: RunDir,
    stage: str,
    samples: Sequence[str],
    slices: int,
    executor: str,
    retry: int,
    number: int,
    by: Mapping[str, str] | None = None,
    only_scores: bool = False,
    pack: int = 1,
    follows: Mapping[str, str] | None = None,
) -> Attempt:
    """What would be claimed; nothing is written. `follows` has the samples that follow others: slices are cut between
    chains, never through one."""
    chains = chains_of(samples, follows) if follows else [[sample_id] for sample_id in samples]
    slices = max(1, min(slices, len(chains)))
    return Attempt(
        stage=stage,
        number=number,
        samples=tuple(sample_id for chain in chains for sample_id in chain),
        slices=slices,
        pack=min(pack, slices),
        executor=executor,
        retry=retry,
        time=time.time(),
        host=socket.gethostname(),
        pid=os.getpid(),
        pid_start=process_start(os.getpid()) or 0.0,
        key=run.key,
        root=str(run.root),
        by=dict(by or {}),
        only_scores=only_scores,
        chains=tuple(map(len, chains)) if len(chains) < len(samples) else (),
    )


def note_jobs(
    run: RunDir, attempt: Attempt, arrays: Sequence[str], finish: str | None, standby: str | None, *standbys: str
) -> Attempt:
    """Add the job ids, which only the claimer learns."""
    first, more = next(iter(arrays), None), tuple(arrays[1:])
    attempt = replace(attempt, job_id=first, more_job_ids=more, finish_job_id=finish, standby_job_id=standby)
    attempt = replace(attempt, more_standby_job_ids=standbys)
    write_atomic(run.attempt(attempt.stage, attempt.number), _line(attempt))
    return attempt


def close(run: RunDir, attempt: Attempt) -> None:
    """Say that the attempt is over, in a file of its own: whoever sees the end is seldom who claimed it."""
    create_once(_closing(run.attempt(attempt.stage, attempt.number)), b"")
    shutil.rmtree(run.claims(attempt.stage, attempt.number), ignore_errors=True)


def conclude_once(run: RunDir, attempt: Attempt) -> None:
    """Say that the chain ended after this attempt, so that no standby takes it up again."""
    create_once(_conclusion(run, attempt), b"")


def is_concluded(run: RunDir, attempt: Attempt) -> bool:
    return _conclusion(run, attempt).exists()


def conclusions(run: RunDir) -> int:
    """How often a chain of attempts has come to its end."""
    return sum(file.suffix == ".concluded" for file in run.attempts.iterdir()) if run.attempts.is_dir() else 0


def _conclusion(run: RunDir, attempt: Attempt) -> Path:
    return run.attempt(attempt.stage, attempt.number).with_suffix(".concluded")


def _line(attempt: Attempt) -> bytes:
    row = {**asdict(attempt), "v": CHAINED if attempt.chains else VERSION}
    del row["copied"]
    if not attempt.chains:
        del row["chains"]
    return json_line(row)


def _closing(file: Path) -> Path:
    return file.with_suffix(".over")


def read_attempts(run: RunDir) -> list[Attempt]:
    """All attempts, oldest first."""
    return sorted(each_attempt(run), key=lambda a: (a.time, a.number))


def each_attempt(run: RunDir) -> Iterator[Attempt]:
    """One at a time. Other files (`._edit-001.json`) are no attempts."""
    listed = run.attempts.iterdir() if run.attempts.is_dir() else ()
    return (read_attempt(file) for file in listed if _FILE.fullmatch(file.name))


def read_attempt(file: Path) -> Attempt:
    try:
        row = parse_line(file.read_bytes())
        check_version(row, file)
        attempt = replace(msgspec.convert(row, Attempt), closed=_closing(file).exists())
        attempt = replace(attempt, copied=RunDir(file.parents[1]).is_copy_of(Path(attempt.root or file.parents[1])))
        count = len(attempt.samples)
        if f"{attempt.name}.json" != file.name:
            raise ValueError(f"it says {attempt.name}")
        if not (1 <= attempt.slices <= max(1, count) and attempt.pack >= 1 and sum(attempt.chains) in (0, count)):
            raise ValueError(f"{attempt.slices} slices, {attempt.pack} a job, of {count} samples")
        return attempt
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: damaged ({error}); move it away, its records stay valid") from None


def next_number(attempts: Sequence[Attempt], stage: str) -> int:
    return max((a.number for a in attempts if a.stage == stage), default=0) + 1
