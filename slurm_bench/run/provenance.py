"""Where a run's numbers come from: code, packages, models, machine."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from slurm_bench.machine import package_versions, visible_gpus


def provenance(config_hash: str, models: dict[str, Any]) -> dict[str, Any]:
    return {
        "time": time.time(),
        "command": sys.argv,
        "config_hash": config_hash,
        "git": git_state(Path(__file__).parent),
        "python": platform.python_version(),
        "packages": package_versions(),
        "models": models,
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "gpus": [gpu.facts() for gpu in visible_gpus()],
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """The revision the code runs from, and whether it was changed since; None outside a checkout."""
    revision = _output(["git", "-C", str(folder), "rev-parse", "HEAD"])
    if revision is None:
        return None
    changes = _output(["git", "-C", str(folder), "status", "--porcelain"])
    return {"revision": revision, "dirty": bool(changes)}


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
