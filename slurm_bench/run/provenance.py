"""Where a run's numbers come from: code, packages, models, machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PACKAGES = [
    "slurm_bench",
    "submitit",
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
    "pillow",
    "omegaconf",
    "pandas",
    "numpy",
    "httpx",
    "cache-dit",
]


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
        "gpus": gpus(),
    }


def package_versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_state(folder: Path) -> dict[str, Any] | None:
    """The revision the code runs from, and whether it was changed since; None outside a checkout."""
    revision = _output(["git", "-C", str(folder), "rev-parse", "HEAD"])
    if revision is None:
        return None
    changes = _output(["git", "-C", str(folder), "status", "--porcelain"])
    return {"revision": revision, "dirty": bool(changes)}


def gpus() -> list[dict[str, str]]:
    """The GPUs that this process may see: name, memory, driver. Empty where there is none."""
    query = ["nvidia-smi", "--query-gpu=uuid,name,memory.total,driver_version", "--format=csv,noheader"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "":
        return []
    if visible:
        query.append(f"--id={visible}")
    rows = [line.split(", ") for line in (_output(query) or "").splitlines()]
    return [dict(zip(("uuid", "name", "memory", "driver"), row, strict=True)) for row in rows if len(row) == 4]


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
