"""Where the hours of a run's tasks went: waiting in the queue, starting, loading, working by part, idle. A task holds
its GPU from its start to its end, whatever it does."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from slurm_bench.run.attempts import Attempt
from slurm_bench.run.durable import parse_line
from slurm_bench.run.layout import RunDir
from slurm_bench.run.manifest import manifest_key
from slurm_bench.run.records import State, manifests
from slurm_bench.run.shapes import LONGEST, UNFIT, Seconds, Time
from slurm_bench.run.timeline import CLOSE, LOAD, START, WAIT, WARM, WORK, Part, Process

# What a place was held for, beside the parts of the work that an editor tells.
IMPORTS, OTHER, IDLE, LOST = "imports", "other work", "idle", "lost"
BEFORE, AFTER = (IMPORTS, WAIT, LOAD, WARM), (OTHER, IDLE, LOST)
# In an editor's `info.seconds`: what is written behind, while the next sample is worked on; and a load, seen already.
BEHIND, LOADED = "encode", "load"
# Seconds by which a journal's rounded times may be off.
ROUNDED = 0.002


@dataclass(frozen=True)
class TaskHours:
    """Seconds of a task; `begin` and `end` since the epoch. `queue` is what it waited for its place on a node, and
    `tail` how long its attempt went on without it: neither is in `held`, which `by_kind` adds up to. `behind` is
    encoding and writing, beside all that. `phases` are what it did one after the other."""

    stage: str
    attempt: int
    task: int
    node: str
    begin: float
    end: float
    queue: float
    by_kind: Mapping[str, float]
    behind: float
    records: int
    gpu: str
    phases: Sequence[Part]
    gpus: int = 0
    tail: float = 0.0

    @property
    def held(self) -> float:
        return sum(self.by_kind.values())

    def as_json(self) -> dict[str, Any]:
        return {"stage": self.stage, "attempt": self.attempt, "task": self.task, "node": self.node} | _as_json(self)


@dataclass(frozen=True)
class StageHours:
    """The sums over a stage's tasks. `samples` are those that came right in it, `gpus` the most that a task had."""

    tasks: int
    samples: int
    queue: float
    by_kind: Mapping[str, float]
    behind: float
    tail: float
    gpu: str
    gpus: int

    @property
    def held(self) -> float:
        return sum(self.by_kind.values())

    @property
    def a_sample(self) -> float | None:
        return self.held / self.samples if self.samples else None

    def as_json(self) -> dict[str, Any]:
        a_sample = None if self.a_sample is None else round(self.a_sample, 3)
        return {"tasks": self.tasks, "samples": self.samples, "seconds_a_sample": a_sample} | _as_json(self)


def hours_of(attempts: Iterable[Attempt], timeline: Iterable[Process], run: RunDir) -> list[TaskHours]:
    """A row for each task that a process has worked on, by stage, attempt and task. Of the run the records are read, a
    task's at a time."""
    processes = defaultdict(list)
    for process in timeline:
        processes[process.stage, process.attempt, process.task].append(process)
    by_name = {(a.stage, a.number): replace(a, samples=(), chains=()) for a in attempts}
    written = defaultdict(list)
    for stage in {stage for stage, _ in by_name}:
        for file in manifests(run, stage):
            attempt, task, _ = manifest_key(file.name) or (0, 0, 0)
            written[stage, attempt, task].append(file)
    rows = [
        _task(by_name[key[:2]], own, _records(written[key]))
        for key, own in sorted(processes.items())
        if key[:2] in by_name
    ]
    last: Mapping[tuple[str, int], float] = {
        key: max(row.end for row in rows if (row.stage, row.attempt) == key)
        for key in {(row.stage, row.attempt) for row in rows}
    }
    return [replace(row, tail=last[row.stage, row.attempt] - row.end) for row in rows]


