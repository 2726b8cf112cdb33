"""What is wrong with a model's folder is said in one line, before any GPU is asked for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from tiny_models import save_tiny_qwen_edit

from slurm_bench.checkpoints.folder import check_transformers_folder, count_parameters, read_tensors
from slurm_bench.editors.qwen import QwenImageEditor
from slurm_bench.editors.qwen.flops import floor_seconds, forward_flops
from slurm_bench.errors import UserError

PARAMS = {"dtype": "bfloat16", "profile": "exact"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_tiny_qwen_edit(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "model"))


def problem(folder, **params):
    with pytest.raises(UserError) as caught:
        QwenImageEditor(str(folder), **{**PARAMS, **params}).check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_json(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def into_shards(component, stem):
    """The component's weights as two files and an index, as large checkpoints come."""
    from safetensors.torch import load_file, save_file

    weights = load_file(component / f"{stem}.safetensors")
    (component / f"{stem}.safetensors").unlink()
    names = sorted(weights)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"{stem}-{number:05}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, component / file)
        weight_map |= dict.fromkeys(part, file)
    (component / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_a_sound_folder_passes_without_torch(folder):
    code = (
        "import sys; from slurm_bench.editors.qwen import QwenImageEditor as E\n"
        f"E({str(folder)!r}, profile='exact').check()\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_parameters_are_counted_from_headers(folder):
    from slurm_bench.editors.qwen.random_weights import random_pipeline

    expected = sum(p.numel() for p in random_pipeline().transformer.parameters())
    assert count_parameters(read_tensors(folder / "transformer")) == expected
    into_shards(folder / "transformer", "diffusion_pytorch_model")
    assert count_parameters(read_tensors(folder / "transformer")) == expected


def test_missing_parts(folder):
    assert "no folder" in problem(folder / "nowhere")
    into_shards(folder / "transformer", "diffusion_pytorch_model")
    shard = folder / "transformer" / "diffusion_pytorch_model-00002-of-00002.safetensors"
    shard.unlink()
    assert shard.name in problem(folder)
    shutil.rmtree(folder / "transformer")
    assert "'transformer' is missing" in problem(folder)
    (folder / "model_index.json").unlink()
    assert "model_index.json" in problem(folder)


def test_broken_weights(folder):
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert "cut off" in problem(folder)
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in problem(folder)
    weights.write_bytes(b"\x10\0\0\0\0\0\0\0" + b"not JSON, really.")
    assert "no safetensors" in problem(folder)
    weights.write_bytes(b"")
    assert weights.name in problem(folder)
    weights.unlink()
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(whole)
    assert "pickled" in problem(folder)


def test_foreign_code_and_classes(folder):
    edit_json(folder / "transformer" / "config.json", auto_map={"AutoModel": "mine.Model"})
    assert "own code" in problem(folder)
    edit_json(folder / "transformer" / "config.json", auto_map=None)
    edit_json(folder / "model_index.json", transformer=["mine", "Model"])
    assert "own code" in problem(folder)
    edit_json(folder / "model_index.json", _class_name="FluxPipeline", transformer=["diffusers", "X"])
    assert "DiffusersEditor" in problem(folder)


def test_lora_files(folder, tmp_path):
    assert "no safetensors" in problem(folder, lora=str(tmp_path / "x.pt"))
    assert "no file" in problem(folder, lora=str(tmp_path / "x.safetensors"))
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    assert "no LoRA" in problem(folder, lora=str(weights))


def test_too_small_a_gpu(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    monkeypatch.setenv("PATH", str(smi.parent), prepend=":")
    smi.write_text("#!/bin/sh\necho 'GPU-0, NVIDIA Tiny, 1024, 570.1, 9.0'\n")
    smi.chmod(0o755)
    assert "1 GiB" in problem(folder)
    smi.write_text("#!/bin/sh\necho 'GPU-0, NVIDIA H100 80GB HBM3, 81559, 570.1, 9.0'\n")
    QwenImageEditor(str(folder), **PARAMS).check()


def test_memory_needed_at_full_size():
    sizes = {"transformer": 40_860_802_176, "text_encoder": 16_584_333_312, "vae": 253_785_062}
    needed = QwenImageEditor("x", **PARAMS).settings.memory_needed(sizes)
    first = QwenImageEditor("x", **PARAMS, text_first=True).settings.memory_needed(sizes)
    assert 57e9 < needed < 80e9
    assert needed - first == sizes["text_encoder"]


def test_hub_ids(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert "can't be reached" in problem("some/model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in problem("some/model", revision="v2")
    assert "no hub id" in problem("a/b/c")

    cached = tmp_path / "models--some--model"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(saved, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "v2").write_text(commit)
    editor = QwenImageEditor("some/model", revision="v2", **PARAMS)
    editor.check()
    assert editor.provenance()["revision"] == commit
    assert "HF_HUB_OFFLINE" in problem("some/model", revision="v3")


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"dtype": "int8"}, "dtype"),
        ({"dtype": "float32", "profile": "fp8"}, "dtype"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"true_cfg_scale": 0.5}, "true_cfg_scale"),
        ({"max_pixels": 1}, "max_pixels"),
        ({"cache": {"threshold": 1}}, "threshold"),
        ({"profile": "stock", "text_first": True}, "text_first"),
    ],
)
def test_wrong_parameters_name_themselves(params, named):
    with pytest.raises(UserError, match=named):
        QwenImageEditor("x", **params)


def test_a_single_transformers_model(folder):
    assert check_transformers_folder(folder / "text_encoder").class_name == "Qwen2_5_VLForConditionalGeneration"
    edit_json(folder / "text_encoder" / "config.json", architectures=None)
    with pytest.raises(UserError, match="architectures"):
        check_transformers_folder(folder / "text_encoder")


def test_floor_of_a_forward():
    """198 TFLOP for source and edit of a megapixel with 1400 tokens of text: 258 ms at 769 TFLOP/s."""
    flops = forward_flops(4096 + 4096, 1400)
    assert flops.total == pytest.approx(198e12, rel=0.01)
    assert floor_seconds(flops, {"bf16": 769e12}, fp8=False) == pytest.approx(0.258, rel=0.01)
    assert floor_seconds(flops, {"bf16": 1.0, "fp8": 2.0}, fp8=True) == flops.total - flops.blocks / 2
