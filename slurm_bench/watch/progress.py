"""Progress from the records, wherever the work is done: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Protocol, TextIO

from slurm_bench.run.ledger import Ledger
from slurm_bench.run.opened import Run

# Where nobody looks at a terminal a line is written for each tenth of a stage, and at least so often, in seconds.
QUIET = 60.0


class Display(Protocol):
    def show(self, counts: Mapping[str, tuple[int, int, int]]) -> None:
        """Done, total and failed, by stage."""

    def close(self) -> None: ...


class Bars:
    """One bar a stage, on stderr. `poll` may be called often: it reads the records at most every `every` seconds. It
    raises nothing: a file server that hiccups, or a terminal that is gone, must not stop the work that it shows."""

    def __init__(self, run: Run, every: float = 0.5) -> None:
        self._run, self._every, self._last = run, every, 0.0
        self._ledger: Ledger | None = None
        self._display: Display = _Rich() if sys.stderr.isatty() else _Plain()

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._last = 0.0
        self.poll()
        with suppress(OSError):
            self._display.close()

    def poll(self) -> None:
        if time.monotonic() - self._last < self._every:
            return
        with suppress(OSError):
            self._show()
        self._last = time.monotonic()

    def _show(self) -> None:
        self._run.folder.check_there()
        self._ledger = self._ledger or self._run.ledger()
        self._ledger.look()
        self._display.show(self._ledger.counts())


class Lines:
    """Says how far the stages are when one has come a tenth further, or has begun to say something after a minute."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._said, self._tenths = out, 0.0, dict[str, int]()

    def say(self, stages: Mapping[str, tuple[int, int, str]]) -> None:
        """`stages`: done, total and a text, by stage."""
        tenths = {stage: 10 * done // total if total else 0 for stage, (done, total, _) in stages.items()}
        if tenths == self._tenths and time.monotonic() - self._said < QUIET:
            return
        self._tenths, self._said = tenths, time.monotonic()
        text = "; ".join(f"{stage} {said}" for stage, (done, _, said) in stages.items() if done or stage == "edit")
        self._out.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        self._out.flush()


class _Plain:
    def __init__(self) -> None:
        self._lines = Lines(sys.stderr)

    def show(self, counts: Mapping[str, tuple[int, int, int]]) -> None:
        self._lines.say(
            {
                stage: (done, total, f"{done}/{total}" + (f", {failed} failed" if failed else ""))
                for stage, (done, total, failed) in counts.items()
            }
        )

    def close(self) -> None:
        pass


class _Rich:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Left

        columns = (TextColumn("{task.description:>6}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), Left())
        self._bars = Progress(*columns, TextColumn("{task.fields[failed]}"), console=Console(stderr=True))
        self._stages = {stage: self._bars.add_task(stage, total=None, failed="") for stage in ("edit", "score")}
        self._bars.start()

    def show(self, counts: Mapping[str, tuple[int, int, int]]) -> None:
        for stage, (done, total, failed) in counts.items():
            said = f"{failed} failed" if failed else ""
            self._bars.update(self._stages[stage], completed=done, total=total, failed=said)

    def close(self) -> None:
        self._bars.stop()
