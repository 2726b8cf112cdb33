"""What isn't as it should be, one thing after another: samples that fail, processes that died, jobs that wait. Pure:
what kind of fault each is, kinds.py says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from slurm_bench.run.health import bad_nodes, telling
from slurm_bench.run.journal import DONE, STOPPED, TaskProcess
from slurm_bench.run.records import Outcome, Record, failure_kind
from slurm_bench.run.suspects import ProcessDied
from slurm_bench.watch.evidence import Evidence, Job, Task

# A process is stuck when its last sign of life is so many times as old as the slowest sample of its stage took, and at
# least so many seconds; where no sample has come right yet, as a model may load for long, QUIET seconds.
STUCK_TIMES, STUCK_AT_LEAST, QUIET = 10, 300, 1800
# A disk with less than so many bytes left is full: a process on it can't even note why it ends.
FULL = 1 << 16
NO_SPACE = "No space left on device"

# Reasons with which a job waits as it should: for the array before it.
IN_ORDER = ("", "None", "Dependency", "JobArrayTaskLimit")


@dataclass(frozen=True)
class Symptom:
    """`where` it shows: sample, process, requeued, waiting, unborn (a task without a process), launcher, unfollowed (an
    array that no job follows), finish (the job that goes on with the run, or whoever should), stuck, node, lost, mixed.
    `words` is all that was said of it, to tell its kind by, `slurm` what Slurm alone said of that, and `detail` what a
    person should read of it. `samples` are those that have no result because of it. `past` is what another process has
    taken up since."""

    where: str
    detail: str
    words: str = ""
    slurm: str = ""
    samples: tuple[str, ...] = ()
    task: tuple[str, int] | None = None
    node: str = ""
    job: str = ""
    exit: int | None = None
    end: str | None = None
    lines: tuple[str, ...] = ()
    log: str = ""
    past: bool = False


def find_symptoms(seen: Evidence) -> list[Symptom]:
    failed, owned, orphans = _blame(seen)
    found = [*_launchers(seen, owned), *_waiting(seen, owned)]
    for task in seen.tasks:
        found += _of_task(seen, task, owned[task.name])
    return [
        *found,
        *_unfollowed(seen),
        *_finish(seen, orphans),
        *_samples(seen, failed),
        *_nodes(seen),
        *_lost(seen),
        *_mixed(seen),
        *_disk(seen),
    ]


def _blame(seen: Evidence) -> tuple[list[tuple[str, str, Outcome]], Mapping[str, tuple[str, ...]], tuple[str, ...]]:
    """Samples without a result: those that failed, as (id, stage, outcome); those without any record, by the name of
    the task that had them last; and those that no task has ever had in the stage that they lack."""
    state = seen.state
    failed = [(i, "edit", state.edits[i]) for i in state.to_edit() if state.edits[i].error]
    failed += [(i, "score", o) for i in state.to_score() for o in state.scores[i].values() if o.error]
    with_error = {(stage, sample_id) for sample_id, stage, _ in failed}
    lacking = {("edit", i) for i in state.to_edit()} | {("score", i) for i in state.to_score()}
    without = lacking - with_error
    owner: dict[tuple[str, str], str] = {}
    for task in seen.tasks if without else ():
        name, stage = task.name, task.attempt.stage
        owner |= {(stage, sample_id): name for sample_id in task.ids if (stage, sample_id) in without}
    owned: dict[str, list[str]] = defaultdict(list)
    orphans = []
    order = {sample.id: sample.index for sample in (state.samples if without else ())}
    for key in sorted(without, key=lambda key: (key[0], order[key[1]])):
        if key in owner:
            owned[owner[key]].append(key[1])
        else:
            orphans.append(key[1])
    return failed, defaultdict(tuple, {name: tuple(ids) for name, ids in owned.items()}), tuple(orphans)


def _samples(seen: Evidence, failed: Iterable[tuple[str, str, Outcome]]) -> Iterator[Symptom]:
    for sample_id, stage, outcome in failed:
        record = outcome.errors[-1]
        error = record["error"]
        died = error.get("type") == ProcessDied.__name__
        words = str(error.get("message")) if died else f"{error.get('type')}: {error.get('message')}"
        attempt, task = record.get("attempt", 0), record.get("task", 0)
        yield Symptom(
            where="systematic" if _is_systematic(outcome.errors) and not record.get("unread") else "sample",
            detail=words,
            words=words,
            samples=(sample_id,),
            task=(f"{stage}-{attempt:03d}", task),
            node=record.get("node", ""),
            log=str(seen.run.folder.log(stage, attempt, task)),
        )


def _is_systematic(errors: Sequence[Record]) -> bool:
    """Whether all failed alike with it, whenever it failed so: where others came right beside it once, it is its own
    fault, though in a later attempt only its like are left."""
    way = failure_kind(errors[-1]["error"])
    return all(record.get("systematic") for record in errors if failure_kind(record["error"]) == way)


def _of_task(seen: Evidence, task: Task, left: tuple[str, ...]) -> Iterator[Symptom]:
    for process in task.processes[:-1]:
        if process.end != DONE:
            yield _process(seen, task, process, (), "", past=True)
    slurm = " ".join([*(task.said.slurm if task.said else ()), task.ended])
    if task.last is None:
        never_submitted = task.attempt.executor == "slurm" and not task.attempt.submitted
        if left and task.alive is False and not never_submitted:
            lines = (task.said.slurm or task.said.last) if task.said else ()
            words = " ".join([*(task.said.last if task.said else ()), slurm])
            gone = "cancelled while it waited, or long forgotten" if task.job_id else "its launcher ended before"
            detail = (lines and lines[-1].strip()) or task.ended or gone
            yield Symptom(
                where="unborn",
                detail=detail,
                words=words,
                slurm=slurm,
                samples=left,
                task=(task.attempt.name, task.number),
                node=task.said.unborn_on if task.said else "",
                job=task.job_id,
                lines=lines,
                log=task.said.file if task.said else "",
            )
    elif task.job is not None and "held" in task.job.reason.lower():
        yield _wait(task.job, task.job.reason, left, (task.attempt.name, task.number))
    elif task.job is not None and task.job.state == "SUSPENDED":
        yield _wait(task.job, task.job.state, left, (task.attempt.name, task.number))
    elif task.job is not None and task.job.state == "PENDING":
        yield _process(seen, task, task.last, left, slurm, where="requeued", past=not left)
    elif task.working:
        yield from _stuck(seen, task, left)
    elif task.last.end != DONE:
        yield _process(seen, task, task.last, left, slurm, past=not left)


def _process(
    seen: Evidence,
    task: Task,
    process: TaskProcess,
    left: tuple[str, ...],
    slurm: str,
    where: str = "process",
    past: bool = False,
) -> Symptom:
    """What Slurm said counts only where the process itself didn't say why it ended."""
    silent = process.end is None or process.signalled
    state = seen.broken.get(process.node, "")
    if state.startswith("drain") and (process.end is not None or process.exit is not None):
        state = ""  # it takes no more jobs, and those that it has go on
    outside = f"{slurm}{f' node broken: {state}' if state else ''}" if silent else ""
    full = f" {NO_SPACE}" if silent and seen.free < FULL else ""
    lines = task.said.slurm if task.said and silent else ()
    log = seen.run.folder.log(process.stage, process.attempt, process.task)
    return Symptom(
        where=where,
        detail=process.how,
        words=f"{process.how} {outside}{full}",
        slurm=outside,
        samples=left,
        task=(task.attempt.name, task.number),
        node=process.node,
        job=task.job_id,
        exit=process.exit,
        end=process.end,
        lines=lines,
        log=task.said.file if task.said and lines else str(log),
        past=past,
    )


