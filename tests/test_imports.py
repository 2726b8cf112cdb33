"""What must start at once imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers import REPO

from slurm_bench.cli import VERBS

PROBE = """
import sys, runpy
sys.argv = ["launch.py", *{words!r}]
try:
    runpy.run_path("launch.py", run_name="__main__")
except SystemExit:
    pass
print(sorted({heavy!r} & sys.modules.keys()))
"""


def imported(words: list[str], heavy: set[str]) -> str:
    probe = PROBE.format(words=words, heavy=heavy)
    done = subprocess.run([sys.executable, "-c", probe], cwd=REPO, capture_output=True, text=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("verb", VERBS)
def test_help_imports_nothing_heavy(verb: str) -> None:
    heavy = {"torch", "diffusers", "transformers", "pandas", "numpy", "submitit", "PIL", "omegaconf", "rich"}
    assert imported([verb, "--help"], heavy) == "[]"


@pytest.mark.parametrize("words", [["status"], ["report"], ["compare", "{run}"]])
def test_who_reads_a_run_needs_neither_torch_nor_submitit(words: list[str], finished_run: str) -> None:
    verb = [word.format(run=finished_run) for word in words]
    assert imported([*verb, finished_run], {"torch", "diffusers", "transformers", "submitit"}) == "[]"
