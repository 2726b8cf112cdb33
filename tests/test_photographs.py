"""Once with real photographs, through JSONL, local slots, the Pillow editor and the image metrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import images, launch, rows, summary
from PIL import Image

WORDS = {
    "astronaut": "make it black and white",
    "chelsea": "mirror the image",
    "coffee": "make it night",
    "rocket": "make it snow",
}


def test_real_photographs_are_edited_and_scored(tmp_path: Path) -> None:
    skimage = pytest.importorskip("skimage.data")
    lines = []
    for n, (name, instruction) in enumerate(WORDS.items()):
        photo = Image.fromarray(getattr(skimage, name)())
        photo.save(tmp_path / f"{name}.{('jpg', 'png')[n % 2]}")
        line = {"key": name, "image": f"{name}.{('jpg', 'png')[n % 2]}", "edit": instruction, "kind": "physical"}
        lines.append(line)
    (tmp_path / "photos.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    fields = {"id": "key", "instruction": "edit", "category": "kind"}
    config = {
        "data": {"reader": "jsonl", "path": "photos.jsonl", "fields": fields},
        "editor": {"class_path": "slurm_bench.editors.pillow.PillowEditor"},
        "scorers": {"metrics": {"class_path": "slurm_bench.scorers.metrics.ReferenceMetrics"}},
    }
    (tmp_path / "photos.yaml").write_text(json.dumps(config))
    words = ("--config", tmp_path / "photos.yaml", "--run-dir", tmp_path / "run", "--executor", "local")
    done = launch(*words, "--gpus", 2)
    assert done.returncode == 0, done.stderr
    assert set(images(tmp_path / "run")) == set(WORDS)
    assert summary(tmp_path / "run")["counts"]["unchanged"] == 0
    assert all(float(row["changed"]) > 0.05 for row in rows(tmp_path / "run"))
    with Image.open(next((tmp_path / "run").glob("edit/images/*/astronaut*.png"))) as edited:
        assert edited.size == (512, 512)