def by_stage(rows: Sequence[TaskHours], state: State) -> dict[str, StageHours]:
    done = {"edit": sum(outcome.ok is not None for outcome in state.edits.values()), "score": len(state.scored())}
    return {
        stage: StageHours(
            tasks=len(own),
            samples=samples,
            queue=sum(row.queue for row in own),
            by_kind=in_order(_sum(row.by_kind for row in own)),
            behind=sum(row.behind for row in own),
            tail=sum(row.tail for row in own),
            gpu=", ".join(sorted({row.gpu for row in own if row.gpu})),
            gpus=max(row.gpus for row in own),
        )
        for stage, samples in done.items()
        if (own := [row for row in rows if row.stage == stage])
    }


class _Timed(msgspec.Struct, gc=False):
    """What a record says of its time, alone: there may be a million."""

    time: Time
    seconds: Seconds
    info: Any = None


_DECODER = msgspec.json.Decoder(_Timed)
_TIME = attrgetter("time")


def _records(files: Iterable[Path]) -> list[_Timed]:
    """All that processes wrote, oldest first: also what was made again since, or by another plug-in, took its time."""
    lines = (line for file in files for line in file.read_bytes().split(b"\n"))
    found = (record for line in lines if (record := _timed(line)) is not None and record.time)
    return sorted(found, key=_TIME)


def _timed(line: bytes) -> _Timed | None:
    """None where the line is torn or tells no time."""
    try:
        return _DECODER.decode(line)
    except UNFIT:
        try:
            return msgspec.convert(parse_line(line), _Timed)
        except UNFIT:
            return None


def _task(attempt: Attempt, processes: Sequence[Process], records: Sequence[_Timed]) -> TaskHours:
    kinds: list[Mapping[str, float]] = []
    phases: list[Part] = []
    queue, end = 0.0, attempt.time
    in_turn = attempt.job_id is None and attempt.slices > 1  # one place for all its tasks, which says little of each
    for number, process in enumerate(processes):
        following = processes[number + 1].begin if number + 1 < len(processes) else float("inf")
        own = records[bisect_left(records, process.begin, key=_TIME) : bisect_left(records, following, key=_TIME)]
        place = process.begin if process.held is None or in_turn else process.held
        if phases and process.held is None:  # its supervisor, which has kept the place, started it anew
            place = end
        place = max(place, end)
        queue += place - end
        parts: Sequence[Part] = [Part(START, place, max(0.0, process.begin - place)), *process.phases]
        if own and process.end is None and not process.died:  # still at work, or gone with its node
            last = replace(parts[-1], seconds=max(parts[-1].seconds, own[-1].time - parts[-1].begin))
            parts = [*parts[:-1], last]
        parts = _with_work(parts, own)
        kinds.append(_kinds(process, parts, own))
        phases += parts
        end = parts[-1].end
    by_kind = _sum(kinds)
    behind = by_kind.pop(BEHIND, 0.0)
    return TaskHours(
        stage=attempt.stage,
        attempt=attempt.number,
        task=processes[0].task,
        node=processes[-1].node,
        begin=phases[0].begin,
        end=end,
        queue=queue,
        by_kind=in_order(by_kind),
        behind=behind,
        records=len(records),
        gpu=processes[-1].gpu,
        gpus=processes[-1].gpus,
        phases=[phase for phase in phases if phase.seconds > 0],
    )


def _with_work(phases: Sequence[Part], records: Sequence[_Timed]) -> Sequence[Part]:
    """Journals of earlier versions don't say when the work began: from its records then."""
    if not records or any(phase.name == WORK for phase in phases):
        return phases
    begin, end = records[0].time - records[0].seconds, records[-1].time
    before = [replace(p, seconds=min(p.seconds, begin - p.begin)) for p in phases if p.begin < begin]
    return [*before, Part(WORK, begin, end - begin), Part(CLOSE, end, max(0.0, phases[-1].end - end))]


