"""How each process of each task fared: what the healing chain and a puzzled person look at. Deleting it loses no
result.

A task is worked on by one process after another: where one dies, its supervisor or Slurm starts the next. Each has a
file of lines (spawned, started, waits to load, loads, loaded, works, ended, and the exit status that its supervisor
saw; between them parts of its work, and the GPU memory that it has needed), and a small file beside it with the ids
that it has in hand, overwritten before each call, so that a sample that kills its process is known.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from slurm_bench.logs import hide_secrets
from slurm_bench.machine import peak_gpu_memory, signal_name, visible_gpus
from slurm_bench.marks import process_began
from slurm_bench.run.durable import json_line, parse_line, read_lines
from slurm_bench.run.layout import VERSION, RunDir
from slurm_bench.run.shapes import UNFIT, Event, Hand, fits

# How a process may end. One without an end was killed, or is still at work. LOST: its GPU can't be used any more.
DONE, STOPPED, REFUSED, FAILED, LOST = "done", "stopped", "refused", "failed", "lost"
# The exit code of a process that ended in order and not well; where the disk was full, nothing else says so.
ORDERLY = 74

_NAME = re.compile(r"(edit|score)-(\d+)-(\d+)-r(\d+)\.jsonl")


class Journal:
    """Best effort: a full disk must not keep a task from leaving in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: Any = None
        self._hand: Any = None
        self._longest = 0
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lines = open(path, "ab", buffering=0)  # noqa: SIM115 (closed by close)

    def note(self, event: str, **facts: Any) -> None:
        with suppress(OSError):
            if self._lines is not None:
                self._lines.write(json_line({"event": event, "time": time.time(), **facts}))

    def start(self) -> None:
        job, gpus = os.environ.get("SLURM_JOB_ID"), [gpu.facts() for gpu in visible_gpus()]
        where = {"host": socket.gethostname(), "node": node_name(), "pid": os.getpid(), "job": job}
        self.note("start", began=round(process_began(), 3), **where, gpus=gpus)

    def part(self, name: str, begin: float, end: float) -> None:
        """A part of this process's work, for its timeline (see `marks`)."""
        self.note("part", name=name, begin=round(begin, 3), seconds=round(end - begin, 3))

    def memory(self) -> None:
        """The GPU memory that this process has needed until now, in bytes."""
        if (peak := peak_gpu_memory()) is not None:
            self.note("memory", peak=peak)

    def end(self, how: str, message: str = "", ok: int = 0, failed: int = 0) -> None:
        """`how` is one of those above. What is in hand stays noted where the process is LOST."""
        if how != LOST:
            self.hold("", ())
        self.note("end", how=how, message=" ".join(hide_secrets(message).split())[:2000], ok=ok, failed=failed)

    def hold(self, plugin: str, ids: Iterable[str]) -> None:
        """What this process has begun with that plug-in and not finished. No fsync: the note has to outlive the
        process, not the node, and a node that dies says nothing against a sample."""
        with suppress(OSError):
            if self._hand is None:
                self._hand = open(_hand_of(self._path), "wb", buffering=0)  # noqa: SIM115 (closed by close)
            line = json.dumps({"plugin": plugin, "ids": list(ids), "time": time.time()}).encode()
            self._longest = max(self._longest, len(line))  # blanks over what was there: cheaper than to cut the file
            os.pwrite(self._hand.fileno(), line.ljust(self._longest), 0)

    def close(self) -> None:
        for file in (self._lines, self._hand):
            with suppress(OSError):
                if file is not None:
                    file.close()


