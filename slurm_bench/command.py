"""How the tool is started from the current folder, for the lines that tell a person what to type; and what can be
typed, as far as it must be known before anything heavy is imported."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

EXECUTORS = ("slurm", "local", "debug")

# What may be typed as `--NAME`; any other is slurm.NAME=value.
SLURM_OPTIONS = (
    "partition",
    "account",
    "qos",
    "time",
    "constraint",
    "exclude",
    "nodelist",
    "reservation",
    "mem",
)

LAUNCHER = Path(__file__).resolve().parents[1] / "launch.py"  # of a checkout; a wheel has none


def command(*words: object) -> str:
    """`python launch.py status RUN`, ready for a shell; from another folder by the path that was typed; and where
    launch.py isn't at hand, `python -m slurm_bench …`."""
    typed = [sys.argv[0]] if _is_launcher(sys.argv[0]) else ["-m", __package__]
    start = [LAUNCHER.name] if _is_launcher(LAUNCHER.name) else typed
    return shlex.join(["python", *start, *map(str, words)])


def program() -> str:
    """The name at the head of an error line."""
    return LAUNCHER.name if _is_launcher(LAUNCHER.name) or _is_launcher(sys.argv[0]) else str(__package__)


def _is_launcher(name: str) -> bool:
    """Another project's launch.py is none."""
    return Path(name).is_file() and Path(name).resolve() == LAUNCHER
