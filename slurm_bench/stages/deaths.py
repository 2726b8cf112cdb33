"""What is said in the end of samples whose processes died, where nothing else came right either (law 13)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from slurm_bench.run.attempts import each_attempt
from slurm_bench.run.journal import read_journals
from slurm_bench.run.opened import Run
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import State, read_records
from slurm_bench.run.suspects import ProcessDied, find_suspects
from slurm_bench.stages.engine import Work
from slurm_bench.stages.unreadable import note_failures
from slurm_bench.stages.work import EditWork, ScoreWork


def note_deaths(run: Run, state: State) -> None:
    """When nothing is tried any more: a record for each sample that has none, and with which alone in hand processes
    have died. As long as something was tried, it might have been their node."""
    for stage, key, work, ids in _silent(run, state):
        mark = run.by.get(key, "")
        others = {a.number for a in each_attempt(run.folder) if a.by.get(key, mark) != mark}
        died = [p for p in read_journals(run.folder, stage, holding=True) if p.in_hand and p.attempt not in others]
        suspects = find_suspects(died, read_records(run.folder, stage), key, ids, anywhere=True) if died else []
        samples = {sample.id: sample for sample in run.samples} if suspects else {}
        by_task = defaultdict[tuple[int, int], list[tuple[Sample, Exception]]](list)
        for suspect in (suspect for suspect in suspects if suspect.convicted):
            last = suspect.alone[-1]
            by_task[last.attempt, last.task].append((samples[suspect.id], ProcessDied(suspect.sentence)))
        for (attempt, task), pairs in by_task.items():
            note_failures(run, stage, attempt, task, work, pairs)


def _silent(run: Run, state: State) -> Iterator[tuple[str, str, Work, set[str]]]:
    """By stage and plug-in, which samples have neither a result nor an error, and who says what their records hold."""
    if ids := {i for i in state.to_edit() if not state.edits[i].errors}:
        yield "edit", "editor", EditWork(run.folder, None, run.by.get("editor", "")), ids
    edits = {i: done for i in state.to_score() if (done := state.edits[i].ok) is not None}
    for name, outcomes in state.by_scorer().items():
        key = f"scorers.{name}"
        if ids := {i for i in edits if outcomes[i].ok is None and not outcomes[i].errors}:
            by = run.by.get(key, "")
            yield "score", key, ScoreWork(run.folder, name, None, by, edits, lambda record, problem: None), ids