@dataclass(frozen=True)
class TaskProcess:
    """One process of one task. `end` is None where it was killed or still works; `exit` is its exit status (negative: a
    signal) where its supervisor saw it, and `worked` then the seconds since it had begun what it had in hand. `last` is
    the newest event that says what it is doing, at the time `since`; `heard` is when it noted anything last. `memory`
    is the most that it has had on its GPU, in bytes. `job` is its job's own number, also where that is an array's."""

    stage: str
    attempt: int
    task: int
    restart: int
    node: str
    started: float = 0.0
    end: str | None = None
    message: str = ""
    ok: int = 0
    failed: int = 0
    exit: int | None = None
    plugin: str = ""
    in_hand: tuple[str, ...] = ()
    gpus: Sequence[dict[str, str]] = ()
    last: str = ""
    since: float = 0.0
    heard: float = 0.0
    memory: int | None = None
    load_seconds: float | None = None
    worked: float | None = None
    job: str = ""

    @property
    def signalled(self) -> bool:
        """It left as a signal told it to, and not by itself."""
        return self.end == STOPPED and self.message.startswith("SIG")

    @property
    def told_early(self) -> bool:
        """What asks a process to leave ended it, before it could hear of it: it was starting."""
        return self.end is None and self.exit in (-signal.SIGTERM, -signal.SIGUSR2)

    @property
    def how(self) -> str:
        """What became of it, in words."""
        if self.end is not None:
            return self.message or self.end
        if self.exit is None:
            return "ended without a word, its supervisor too"
        if self.exit < 0:
            return f"killed by {signal_name(-self.exit)}"
        return f"left with exit code {self.exit}"


def read_events(file: Path) -> list[dict[str, Any]]:
    """The lines of a journal, in their order. Raises OSError."""
    return [{"time": 0.0, **row} for row in read_lines(file) if fits(row, Event)]


def stamp(attempt: int, task: int) -> dict[str, Any]:
    """What each record says of the process that made it."""
    return {"attempt": attempt, "task": task, "host": socket.gethostname(), "node": node_name(), "v": VERSION}


def node_name() -> str:
    """What Slurm calls this node (several may share one host name in a test), else the host's name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def read_journals(run: RunDir, stage: str, holding: bool = False) -> list[TaskProcess]:
    """Oldest first; with `holding` those alone that noted something in hand."""
    found = []
    for file in run.journals.iterdir() if run.journals.is_dir() else ():
        match = _NAME.fullmatch(file.name)
        if not match or match[1] != stage:
            continue
        key = tuple(int(number) for number in match.groups()[1:])
        if not holding or _hand_of(file).exists():
            found.append((key, file))
    return [_read(file, stage, *key) for key, file in sorted(found)]


def read_journal(run: RunDir, stage: str, attempt: int, task: int, restart: int) -> TaskProcess:
    """One process's. Where it can't be read nothing is known of it but its name."""
    return _read(run.journal(stage, attempt, task, restart), stage, attempt, task, restart)


def _read(file: Path, stage: str, attempt: int, task: int, restart: int) -> TaskProcess:
    rows: list[dict[str, Any]] = []
    with suppress(OSError):
        rows = read_events(file)
    events = {row["event"]: row for row in rows}
    start, end = events.get("start", events.get("spawn", {})), events.get("end", {})
    plugin, in_hand, since = _read_hand(_hand_of(file))
    doing: dict[str, Any] = next((row for row in reversed(rows) if row["event"] not in ("part", "memory")), {})
    code, died = events.get("exit", {}).get("code"), events.get("exit", {}).get("time")
    return TaskProcess(
        stage=stage,
        attempt=attempt,
        task=task,
        restart=restart,
        node=start.get("node", ""),
        job=start.get("job") or "",
        started=start.get("time", 0.0),
        end=end.get("how", FAILED if code == ORDERLY else None),
        message=end.get("message", ""),
        ok=end.get("ok", 0),
        failed=end.get("failed", 0),
        exit=code,
        plugin=plugin,
        in_hand=in_hand,
        worked=died - since if died and since else None,
        gpus=start.get("gpus", []),
        last=doing.get("event", ""),
        since=doing.get("time", 0.0),
        heard=rows[-1]["time"] if rows else 0.0,
        memory=events.get("memory", {}).get("peak"),
        load_seconds=events.get("loaded", {}).get("took"),
    )


def _hand_of(file: Path) -> Path:
    return file.with_suffix(".hand")


def _read_hand(file: Path) -> tuple[str, tuple[str, ...], float]:
    """The plug-in, the ids, and since when."""
    try:
        hand = msgspec.convert(parse_line(file.read_bytes()), Hand)
        return hand.plugin, hand.ids, hand.time
    except (OSError, *UNFIT):
        return "", (), 0.0
