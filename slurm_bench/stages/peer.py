"""Another task of the attempt, as far as its files tell what it does."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from slurm_bench.run.attempts import Attempt
from slurm_bench.run.journal import TaskProcess, read_journal
from slurm_bench.run.layout import RunDir
from slurm_bench.run.manifest import Manifest

# A holder that says nothing for so many times as long as its slowest sample took, and at least so many seconds, may be
# dead without a word, with its node.
SILENT_TIMES, SILENT_AT_LEAST = 10, 300.0


@dataclass
class Peer:
    """What a task of the attempt has done with one plug-in, as far as its files tell; `look` reads what is new."""

    folder: RunDir
    attempt: Attempt
    number: int
    plugin: str
    recorded: set[str] = field(default_factory=set)
    processes: list[TaskProcess] = field(default_factory=list)
    heard: float = 0.0
    slowest: float = 0.0
    seconds: float = 0.0  # of all that it has recorded
    _files: dict[int, Manifest] = field(default_factory=dict)  # by restart

    def look(self) -> None:
        stage, number, restart = self.attempt.stage, self.attempt.number, 0
        self.processes.clear()
        while self._read_on(restart):
            self.processes.append(read_journal(self.folder, stage, number, self.number, restart))
            self.heard = max(self.heard, self.processes[-1].heard)
            restart += 1

    def _read_on(self, restart: int) -> bool:
        """False where there is no such process."""
        stage, number = self.attempt.stage, self.attempt.number
        if restart not in self._files:
            path = self.folder.manifest(stage, number, self.number, restart)
            self._files[restart] = Manifest(path, (number, self.number, restart))
        try:
            done, failed = self._files[restart].news()
        except FileNotFoundError:
            return False
        for record in (*done, *failed):
            if record.get("scorer", "editor") == self.plugin.removeprefix("scorers."):
                self.recorded.add(record["id"])
                self.heard = max(self.heard, float(record.get("time", 0.0)))
                self.slowest = max(self.slowest, float(record.get("seconds", 0.0)))
                self.seconds += float(record.get("seconds", 0.0))
        return True

    @property
    def pace(self) -> float | None:
        """Seconds a sample."""
        return self.seconds / len(self.recorded) if self.recorded else None

    @property
    def in_hand(self) -> set[str]:
        """By any of its processes: what one that died had is suspect, and stays with its task (law 13)."""
        return {i for process in self.processes if process.plugin == self.plugin for i in process.in_hand}

    @property
    def cards(self) -> set[str]:
        return {gpu.get("name", "") for process in self.processes for gpu in process.gpus}

    def is_dead(self, restart: int = -1) -> bool:
        """Will that process (the last one) do nothing more of what it has claimed?"""
        if restart < 0:
            restart = len(self.processes) - 1
        if not 0 <= restart < len(self.processes):
            return False
        process, followed = self.processes[restart], restart < len(self.processes) - 1
        if followed or process.end is not None or process.exit is not None:
            return True
        return time.time() - self.heard > max(SILENT_TIMES * self.slowest, SILENT_AT_LEAST)
