"""What a task couldn't read, read once more by whoever comes after it: no GPU is asked for again to fail as before."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing

from slurm_bench.logs import log
from slurm_bench.run.durable import LineWriter
from slurm_bench.run.journal import stamp
from slurm_bench.run.opened import Run
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import Outcome, Record, State, failure_kind, reserve_manifest
from slurm_bench.run.turns import NoTurnBefore
from slurm_bench.stages.engine import Work
from slurm_bench.stages.faults import describe, failed
from slurm_bench.stages.work import EditWork, ScoreWork


def note_unreadable(run: Run, state: State) -> int:
    """Of the samples that would be tried again, how many can't be read here either, in the same way. Each gets a record
    of it, as by another process of its task: two that had the same failure settle it (law 12)."""
    noted = 0
    for stage, work, unread in _unread(run, state):
        by_task = defaultdict[tuple[int, int], list[tuple[Sample, Exception]]](list)
        for sample in run.samples:
            last = unread.get(sample.id)
            if last is not None and (error := _same_again(work, sample, last)) is not None:
                by_task[last["attempt"], last["task"]].append((sample, error))
        for (attempt, task), pairs in by_task.items():
            note_failures(run, stage, attempt, task, work, pairs, unread=True)
            noted += len(pairs)
    if noted:
        log.info("%d samples can't be read here either", noted)
    return noted


def note_failures(
    run: Run,
    stage: str,
    attempt: int,
    task: int,
    work: Work,
    failures: Iterable[tuple[Sample, Exception]],
    unread: bool = False,
) -> None:
    """A record of each, as by another process of that task."""
    restart = reserve_manifest(run.folder, stage, attempt, task)
    with closing(LineWriter(run.folder.manifest(stage, attempt, task, restart), reserved=True)) as manifest:
        for sample, error in failures:
            record = {"id": sample.id, "seconds": 0.0, **failed(sample, error, 1, unread), **work.about(sample)}
            manifest.write(record | stamp(attempt, task) | {"time": time.time()})


def _unread(run: Run, state: State) -> Iterator[tuple[str, Work, Mapping[str, Record]]]:
    """By stage and plug-in: the last failure of those that are worth another try and never came to the plug-in."""
    if unread := _failures(state.worth_editing(), state.edits):
        yield "edit", EditWork(run.folder, None, run.by.get("editor", "")), unread
    worth = state.worth_scoring()
    for name, outcomes in state.by_scorer().items():
        if unread := _failures(worth, outcomes):
            edits = {i: edit for i in unread if (edit := state.edits[i].ok) is not None}
            by = run.by.get(f"scorers.{name}", "")
            yield "score", ScoreWork(run.folder, name, None, by, edits, lambda record, problem: None), unread


def _failures(ids: Iterable[str], outcomes: Mapping[str, Outcome]) -> dict[str, Record]:
    return {
        i: errors[-1]
        for i in ids
        if (errors := outcomes[i].errors) and errors[-1].get("unread") and not outcomes[i].settled
    }


def _same_again(work: Work, sample: Sample, last: Record) -> Exception | None:
    """What a turn follows may be made yet, and a file server that is in trouble may be well when a task comes."""
    try:
        work.read(sample)
    except NoTurnBefore:
        return None
    except Exception as error:
        as_before = failure_kind(describe(error)) == failure_kind(last["error"])
        return error if as_before and not isinstance(error.__cause__, OSError) else None
    return None
