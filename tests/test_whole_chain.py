"""Qwen-Image-Edit and Qwen3-VL, tiny and random, from their checkpoints through edit, score and report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cluster import SlurmCluster
from helpers import images, launch, rows, run_dir, summary
from tiny_judge import checkpoint
from tiny_models import save_tiny_qwen_edit

from slurm_bench.run.records import read_records

WORDS = ("--gpus", 2)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    # The test cluster's tasks are given GPUs that aren't there.
    model = {"dtype": "float32", "device": "cpu"}
    editor = model | {"num_inference_steps": 2, "max_pixels": 96 * 96, "profile": "exact"}
    editor["model_name"] = str(save_tiny_qwen_edit(folder / "edit"))
    judge = model | {"model_name": str(checkpoint()), "min_mass": 0.0, "max_pixels": 128 * 128}
    settings: dict[str, Any] = {
        "data": {"reader": "demo", "limit": 2},
        "editor": {"class_path": "slurm_bench.editors.qwen.QwenImageEditor", "params": editor},
        "scorers": {"judge": {"class_path": "slurm_bench.scorers.qwen3vl.Qwen3VLScorer", "params": judge}},
    }
    (folder / "c.yaml").write_text(json.dumps(settings))
    return folder / "c.yaml"


@pytest.fixture(scope="module")
def debug_run(config: Path) -> Path:
    root = config.parent / "debug"
    done = launch("--config", config, "--run-dir", root, "--executor", "debug", *WORDS)
    assert done.returncode == 0, done.stderr
    return root


def scores(root: Path) -> list[float]:
    return [float(row["overall"]) for row in rows(root)]


def test_what_the_records_say(debug_run: Path) -> None:
    for record in read_records(run_dir(debug_run), "edit"):
        info = record["info"]
        assert (info["forwards"], info["guidance"], info["steps"], info["profile"]) == (4, True, 2, "exact")
        assert {"text", "denoise", "decode", "encode"} <= info["seconds"].keys()
        assert (record["width"], record["height"]) == (info["width"], info["height"])
    for record in read_records(run_dir(debug_run), "score"):
        assert 0 <= record["scores"]["overall"] <= 10
        assert "mass" in record["info"]
    provenance = json.loads((debug_run / "provenance.json").read_text())
    assert provenance["models"]["editor"]["class"] == "QwenImageEditPipeline"
    assert summary(debug_run)["headline"] == "overall"


def test_local_slots_give_the_same(config: Path, debug_run: Path, tmp_path: Path) -> None:
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local", *WORDS)
    assert done.returncode == 0, done.stderr
    assert images(tmp_path / "run") == images(debug_run)
    assert scores(tmp_path / "run") == pytest.approx(scores(debug_run), abs=1e-4)


def test_the_cluster_gives_the_same(slurm: SlurmCluster, config: Path, debug_run: Path, tmp_path: Path) -> None:
    words = ("--config", config, "--run-dir", tmp_path / "run", "--wait", "--partition", "h100", *WORDS)
    done = launch(*words, env=slurm.env)
    assert done.returncode == 0, done.stderr
    assert images(tmp_path / "run") == images(debug_run)
    assert scores(tmp_path / "run") == pytest.approx(scores(debug_run), abs=1e-4)


def test_a_checkpoint_that_lacks_a_file_is_refused_before_anything_is_submitted(config: Path, tmp_path: Path) -> None:
    shutil.copytree(config.parent / "edit", tmp_path / "model")
    (weights,) = (tmp_path / "model" / "transformer").glob("*.safetensors")
    weights.unlink()
    words = ("--config", config, "--run-dir", tmp_path / "run", "--executor", "local")
    done = launch(*words, f"editor.params.model_name={tmp_path / 'model'}")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "transformer" in done.stderr
    assert not (tmp_path / "run").exists()
