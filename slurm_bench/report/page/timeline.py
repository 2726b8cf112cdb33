"""When each task did what: where on a scale of 0 to 100 it stands. The template draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slurm_bench.report.hours import amount
from slurm_bench.run.hours import TaskHours
from slurm_bench.run.timeline import LOAD, START, WAIT, WARM, WORK

MOST_LANES = 60
# What is drawn, and how the page's style calls it; work is drawn in its stage's colour.
KINDS = {START: "start", WAIT: "wait", LOAD: "load", WARM: "warm", WORK: "work"}
TAIL = "idle tail"


@dataclass(frozen=True)
class Segment:
    """`x` and `width` in percent of the whole time."""

    name: str
    style: str
    x: float
    width: float
    seconds: float


@dataclass(frozen=True)
class Lane:
    """`begin` and `end` in seconds since the run's first task began; `queue` as a person reads it."""

    stage: str
    attempt: int
    task: int
    node: str
    begin: float
    end: float
    records: int
    queue: str
    segments: Sequence[Segment]


def timeline(hours: Sequence[TaskHours]) -> list[Lane]:
    """A lane for each task of each attempt, by stage, attempt and task."""
    start = min((row.begin for row in hours), default=0.0)
    whole = max((row.end for row in hours), default=0.0) - start or 1.0

    def segment(name: str, style: str, begin: float, seconds: float) -> Segment:
        return Segment(name, style, round(100 * (begin - start) / whole, 2), round(100 * seconds / whole, 2), seconds)

    lanes = []
    for row in hours[:MOST_LANES]:
        drawn = [segment(p.name, KINDS[p.name], p.begin, p.seconds) for p in row.phases if p.name in KINDS]
        drawn += [segment(TAIL, "tail", row.end, row.tail)] if row.tail else []
        begin, end = row.begin - start, row.end - start
        name = (row.stage, row.attempt, row.task, row.node)
        lanes.append(Lane(*name, begin, end, row.records, amount(row.queue), drawn))
    return lanes
