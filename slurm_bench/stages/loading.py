"""Models load one at a time on a node, so that host memory holds."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from slurm_bench.logs import log


@contextmanager
def load_slot(concurrency: int) -> Iterator[float]:
    """Hold one of this node's `concurrency` load slots; gives the seconds waited for it.

    A lock on a node-local file: the kernel drops it when the process dies, however it dies.
    """
    start = time.monotonic()
    held = _acquire(concurrency)
    try:
        yield time.monotonic() - start
    finally:
        held.close()


def _acquire(concurrency: int) -> IO[str]:
    folder = Path(tempfile.gettempdir()) / f"slurm_bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    told = False
    while True:
        for slot in range(concurrency):
            file = open(folder / f"load-{slot}.lock", "w")  # noqa: SIM115 (held by the caller)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return file
            except BlockingIOError:
                file.close()
        if not told:
            log.info("waiting for another task of this node to finish loading its model")
            told = True
        time.sleep(0.2)