def _stuck(seen: Evidence, task: Task, left: tuple[str, ...]) -> Iterator[Symptom]:
    assert task.last is not None
    peers = [t for t in seen.tasks if t.attempt.stage == task.attempt.stage]
    took = [t.slowest for t in peers if t.slowest is not None]
    quiet = seen.now - task.heard
    if quiet > (max(STUCK_TIMES * max(took), STUCK_AT_LEAST) if took else QUIET):
        like = f"; the slowest sample of the stage took {max(took):.1f} s" if took else ""
        hand = f", with {', '.join(map(repr, task.last.in_hand[:3]))} in hand" if task.last.in_hand else ""
        detail = f"no sign of life for {quiet / 60:.0f} min{hand}{like}"
        log = str(seen.run.folder.log(task.attempt.stage, task.attempt.number, task.number))
        name = (task.attempt.name, task.number)
        yield Symptom("stuck", detail, samples=left, task=name, node=task.last.node, job=task.job_id, log=log)


def _launchers(seen: Evidence, owned: Mapping[str, tuple[str, ...]]) -> Iterator[Symptom]:
    """Attempts that were claimed for Slurm, and never submitted."""
    for attempt in seen.attempts:
        tasks = [task for task in seen.tasks if task.attempt == attempt]
        if attempt.executor != "slurm" or attempt.submitted or any(task.alive is not False for task in tasks):
            continue
        samples = tuple(i for task in tasks for i in owned[task.name])
        jobs = [job.number for job in seen.abandoned if job.belongs_to(attempt)]
        held = f"; its jobs {', '.join(jobs)} are held" if jobs else ""
        detail = f"{attempt.name}, by pid {attempt.pid} on {attempt.host}{held}"
        words = "void" if attempt.void else ""  # its launcher could still say so
        yield Symptom("launcher", detail, words, samples=samples, job=",".join(jobs), past=not samples)


