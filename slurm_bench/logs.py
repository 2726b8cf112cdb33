"""Where the log goes."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
log = logging.getLogger("slurm_bench")


class StderrHandler(logging.Handler):
    """Writes to whatever sys.stderr is at the time: progress bars put themselves in between."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def log_to_stderr() -> None:
    _add(StderrHandler())


def log_to_file(path: Path) -> logging.Handler:
    path.parent.mkdir(parents=True, exist_ok=True)
    return _add(logging.FileHandler(path, encoding="utf-8", errors="backslashreplace"))


def _add(handler: logging.Handler) -> logging.Handler:
    handler.setFormatter(FORMAT)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return handler
