"""When each process of a run did what, from its journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slurm_bench.run.durable import read_lines
from slurm_bench.run.layout import RunDir


@dataclass(frozen=True)
class Part:
    """`begin` in seconds since the epoch. Parts of one process may lie within one another."""

    name: str
    begin: float
    seconds: float


@dataclass(frozen=True)
class Process:
    """`name` is its journal's: stage, attempt, task and how often Slurm had started it; `end` is None where it was
    killed or still works."""

    name: str
    node: str
    begin: float
    end: float | None
    parts: Sequence[Part]


def read_timeline(run: RunDir) -> list[Process]:
    """In the order in which they were started. Journals of other versions, which have no parts, give processes
    without them."""
    found = []
    for file in run.journals.glob("*.jsonl") if run.journals.is_dir() else []:
        rows = [row for row in read_lines(file) if "event" in row]
        start = next((row for row in rows if row["event"] == "start"), None)
        if start is None:
            continue
        parts = [Part(row["name"], row["begin"], row["seconds"]) for row in rows if row["event"] == "part"]
        parts.sort(key=lambda part: (part.begin, -part.seconds))
        end = next((row["time"] for row in rows if row["event"] == "end"), None)
        begin = start.get("began", start["time"])
        found.append(Process(file.stem, start.get("node", ""), begin, end, parts))
    return sorted(found, key=lambda process: process.begin)
