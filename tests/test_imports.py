"""What must start at once imports nothing heavy; a Ctrl-C amid imports is one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import REPO

from slurm_bench import cli
from slurm_bench.cli import VERBS
from slurm_bench.errors import UserError

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


@pytest.mark.parametrize(("error", "code"), [(RuntimeError("half imported"), 130), (UserError("no such run"), 1)])
def test_a_ctrl_c_that_an_import_swallows_is_one_still(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    def act(_: object) -> int:
        with suppress(BaseException):  # as some packages have around what is optional to them
            signal.raise_signal(signal.SIGINT)
        raise error

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setitem(cli.VERBS, "status", replace(cli.VERBS["status"], act=act))
    try:
        assert cli.main(["status", "run"]) == code
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert ("interrupted" in capsys.readouterr().err) == (code == 130)


@pytest.mark.parametrize("door", [["launch.py"], ["-m", "slurm_bench"]])
def test_a_ctrl_c_while_the_tool_is_imported_ends_it_without_a_traceback(tmp_path: Path, door: list[str]) -> None:
    (tmp_path / "argparse.py").write_text("raise KeyboardInterrupt\n")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPO}"}
    done = subprocess.run([sys.executable, *door, "--help"], cwd=REPO, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_what_fails_without_a_ctrl_c_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def act(_: object) -> int:
        raise RuntimeError("a fault of ours")

    monkeypatch.setitem(cli.VERBS, "status", replace(cli.VERBS["status"], act=act))
    with pytest.raises(RuntimeError, match="ours"):
        cli.main(["status", "run"])
