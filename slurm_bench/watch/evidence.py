"""All that can be read of a run: records, journals, attempts, the queue, and what Slurm's own programs said. Whoever
looks at a run reads it once, here; what is made of it is made by pure functions. It needs no plug-in and no Slurm: on
a copy of the folder what only the cluster knows is left out. Who asks the queue is handed in, as `hear`."""

from __future__ import annotations

import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from slurm_bench.machine import without_collection
from slurm_bench.run.attempts import CLAIM_GRACE, Attempt, is_concluded
from slurm_bench.run.images import find_gone
from slurm_bench.run.journal import DONE, TaskProcess, read_journals
from slurm_bench.run.layout import RunDir
from slurm_bench.run.manifest import OkRecord
from slurm_bench.run.opened import Run
from slurm_bench.run.records import Record, State
from slurm_bench.watch.by_task import Part, by_task
from slurm_bench.watch.job_logs import OWN_LINE, SLURM_LINE, is_node_line, job_logs, tail, unborn_on

STAGES = ("edit", "score")

# Of a job's process that has just said itself, in the lines above, why it ends.
_EXITED = re.compile(r"srun: error: .*: Exited with exit code \d+$")


class Job(Protocol):
    """One job of the queue, or an array's waiting ones in one line (cluster/queue.py)."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def number(self) -> str: ...
    def has_task(self, task: int) -> bool: ...
    def belongs_to(self, attempt: Attempt) -> bool: ...


@dataclass(frozen=True)
class Heard:
    """What the cluster says of a run: its attempts with their jobs in the queue (less the one that asks), held jobs of
    a launcher that died, and why the queue couldn't be asked, if it couldn't. `ended` asks how jobs that are over
    ended, by id (`4242_3`), in Slurm's words. `broken` are nodes that Slurm holds for broken, each with its words."""

    attempts: Sequence[Attempt]
    jobs: Sequence[Job] = ()
    abandoned: Sequence[Job] = ()
    silent: str = ""
    ended: Callable[[], Sequence[tuple[str, str]]] = tuple
    broken: Mapping[str, str] = field(default_factory=dict)


# Asks the cluster; told with `over` that the run has come to its end, not for what is still to come.
Hear = Callable[[RunDir, bool], Heard]


@dataclass(frozen=True)
class Said:
    """What a job's log holds beside our own lines: Slurm's words apart, and the last lines of all. `unborn_on` is the
    node on which it ended before there was any of ours."""

    file: str
    slurm: tuple[str, ...]
    last: tuple[str, ...]
    unborn_on: str = ""


@dataclass(frozen=True)
class Task:
    """One task of one attempt. `job` is its job in the queue; `alive` is None where that can't be known from here.
    `ended` and `said` are Slurm's words about it. Times are seconds since the epoch."""

    attempt: Attempt
    number: int
    processes: Sequence[TaskProcess]
    job: Job | None
    alive: bool | None
    ok: int
    failed: int
    records: Sequence[Record]
    ended: str = ""
    said: Said | None = None

    @property
    def name(self) -> str:
        return f"{self.attempt.name}, task {self.number}"

    @property
    def job_id(self) -> str:
        """Its job's, as `4242_3` where that is an array's; "" where it has none. Where those that follow do the work
        themselves, of whichever began with it last."""
        attempt, last = self.attempt, self.last
        by_itself = last.job if last and attempt.submitted and not attempt.arrays else ""
        return by_itself or attempt.job_of(self.number)

    @cached_property
    def ids(self) -> Sequence[str]:
        return self.attempt.slice(self.number)

    @property
    def last(self) -> TaskProcess | None:
        return self.processes[-1] if self.processes else None

    @cached_property
    def heard(self) -> float:
        """The time of the last sign of life."""
        return max([*(process.heard for process in self.processes), *self._times], default=self.attempt.time)

    @property
    def working(self) -> bool:
        """Its last process is at work, as far as can be told."""
        return self.last is not None and self.last.end is None and self.last.exit is None and self.alive is not False

    @cached_property
    def pace(self) -> float | None:
        """Seconds of wall time a sample, where enough was recorded to tell; of its last process, as the task may have
        waited in the queue before that."""
        begun = self.last.started if self.last else 0.0
        times = [time for time in self._times if time > begun]
        if len(times) > 2 and (span := max(times) - min(times)):
            return span / (len(times) - 1)
        return sum(self._seconds) / len(self._seconds) if self._seconds else None

    @cached_property
    def slowest(self) -> float | None:
        """Seconds of its slowest sample."""
        return max(self._seconds, default=None)

    @cached_property
    def of_others(self) -> frozenset[str]:
        """The ids of what it has done that isn't of its slice."""
        done = [r.id if type(r) is OkRecord else r["id"] for r in self.records]
        return frozenset() if done == self.ids[: len(done)] else frozenset(done).difference(self.ids)

    @cached_property
    def _times(self) -> Sequence[float]:
        return [(r.time if type(r) is OkRecord else r.get("time")) or 0.0 for r in self.records]

    @cached_property
    def _seconds(self) -> Sequence[float]:
        return [(r.seconds if type(r) is OkRecord else r.get("seconds")) or 0.0 for r in self.records]


