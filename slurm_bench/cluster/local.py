"""The local executor: one process a GPU slot, side by side; on a machine without GPUs, CPU slots."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from slurm_bench.cluster.sbatch import gpus_of
from slurm_bench.cluster.slot import GRACE, Slot
from slurm_bench.config import Config, at_once, tasks_of
from slurm_bench.logs import log
from slurm_bench.machine import visible_gpus
from slurm_bench.report.write import import_ahead
from slurm_bench.run.attempts import Attempt
from slurm_bench.run.opened import Run

POLL = 0.2


class Local:
    """`poll` is called all the while, for the progress bars."""

    name = "local"

    def __init__(self, poll: Callable[[], None] = lambda: None) -> None:
        self.poll = poll
        self._gpus = gpu_slots()

    def slices(self, stage: str, config: Config) -> int:
        asked = tasks_of(config, stage)
        cut = stage == "edit" and config.slices is not None
        return min(asked, len(self._slots(stage, config))) if self._gpus and not cut else asked

    def _slots(self, stage: str, config: Config) -> list[str]:
        """What the tasks at work may see: a GPU each, or as many as score_slurm asks for where a judge is served by
        several. Empty where this machine has none."""
        each = gpus_of(config.score_slurm) if stage == "score" else 1
        count = max(1, len(self._gpus) // each) if self._gpus else 0
        return [",".join(self._gpus[k * each : (k + 1) * each]) for k in range(count)]

    def execute(self, run: Run, attempt: Attempt) -> bool:
        """Every slice by a slot that sees GPUs of its own; where there are more slices than GPUs, or than may work
        at once, they queue. On Ctrl-C, or SIGTERM, all are asked to leave in order."""
        free: list[str | None] = [*self._slots(attempt.stage, run.config)] or [None] * attempt.slices
        free = free[: at_once(run.config, attempt.stage)]
        if attempt.stage == "score":
            import_ahead()
        waiting = list(range(attempt.slices))
        at_work: list[Slot] = []
        try:
            while waiting or at_work:
                run.folder.check_there()
                while waiting and free:
                    task = waiting.pop(0)
                    output = run.folder.output(attempt.stage, attempt.number, task)
                    at_work.append(Slot(run.folder, attempt, task, os.environ, gpu=free.pop(0), output=output))
                over = [slot for slot in at_work if slot.over()]
                free += [slot.gpu for slot in over]
                at_work = [slot for slot in at_work if slot not in over]
                self.poll()
                time.sleep(POLL)
        except FileNotFoundError:  # the run's folder: what is in hand has no place any more
            for slot in at_work:
                slot.kill()
            raise
        finally:
            _stop(at_work)
            self.poll()
        return True


def gpu_slots() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be set to, one entry a GPU of this machine."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return [gpu.uuid for gpu in visible_gpus()]
    return [name for name in listed.split(",") if name.strip()] if visible_gpus() else []


def _stop(slots: list[Slot]) -> None:
    """Those that are at work still are interrupted: they finish what they have in hand. A second interrupt doesn't wait
    for that."""
    try:
        for slot in slots:
            slot.tell(signal.SIGTERM)
        left = sum([not slot.over() for slot in slots])  # each must be looked at
        if left:
            log.warning("interrupted: %s finishing what is in hand, within %d s at most", _tasks(left), GRACE)
            log.warning("Ctrl-C once more leaves at once; what is in hand is then done anew next time")
        deadline = time.monotonic() + GRACE
        while any([not slot.over() for slot in slots]) and time.monotonic() < deadline:  # noqa: C419
            time.sleep(POLL)
    except KeyboardInterrupt:
        running = sum(not slot.over() for slot in slots)
        log.warning("left at once: %s at work, and killed now; nothing of the run goes on", _tasks(running))
        raise
    finally:
        for slot in slots:
            slot.kill()


def _tasks(count: int) -> str:
    return f"{count} task{' is' if count == 1 else 's are'}"
