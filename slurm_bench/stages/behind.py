"""A thread that writes behind the GPU's back, a bounded number of jobs late."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class StorageFailed(Exception):
    """The run folder can't be written: full, over quota, or gone."""


class WriteBehind:
    """Runs the jobs put into it in order. After one has failed no other is started: `put`, `drain` and leaving the
    block raise StorageFailed. Leaving waits for what was put."""

    def __init__(self, depth: int) -> None:
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(depth)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="write", daemon=True)

    def __enter__(self) -> WriteBehind:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.put(None)
        self._thread.join()
        self._raise_failure()

    def put(self, job: Callable[[], None]) -> None:
        self._raise_failure()
        self._jobs.put(job)

    def drain(self) -> None:
        """Wait until all that was put is done."""
        self._jobs.join()
        self._raise_failure()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._failure is None:
                try:
                    job()
                except BaseException as error:  # whatever it is: the thread must go on, or `put` would wait for ever
                    self._failure = error
            self._jobs.task_done()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise StorageFailed(f"{type(self._failure).__name__}: {self._failure}") from self._failure
