"""How the tool is started from the current folder, for the lines that tell a person what to type; and what can be
typed, as far as it must be known before anything heavy is imported."""

from __future__ import annotations

import shlex
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
    """`python launch.py status RUN`, ready for a shell; `python -m slurm_bench …` where launch.py isn't at hand."""
    start = [LAUNCHER.name] if _launcher_here() else ["-m", __package__]
    return shlex.join(["python", *start, *map(str, words)])


def program() -> str:
    """The name at the head of an error line."""
    return LAUNCHER.name if _launcher_here() else str(__package__)


def _launcher_here() -> bool:
    """Another project's launch.py doesn't count."""
    here = Path(LAUNCHER.name)
    return here.is_file() and here.resolve() == LAUNCHER
