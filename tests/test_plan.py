"""`plan` shows what `run` would do, refuses what it would refuse, and changes nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cluster import SlurmCluster
from helpers import REPO, launch, make_benchmark, make_config


def tree(*folders: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and time."""
    found = [path for folder in folders for path in (folder, *folder.rglob("*")) if path.exists()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def test_slices_categories_disk_and_forecast_and_nothing_is_written(tmp_path: Path, finished_run: str) -> None:
    config = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 12), gpus=3)
    before = tree(tmp_path, Path(finished_run), REPO / "runs")
    done = launch("plan", "--config", config, "--executor", "local", "--like", finished_run)
    assert done.returncode == 0, done.stderr
    for expected in ("edit-001  12 of 12", "idx % 3", "task 2: 4 samples, indices 2, 5, 8, 11", "physical: 3"):
        assert expected in done.stdout
    assert "GPU-hours" in done.stdout
    assert "GiB of images (as in that run)" in done.stdout
    again = launch("plan", "--run-dir", finished_run, "--executor", "local")
    assert "nothing is missing" in again.stdout, again.stderr
    assert tree(tmp_path, Path(finished_run), REPO / "runs") == before


def test_images_within_the_data_are_not_unpacked(tmp_path: Path) -> None:
    done = launch("plan", "--config", "demo.yaml", "--run-dir", tmp_path / "run", "--executor", "local")
    assert done.returncode == 0, done.stderr
    assert "25 of 25 samples" in done.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("editor.class_path=tests.plugins.Tnt", "Tint"),
        ("data.path=/nowhere.jsonl", "/nowhere.jsonl"),
        ("gpuss=3", "gpus"),
        ("editor.params.strength=2", "another configuration"),
    ],
)
def test_what_run_refuses_is_refused(tmp_path: Path, undisturbed: Path, bench: Path, word: str, said: str) -> None:
    config = make_config(tmp_path / "c.yaml", bench, gpus=1)
    where = undisturbed if "strength" in word else tmp_path / "run"
    done = launch("plan", "--config", config, "--run-dir", where, "--executor", "local", word)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_both_scripts_as_they_would_be_and_slurms_word_on_them(slurm: SlurmCluster, tmp_path: Path) -> None:
    config = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 12))
    words = ["--config", config, "--run-dir", tmp_path / "run", "--partition", "h100", "--gpus", 3, "--time", "7"]
    before = tree(tmp_path, REPO / "runs")
    planned = launch("plan", *words, "score_slurm.comment=judge", env=slurm.env)
    assert planned.returncode == 0, planned.stderr
    assert tree(tmp_path, REPO / "runs") == before
    assert slurm.squeue() == []
    assert "to start at" in planned.stdout
    refused = launch("plan", *words, "slurm.partition=nowhere", env=slurm.env)
    assert refused.returncode == 1
    assert "invalid partition" in refused.stderr

    assert launch(*words, "score_slurm.comment=judge", env=slurm.env).returncode == 0
    scripts = sorted((tmp_path / "run" / "logs" / "submitit").glob("*_submission.sh"))
    real = [script.read_text() for script in scripts if not script.is_symlink()]
    array, finish = (
        planned.stdout.split("---- array ----\n")[1].split("\n---- standby")[0].split("\n---- finish ----\n")
    )
    assert array.strip() in [text.strip() for text in real]
    known = [line for line in finish.strip().splitlines() if "--dependency" not in line]
    assert any(all(line in text for line in known) for text in real)
    assert subprocess.run(["bash", "-n"], input=array, text=True).returncode == 0
