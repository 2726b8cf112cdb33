"""A model's folder is looked at, never run: what is missing or foreign in it is one line that names it."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from slurm_bench.checkpoints.folder import check_pipeline_folder, check_transformers_folder
from slurm_bench.checkpoints.hub import download_model, download_pipeline
from slurm_bench.errors import UserError
from slurm_bench.scorers.qwen3vl import Qwen3VLScorer

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
    (pipeline / "model_index.json").write_text(json.dumps({"_class_name": "P\nQ", "a": ["diffusers", "X"]}))
    assert "no '_class_name'" in problem(pipeline)
    (pipeline / "model_index.json").write_text(json.dumps({"_class_name": "P", "a\nb": ["diffusers", "X"]}))
    assert r"'a\nb' is missing" in problem(pipeline)


@pytest.mark.parametrize("weight_map", [None, {}, ["a"], {"w": 3}, {"w": "../vae/x.safetensors"}, {"w": "/dev/zero"}])
def test_an_index_of_shards_that_names_none_is_refused(pipeline: Path, weight_map: Any) -> None:
    index = pipeline / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert "download" in problem(pipeline)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"shape": shape} for shape in (None, ["x"], ["2", "3"], [2, 4], [-2, -3], [2, 3.0], [1e999])),
        *({"data_offsets": place} for place in (None, [0], [0, 20], [-24, 0], [8, 32], [0.0, 24.0])),
        {"dtype": ["F32"]},
        {"dtype": "F16"},
    ],
)
def test_a_header_that_does_not_tell_of_the_weights_is_refused(pipeline: Path, wrong: dict[str, Any]) -> None:
    write_weights(pipeline / "transformer" / "diffusion_pytorch_model.safetensors", {"w": {**TENSOR, **wrong}})
    assert "no safetensors file" in problem(pipeline)


@pytest.mark.parametrize("places", [([0, 16], [8, 24]), ([0, 8], [16, 24]), ([8, 16], [16, 24])])
def test_tensors_that_overlap_or_leave_gaps_are_refused(pipeline: Path, places: Any) -> None:
    tensors = {
        f"w{begin}": {**TENSOR, "shape": [end - begin >> 2], "data_offsets": [begin, end]} for begin, end in places
    }
    write_weights(pipeline / "transformer" / "diffusion_pytorch_model.safetensors", tensors)
    assert "no safetensors file" in problem(pipeline)


@pytest.mark.parametrize("header", [["w"], {"__metadata__": ["a"]}, {"__metadata__": {"a": 1}}, {}])
def test_a_header_of_another_form_is_refused(pipeline: Path, header: Any) -> None:
    write_weights(pipeline / "transformer" / "diffusion_pytorch_model.safetensors", header)
    assert "safetensors" in problem(pipeline)


def test_json_nested_beyond_reading_is_refused(pipeline: Path) -> None:
    nested, weights = b"[" * 10**5, pipeline / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(len(nested).to_bytes(8, "little") + nested)
    assert "no safetensors file" in problem(pipeline)
    (pipeline / "transformer" / "config.json").write_bytes(nested)
    assert "config.json: not JSON" in problem(pipeline)


def test_a_snapshot_of_the_hub_says_its_commit(pipeline: Path, tmp_path: Path) -> None:
    folder = tmp_path / "snapshots" / "0123abc"
    (tmp_path / "transformer").rename(tmp_path / "alone")
    folder.parent.mkdir()
    (tmp_path / "alone").rename(folder)
    (folder / "config.json").write_text(json.dumps({"architectures": ["SomeJudge"]}))
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "model.safetensors")
    found = check_transformers_folder(folder)
    assert (found.class_name, found.parameters, found.commit) == ("SomeJudge", {"": 6}, "0123abc")


PICKLED_OR_CODE = ("pytorch_model.bin", "model.pt", "model.ckpt", "weights.pkl", "modeling_own.py", "sub/own.py")


def test_a_model_that_is_not_cached_yet_is_downloaded_without_pickles_or_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def download(*_: Any, **words: Any) -> str:
        asked.update(words)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert download_model("owner/judge", "main") == tmp_path
    assert not [name for name in PICKLED_OR_CODE for pattern in asked["allow_patterns"] if fnmatch(name, pattern)]
    asked.clear()
    monkeypatch.setattr("diffusers.DiffusionPipeline.download", download)
    assert download_pipeline("owner/pipeline", None) == tmp_path
    assert asked["use_safetensors"] is True
    assert not asked.get("trust_remote_code")


def test_what_a_job_downloads_is_checked_like_what_was_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"architectures": ["Qwen3VLForConditionalGeneration"], "auto_map": {"AutoModel": "own.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(own))
    monkeypatch.setattr("slurm_bench.scorers.qwen3vl.scorer.locate", lambda *_, **__: None)
    monkeypatch.setattr("slurm_bench.scorers.qwen3vl.scorer.download_model", lambda *_: tmp_path)
    with pytest.raises(UserError, match="model's own code"):
        Qwen3VLScorer("owner/judge", device="cpu").load()
