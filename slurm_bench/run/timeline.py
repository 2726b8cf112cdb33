"""When each process of a run did what, from its journal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slurm_bench.run.journal import read_events
from slurm_bench.run.layout import RunDir

# What a process does one after the other, and the event of its journal with which each begins. Before any, it starts:
# Python, imports.
START, WAIT, LOAD, WARM, WORK, CLOSE = "start", "load wait", "load", "warm-up", "work", "close"
_BEGINS = {"waits": WAIT, "loads": LOAD, "loaded": WARM, "works": WORK, "end": CLOSE}
_SAMPLES = "samples"  # the part that is the work

_NAME = re.compile(r"(edit|score)-(\d+)-(\d+)-r(\d+)")


@dataclass(frozen=True)
class Part:
    """`begin` in seconds since the epoch. Parts of one process may lie within one another."""

    name: str
    begin: float
    seconds: float

    @property
    def end(self) -> float:
        return self.begin + self.seconds


@dataclass(frozen=True)
class Process:
    """`name` is its journal's: stage, attempt, task and how often Slurm had started it; `end` is None where it was
    killed or still works. `held` is since when its supervisor's job had its place on a node, where it was that job's
    first process, else None; `phases` follow each other from `begin` to the newest line. `gpu` names what it could
    use, `gpus` says how many."""

    name: str
    node: str
    begin: float
    end: float | None
    parts: Sequence[Part]
    stage: str = ""
    attempt: int = 0
    task: int = 0
    held: float | None = None
    phases: Sequence[Part] = ()
    died: bool = False
    gpu: str = ""
    gpus: int = 0


def read_timeline(run: RunDir) -> list[Process]:
    """In the order in which they were started. Journals of other versions, which have no parts, give processes
    without them."""
    files = run.journals.glob("*.jsonl") if run.journals.is_dir() else []
    found = [_process(match, read_events(file)) for file in files if (match := _NAME.fullmatch(file.stem))]
    return sorted((process for process in found if process), key=lambda process: process.begin)


def _process(name: re.Match[str], rows: Sequence[Mapping[str, Any]]) -> Process | None:
    """None for one that didn't come as far as its own journal."""
    events = {row["event"]: row for row in reversed(rows)}
    start, spawn = events.get("start"), events.get("spawn")
    if start is None:
        return None
    parts = [Part(row["name"], row["begin"], row["seconds"]) for row in rows if _is_part(row)]
    parts.sort(key=lambda part: (part.begin, -part.seconds))
    # One that no supervisor started (`debug`) does task after task: its process is older than this one.
    begin = start.get("began", start["time"]) if spawn else start["time"]
    return Process(
        name=name[0],
        node=start.get("node", ""),
        begin=begin,
        end=events["end"]["time"] if "end" in events else None,
        parts=parts,
        stage=name[1],
        attempt=int(name[2]),
        task=int(name[3]),
        held=spawn.get("held") if spawn else None,
        phases=list(_phases(begin, rows)),
        died="end" not in events and "exit" in events,
        gpu=", ".join(gpu.get("name", "") for gpu in start.get("gpus", [])),
        gpus=len(start.get("gpus", [])),
    )


def _is_part(row: Mapping[str, Any]) -> bool:
    return row["event"] == "part" and {"name", "begin", "seconds"} <= row.keys()


def _phases(begin: float, rows: Sequence[Mapping[str, Any]]) -> Iterator[Part]:
    doing, since = START, begin
    for row in rows:
        event = row["event"]
        if _is_part(row) and row["name"] == _SAMPLES:
            if doing != WORK:  # a journal of before `works` was noted
                yield Part(doing, since, max(0.0, row["begin"] - since))
                since = row["begin"]
            end = row["begin"] + row["seconds"]
            yield Part(WORK, since, max(0.0, end - since))
            doing, since = CLOSE, end  # until the next scorer's begins
        elif event in _BEGINS:
            yield Part(doing, since, max(0.0, row["time"] - since))
            doing, since = _BEGINS[event], row["time"]
    newest = max((row["time"] for row in rows if row["event"] != "spawn"), default=since)
    yield Part(doing, since, max(0.0, newest - since))