@dataclass(frozen=True)
class Evidence:
    """`jobs` are those of the run in the queue; `alive` is None where it can't be known from here whether anybody goes
    on with the run; `silent` says why the queue wasn't heard. `abandoned` are held jobs of a launcher that died.
    `broken` are nodes that Slurm holds for broken. `gone` are images that records name and that are no more, by id.
    `free` are the bytes that the run folder's disk has left."""

    run: Run
    state: State
    attempts: Sequence[Attempt]
    tasks: Sequence[Task]
    processes: Sequence[TaskProcess]
    jobs: Sequence[Job]
    abandoned: Sequence[Job]
    alive: bool | None
    silent: str
    broken: Mapping[str, str]
    finishing: Said | None
    concluded: bool
    gone: Mapping[str, str]
    free: int
    now: float = field(default_factory=time.time)

    def latest(self, stage: str) -> Attempt | None:
        return max((a for a in self.attempts if a.stage == stage), key=lambda a: a.number, default=None)


@without_collection()
def gather(
    run: Run,
    hear: Hear,
    look: Callable[[], State] | None = None,
    over: bool = False,
    images: bool = False,
) -> Evidence:
    """`look` gives what the records say, where the caller has looked before. `over` says that the caller knows the run
    to have ended. With `images` the folders' listings are looked at for images that are gone. The queue is heard first:
    what ends meanwhile is then seen to have ended."""
    heard = hear(run.folder, over)
    attempts, jobs = heard.attempts, heard.jobs
    state = (look or run.ledger(images).look)()
    processes = [p for stage in STAGES for p in read_journals(run.folder, stage)]
    alive = {a.name: False if over else _alive(a, jobs, heard.silent) for a in attempts}
    known = heard.ended() if state.to_edit() or state.to_score() else ()
    parts = by_task(state)
    own_processes = defaultdict(list)
    for process in processes:
        own_processes[process.stage, process.attempt, process.task].append(process)
    logs = job_logs(run.folder.submitit)
    tasks = []
    for attempt in attempts:
        for number in range(attempt.slices):
            key = (attempt.stage, attempt.number, number)
            task = _task(attempt, number, own_processes[key], parts.get(key, Part()), jobs, alive[attempt.name])
            job_id = task.job_id
            if task.last is None or task.last.end != DONE:
                ended = ", ".join(dict.fromkeys(words for name, words in known if name == job_id))
                task = replace(task, ended=ended, said=_said(logs, job_id))
            tasks.append(task)
    latest = attempts[-1] if attempts else None
    return Evidence(
        run=run,
        state=state,
        attempts=attempts,
        tasks=tasks,
        processes=processes,
        jobs=jobs,
        abandoned=heard.abandoned,
        alive=True if any(alive.values()) else None if None in alive.values() else False,
        silent=heard.silent,
        broken=heard.broken,
        finishing=_finishing(latest, known, logs) if latest else None,
        concluded=over or (latest is not None and is_concluded(run.folder, latest)),
        free=shutil.disk_usage(run.root).free,
        gone=find_gone(run.folder, [o.ok for o in state.edits.values() if o.ok]) if images else {},
    )


def _alive(attempt: Attempt, jobs: Sequence[Job], silent: str) -> bool | None:
    if any(job.belongs_to(attempt) for job in jobs):
        return True
    if attempt.closed:
        return False
    if any(job.number in attempt.following for job in jobs):
        return True  # within the job that followed another attempt, by whose name it goes
    if attempt.executor == "slurm" and attempt.submitted:
        return None if silent else False
    lives = attempt.launcher_lives()
    old = attempt.executor == "slurm" and time.time() - attempt.time > CLAIM_GRACE
    return False if lives is None and old else lives


def _task(
    attempt: Attempt,
    number: int,
    processes: Sequence[TaskProcess],
    part: Part,
    jobs: Sequence[Job],
    alive: bool | None,
) -> Task:
    task = Task(
        attempt=attempt,
        number=number,
        processes=processes,
        job=None,
        alive=alive,
        ok=part.ok,
        failed=part.failed,
        records=part.records,
    )
    job = _job(task, jobs)
    return replace(task, job=job, alive=alive and (job is not None or not attempt.submitted))


def _job(task: Task, jobs: Sequence[Job]) -> Job | None:
    """Without arrays it is the job that follows that works, or whichever standby has taken over from it."""
    attempt, (job_id, _, index) = task.attempt, task.job_id.partition("_")
    own = [job for job in jobs if job.number == job_id and job.has_task(int(index or 0))]
    if not own and attempt.submitted and not attempt.arrays:
        own = sorted((job for job in jobs if job.belongs_to(attempt)), key=lambda job: job.state == "PENDING")
    return next(iter(own), None)


def _finishing(attempt: Attempt, known: Sequence[tuple[str, str]], logs: Mapping[str, Path]) -> Said | None:
    """What the last of the jobs that follow an attempt said, and Slurm of it."""
    for job_id in reversed(attempt.following):
        said = _said(logs, job_id)
        ended = tuple(words for name, words in known if name == job_id and "COMPLETED" not in words)
        if said or ended:
            said = said or Said("", (), ())
            return replace(said, slurm=(*ended, *said.slurm))
    return None


def _said(logs: Mapping[str, Path], job_id: str) -> Said | None:
    if job_id not in logs:
        return None
    whole = tail(logs[job_id])
    lines = [line for line in whole if not is_node_line(line)]
    lines = [line for line in lines if not _EXITED.match(line.strip())] or lines
    slurm = [line.strip() for line in lines if SLURM_LINE.search(line) and not OWN_LINE.match(line)]
    return Said(str(logs[job_id]), tuple(slurm[-6:]), tuple(lines[-6:]), unborn_on(whole))
