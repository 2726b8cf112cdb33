"""What is installed from a wheel works without the checkout: configurations, rubrics, a way to start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import REPO, rows

# What lies in a checkout and isn't the source: bytecode, say, which other processes write while it is copied.
OTHERS = (".*", "__pycache__", "runs", "build", "*.egg-info", "core", "core.[0-9]*")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One in which `slurm_bench` is what a wheel of this checkout installs."""
    folder = tmp_path_factory.mktemp("install")
    source = folder / "source"
    shutil.copytree(REPO, source, symlinks=True, ignore=shutil.ignore_patterns(*OTHERS))
    build = "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(folder / "site"), str(wheel)], check=True)
    shutil.rmtree(source)
    return {**os.environ, "PYTHONPATH": str(folder / "site")}


def start(folder: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "slurm_bench", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def test_the_demo_runs_from_another_folder_by_its_name(tmp_path: Path, environment: dict[str, str]) -> None:
    done = start(tmp_path, environment, "--config", "demo.yaml", "--executor", "local", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "run")) == 25
    probe = "import slurm_bench; print(slurm_bench.__file__)"
    done = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert Path(done.stdout.strip()).is_relative_to(environment["PYTHONPATH"])


def test_the_rubrics_travel_along(tmp_path: Path, environment: dict[str, str]) -> None:
    probe = "from slurm_bench.scorers.judge.rubric import load_rubrics; print(len(load_rubrics().categories))"
    done = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert int(done.stdout) > 1, done.stderr


def test_printed_lines_can_be_typed_where_they_are_printed(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "launch.py").write_text("raise SystemExit('of another project')\n")
    probe = [sys.executable, "-c", "from slurm_bench.command import command; print(command('status', 'a run'))"]
    installed = subprocess.run(probe, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert installed.stdout == "python -m slurm_bench status 'a run'\n"
    checkout = subprocess.run(probe, cwd=REPO, capture_output=True, text=True)
    assert checkout.stdout == "python launch.py status 'a run'\n"
    by_path = [sys.executable, REPO / "launch.py", "explain", "--help"]
    done = subprocess.run(by_path, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith(f"usage: python {REPO}/launch.py explain "), "where it may not be installed"


def test_a_file_of_this_folder_comes_before_a_bundled_one(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "demo.yaml").write_text("gpu: 1\n")
    done = start(tmp_path, environment, "--config", "demo.yaml")
    assert done.returncode == 1
    assert "gpu" in done.stderr


def test_a_bundled_name_with_a_folder_is_that_folder_s(tmp_path: Path, environment: dict[str, str]) -> None:
    done = start(tmp_path, environment, "--config", "other/demo.yaml")
    assert done.returncode == 1
    assert "other/demo.yaml" in done.stderr
