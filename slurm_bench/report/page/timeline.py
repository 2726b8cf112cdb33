"""When each task worked, as its records tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from slurm_bench.run.records import Outcome, Record, State

MOST_LANES = 60


@dataclass(frozen=True)
class Lane:
    """`begin` and `end` in seconds since the run's first work."""

    stage: str
    attempt: int
    task: int
    node: str
    begin: float
    end: float
    records: int


def timeline(state: State) -> list[Lane]:
    """A lane for each task of each attempt, in the order in which they began."""
    found: dict[tuple[str, int, int], list[Record]] = {}
    for stage, record in _records(state):
        if {"attempt", "task", "time"} <= record.keys():
            found.setdefault((stage, record["attempt"], record["task"]), []).append(record)
    spans = [
        (key, min(r["time"] - r.get("seconds", 0.0) for r in records), max(r["time"] for r in records), records)
        for key, records in found.items()
    ]
    start = min((begin for _, begin, _, _ in spans), default=0.0)
    lanes = [
        Lane(*key, str(records[-1].get("node", "")), begin - start, end - start, len(records))
        for key, begin, end, records in spans
    ]
    return sorted(lanes, key=lambda lane: (lane.stage != "edit", lane.attempt, lane.task))[:MOST_LANES]


def _records(state: State) -> Iterator[tuple[str, Record]]:
    stages: list[tuple[str, Outcome]] = [("edit", outcome) for outcome in state.edits.values()]
    stages += [("score", outcome) for by in state.scores.values() for outcome in by.values()]
    for stage, outcome in stages:
        yield from ((stage, record) for record in (*outcome.errors, *([outcome.ok] if outcome.ok else [])))