def _waiting(seen: Evidence, owned: Mapping[str, tuple[str, ...]]) -> Iterator[Symptom]:
    """Jobs that wait for another reason than the array before them. One of a task that has worked before is requeued;
    one of an attempt that is being submitted is held until all its jobs are there."""
    for job in seen.jobs:
        attempt = next((a for a in seen.attempts if job.belongs_to(a)), None)
        if job.state != "PENDING" or job.reason in IN_ORDER or attempt is None or not attempt.submitted:
            continue
        tasks = [task for task in seen.tasks if task.job == job and not task.processes]
        follows = job.name != attempt.job_names.array
        if tasks:
            for task in tasks:
                yield _wait(job, job.reason, owned[task.name], (attempt.name, task.number))
        elif follows:
            yield _wait(job, job.reason, (), None)


def _wait(job: Job, why: str, samples: tuple[str, ...], task: tuple[str, int] | None) -> Symptom:
    return Symptom("waiting", why, why, samples=samples, task=task, job=job.number)


def _unfollowed(seen: Evidence) -> Iterator[Symptom]:
    """The newest attempt's arrays are in the queue, and nothing is that would go on once they have ended."""
    latest = seen.attempts[-1] if seen.attempts else None
    if latest is None or latest.closed or not (samples := tuple(seen.state.unscored())):
        return
    own = {job.number for job in seen.jobs if job.belongs_to(latest)}
    if own and own <= set(latest.arrays):
        said = seen.finishing
        yield Symptom("unfollowed", said.slurm[-1] if said and said.slurm else "nothing says why", samples=samples)


def _finish(seen: Evidence, orphans: tuple[str, ...]) -> Iterator[Symptom]:
    """Nobody goes on with the run, though something is missing and nobody has concluded it, or some samples were never
    begun with."""
    latest = seen.attempts[-1] if seen.attempts else None
    ended = seen.concluded or (latest is not None and (latest.closed if latest.executor != "slurm" else latest.void))
    missing = orphans or not ended
    if seen.alive is not False or not missing or not (seen.state.to_edit() or seen.state.to_score()):
        return
    said = seen.finishing
    slurm = " ".join(said.slurm) if said else ""
    words = " ".join([slurm, *said.last]) if said else ""
    if latest is None:
        words, slurm = "no attempt", ""
    elif seen.run.config.strict and seen.state.to_edit():
        words, slurm = "strict: not every image is there", ""
    elif latest.executor == "slurm" and not latest.submitted:
        return  # the launcher's symptom says it
    log = said.file if said else ""
    lines = (said.slurm or said.last) if said else ()
    job = latest.finish_job_id or "" if latest else ""
    detail = lines[-1].strip() if lines else "nothing says why"
    if latest is not None and latest.executor != "slurm":
        detail = f"the launcher, pid {latest.pid} on {latest.host}"
    node = said.unborn_on if said else ""
    yield Symptom("finish", detail, words, slurm, orphans, node=node, job=job, lines=lines, log=log)


def _nodes(seen: Evidence) -> Iterator[Symptom]:
    """What is at work says nothing yet; and where nothing passes on another node, a node isn't what fails."""
    lacking = set(seen.state.to_edit()) | set(seen.state.to_score())
    at_work = {(task.attempt.stage, task.attempt.number, task.number) for task in seen.tasks if task.working}
    tell = telling(seen.attempts, seen.run.by)
    told = [
        process
        for process in seen.processes
        if (process.stage, process.attempt) in tell and (process.stage, process.attempt, process.task) not in at_work
    ]
    passed = {(process.stage, process.node) for process in told if process.end == DONE and process.ok}
    for node in bad_nodes(told, sorted({process.node for process in told if process.node})):
        for task in seen.tasks:
            last = task.last
            if (
                last is None
                or (task.attempt.stage, task.attempt.number) not in tell
                or not any(stage == last.stage and other != node for stage, other in passed)
                or task.working
                or last.node != node
                or last.end == STOPPED
                or (last.end == DONE and last.ok)
            ):
                continue
            left = tuple(i for i in task.ids if i in lacking)
            errors = [record["error"] for record in task.records if "error" in record]
            how = f"{errors[-1].get('type')}: {errors[-1].get('message')}" if errors and last.end == DONE else last.how
            log = str(seen.run.folder.log(task.attempt.stage, task.attempt.number, task.number))
            name = (task.attempt.name, task.number)
            yield Symptom("node", how, samples=left, task=name, node=node, log=log, past=not left)


def _lost(seen: Evidence) -> Iterator[Symptom]:
    for sample_id, why in seen.gone.items():
        yield Symptom("lost", why, samples=(sample_id,))
    for sample_id in seen.state.to_edit():
        if seen.state.edits[sample_id].lost and sample_id not in seen.gone:
            yield Symptom("lost", "noted as lost", samples=(sample_id,))


def _mixed(seen: Evidence) -> Iterator[Symptom]:
    for (stage, name, by), count in seen.state.others.items():
        yield Symptom("mixed", f"{count} records of {stage} by another {name} ({by})")


def _disk(seen: Evidence) -> Iterator[Symptom]:
    if seen.free < FULL and seen.state.unscored():
        yield Symptom("disk", f"{seen.free} bytes are left", NO_SPACE)
