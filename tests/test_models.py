"""A model's folder is looked at, never run: what is missing or foreign in it is one line that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slurm_bench.checkpoints.folder import check_pipeline_folder, check_transformers_folder
from slurm_bench.errors import UserError

TENSOR = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def write_weights(file: Path, header: Any) -> None:
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(24))


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A scheduler, a transformer of six parameters, an optional component left out, and a setting."""
    index = {
        "_class_name": "SomePipeline",
        "scheduler": ["diffusers", "SomeScheduler"],
        "transformer": ["diffusers", "SomeTransformer"],
        "safety_checker": [None, None],
        "needs_safety": False,
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("{}")
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text("{}")
    write_weights(tmp_path / "transformer" / "diffusion_pytorch_model.safetensors", {"w": TENSOR})
    return tmp_path


def problem(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        check_pipeline_folder(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_a_whole_pipeline_passes(pipeline: Path) -> None:
    found = check_pipeline_folder(pipeline)
    assert (found.class_name, found.parameters) == ("SomePipeline", {"transformer": 6})


@pytest.mark.parametrize("rest", [{}, {"vae": [None, None]}, {"vae": []}, {"vae": [1, 2]}, {"vae": ["diffusers"]}])
def test_an_index_that_names_no_component_is_no_model(pipeline: Path, rest: dict[str, Any]) -> None:
    (pipeline / "model_index.json").write_text(json.dumps({"_class_name": "SomePipeline", **rest}))
    said = problem(pipeline)
    assert "model_index.json: names no component" in said
    assert "download it again" in said


def test_a_components_folder_without_its_configuration_is_incomplete(pipeline: Path) -> None:
    (pipeline / "transformer" / "config.json").unlink()
    assert "'transformer' has no configuration" in problem(pipeline)
    (pipeline / "scheduler" / "scheduler_config.json").unlink()
    assert "'scheduler' has no configuration" in problem(pipeline)


def test_a_component_of_any_name_is_one_line(pipeline: Path) -> None:
    (pipeline / "model_index.json").write_text(json.dumps({"_class_name": "P", "a\nb": ["diffusers", "X"]}))
    assert r"'a\nb' is missing" in problem(pipeline)


@pytest.mark.parametrize("weight_map", [None, {}, ["a"], {"w": 3}])
def test_an_index_of_shards_that_names_none_is_refused(pipeline: Path, weight_map: Any) -> None:
    index = pipeline / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert "download" in problem(pipeline)


@pytest.mark.parametrize("tensor", [{**TENSOR, "shape": None}, {**TENSOR, "shape": ["x"]}, {"data_offsets": [0, 24]}])
def test_a_header_without_shapes_is_refused(pipeline: Path, tensor: dict[str, Any]) -> None:
    write_weights(pipeline / "transformer" / "diffusion_pytorch_model.safetensors", {"w": tensor})
    assert "no safetensors file" in problem(pipeline)


def test_a_snapshot_of_the_hub_says_its_commit(pipeline: Path, tmp_path: Path) -> None:
    folder = tmp_path / "snapshots" / "0123abc"
    (tmp_path / "transformer").rename(tmp_path / "alone")
    folder.parent.mkdir()
    (tmp_path / "alone").rename(folder)
    (folder / "config.json").write_text(json.dumps({"architectures": ["SomeJudge"]}))
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "model.safetensors")
    found = check_transformers_folder(folder)
    assert (found.class_name, found.parameters, found.commit) == ("SomeJudge", {"": 6}, "0123abc")
