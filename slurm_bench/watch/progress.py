"""Progress bars from the records, wherever the work is done."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from slurm_bench.run.opened import Run


class Bars:
    """One bar a stage, on stderr. `poll` may be called often: it reads the records at most every `every` seconds."""

    def __init__(self, run: Run, every: float = 0.5) -> None:
        self._run, self._every, self._last = run, every, 0.0
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description:>6}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._bars = Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[failed]}"), console=console)
        self._stages = {
            stage: self._bars.add_task(stage, total=len(run.samples), failed="") for stage in ("edit", "score")
        }

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._last = 0.0
        self.poll()
        self._bars.stop()

    def poll(self) -> None:
        if time.monotonic() - self._last < self._every:
            return
        state = self._run.state()
        edits = list(state.edits.values())
        scores = [outcome for by_scorer in state.scores.values() for outcome in by_scorer.values()]
        for stage, outcomes in (("edit", edits), ("score", scores)):
            failed = sum(outcome.error is not None for outcome in outcomes)
            self._bars.update(
                self._stages[stage],
                completed=sum(outcome.ok is not None for outcome in outcomes),
                total=len(outcomes),
                failed=f"{failed} failed" if failed else "",
            )
        self._last = time.monotonic()