def _kinds(process: Process, phases: Iterable[Part], records: Sequence[_Timed]) -> Mapping[str, float]:
    """`records` are in the order of their time."""
    found: list[Mapping[str, float]] = []
    for phase in phases:
        if phase.name == WORK:
            begin = bisect_left(records, phase.begin, key=_TIME)
            end = bisect_right(records, phase.end + ROUNDED, key=_TIME)
            found.append(_work(phase, records[begin:end], process.died))
        elif phase.name == LOAD:
            within = [part for part in process.parts if part.name.startswith("import ") and _lies_in(part, phase)]
            imports = min(phase.seconds, sum(part.seconds for part in within))
            found.append({IMPORTS: imports, LOAD: phase.seconds - imports})
        else:
            found.append({{START: IMPORTS, CLOSE: IDLE}.get(phase.name, phase.name): phase.seconds})
    kinds = _sum(found)
    ahead = -min(0.0, kinds.get(OTHER, 0.0))  # parts that `prepare` did for all samples, before the first
    return _sum([kinds, {OTHER: ahead, WARM: -min(ahead, kinds.get(WARM, 0.0))}])


def _work(span: Part, records: Sequence[_Timed], died: bool) -> Mapping[str, float]:
    """The seconds in the plug-in by part, what its first batch took beyond the usual, and the rest; BEHIND comes on top
    of the span. OTHER is less than nothing where the parts add up to more than the plug-in's calls took."""
    took = [max(0.0, record.seconds) for record in records]
    count = len(list(takewhile(lambda seconds: seconds == took[0], took)))
    first, others = records[:count], records[count:]
    usual = median(took[count:] or [float("inf")])
    calls, first_calls = sum(took[count:]), sum(took[:count])
    share = min(1.0, usual * count / first_calls) if first_calls else 1.0
    head = {name: share * seconds for name, seconds in _sum(map(_told, first)).items()}
    told = _sum([head, *map(_told, others)])
    behind, _ = told.pop(BEHIND, 0.0), told.pop(LOADED, None)
    other = calls + share * first_calls - sum(told.values())
    rest = max(0.0, span.seconds - calls - first_calls)
    lost = min(rest, max(0.0, span.end - (records[-1].time if records else span.begin))) if died else 0.0
    warm = (1 - share) * first_calls
    return _sum([told, {WARM: warm, OTHER: other, LOST: lost, IDLE: rest - lost, BEHIND: behind}])


def _sum(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in rows:
        for kind, seconds in row.items():
            found[kind] = found.get(kind, 0.0) + seconds
    return found


def _told(record: _Timed) -> dict[str, float]:
    """The seconds by part, where the plug-in tells them."""
    seconds = record.info.get("seconds") if isinstance(record.info, dict) else None
    found = seconds.items() if isinstance(seconds, dict) else ()
    return {name: value for name, value in found if isinstance(value, (int, float)) and 0 <= value < LONGEST}


def _lies_in(part: Part, whole: Part) -> bool:
    """Whether a part lies in another, by its middle, as its times are rounded."""
    return whole.begin <= part.begin + part.seconds / 2 < whole.end


def _as_json(row: TaskHours | StageHours) -> dict[str, Any]:
    """In seconds."""
    return {
        "gpu": row.gpu or None,
        "gpus": row.gpus,
        "queue": round(row.queue, 3),
        "held": round(row.held, 3),
        "by_kind": {kind: round(seconds, 3) for kind, seconds in row.by_kind.items()},
        "encode_behind": round(row.behind, 3),
        "tail": round(row.tail, 3),
    }


def in_order(kinds: Mapping[str, float]) -> dict[str, float]:
    """The kinds as they come in a task's life, the work's parts the largest first; what took no time is left out."""
    parts = sorted((kind for kind in kinds if kind not in (*BEFORE, *AFTER)), key=lambda kind: -kinds[kind])
    return {kind: kinds[kind] for kind in (*BEFORE, *parts, *AFTER) if kinds.get(kind, 0.0) > 0}
