"""How each task began and ended: what the healing chain and a puzzled person look at. Deleting it loses no result."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm_bench.machine import visible_gpus
from slurm_bench.run.durable import LineWriter, read_lines
from slurm_bench.run.layout import RunDir

# How a task may end. One without an end was killed, or is still at work.
DONE, STOPPED, REFUSED, FAILED = "done", "stopped", "refused", "failed"


class Journal:
    """Best effort: a full disk must not keep a task from leaving in order."""

    def __init__(self, path: Path) -> None:
        self._lines = LineWriter(path)

    def note(self, event: str, **facts: Any) -> None:
        with suppress(OSError):
            self._lines.write({"event": event, "time": time.time(), **facts})

    def start(self) -> None:
        job, gpus = os.environ.get("SLURM_JOB_ID"), [gpu.facts() for gpu in visible_gpus()]
        self.note("start", host=socket.gethostname(), node=node_name(), pid=os.getpid(), job=job, gpus=gpus)


@dataclass(frozen=True)
class TaskEnd:
    """One incarnation of one task; `end` is None where it was killed or still works."""

    stage: str
    attempt: int
    task: int
    node: str
    end: str | None
    message: str
    gpus: Sequence[dict[str, str]]


def node_name() -> str:
    """What Slurm calls this node (several may share one host name in a test), else the host's name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def read_journals(run: RunDir, stage: str, attempt: int | None = None) -> list[TaskEnd]:
    found = []
    for file in sorted(run.journals.glob(f"{stage}-*.jsonl")) if run.journals.is_dir() else []:
        _, number, task, _ = file.stem.split("-")
        if attempt in (None, int(number)):
            events = {row["event"]: row for row in read_lines(file) if "event" in row}
            start, end = events.get("start", {}), events.get("end", {})
            found.append(
                TaskEnd(
                    stage=stage,
                    attempt=int(number),
                    task=int(task),
                    node=start.get("node", ""),
                    end=end.get("how"),
                    message=end.get("message", ""),
                    gpus=start.get("gpus", []),
                )
            )
    return found
