"""The log files of a run's jobs."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

# So much of the end of a log file is looked at, in bytes.
TAIL = 32_000

_JOB_LOG = re.compile(r"(\d+(?:_\d+)?)_\d+_log\.err")


def tail(file: str | Path, size: int = TAIL) -> list[str]:
    """The last lines of a text file, without blank ones. Empty where it can't be read."""
    with suppress(OSError), open(file, "rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - size))
        return [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return []


def job_logs(folder: Path) -> dict[str, Path]:
    """By job id, an array's task as `4242_3`."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {match[1]: file for file in files if (match := _JOB_LOG.fullmatch(file.name))}
