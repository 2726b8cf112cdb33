"""What is wrong with a model's folder is said in one line, before any GPU is asked for."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_qwen_edit

from slurm_bench.checkpoints.folder import (
    ModelFolder,
    check_pipeline_folder,
    check_transformers_folder,
    count_parameters,
    read_tensors,
)
from slurm_bench.checkpoints.safetensors_header import TensorInfo
from slurm_bench.editors.qwen import QwenImageEditor, base_editor
from slurm_bench.editors.qwen.fit import choose_fit, ways_to_fit
from slurm_bench.editors.qwen.flops import floor_seconds, forward_flops
from slurm_bench.editors.qwen.profiles import PROFILES
from slurm_bench.errors import UserError
from slurm_bench.machine import Gpu

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


def test_shards_that_are_not_those_of_their_index_are_refused_before_a_load(folder):
    component = folder / "transformer"
    into_shards(component, "diffusion_pytorch_model")
    shard = component / "diffusion_pytorch_model-00002-of-00002.safetensors"
    weights = load_file(shard)
    lost = next(name for name in weights if name.startswith("transformer_blocks.0."))
    save_file({name: tensor for name, tensor in weights.items() if name != lost}, shard)
    assert f"{shard}: lacks '{lost}', which the index names" in problem(folder)


def test_an_index_may_name_a_tensor_that_is_tied_to_another(folder):
    component = folder / "text_encoder"
    into_shards(component, "model")
    index = component / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {"shared.weight": min(weight_map.values()), **weight_map}}))
    QwenImageEditor(str(folder), **PARAMS).check()


def test_an_index_without_a_needed_part(folder):
    edit_json(folder / "model_index.json", transformer=[None, None])
    assert "no transformer" in problem(folder)


@pytest.mark.parametrize("params", [{"profile": "fp8"}, {"profile": None, "text_first": True}])
def test_what_a_cpu_cannot_do_is_refused_before_a_load(folder, params):
    assert "editor.params.profile" in problem(folder, device="cpu", **params)


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


@pytest.mark.parametrize("component", ["transformer", "text_encoder"])
def test_quantized_weights_are_refused_before_a_load(folder, component):
    edit_json(folder / component / "config.json", quantization_config={"quant_method": "fp8"})
    assert "quantization_config" in problem(folder)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}, "scales beside"),
        ({"img_in.weight_scale": torch.ones(())}, "scales beside"),
        ({"img_in.weight": torch.zeros(4, 4, dtype=torch.int8)}, "packed as I8"),
        ({}, ""),
    ],
)
def test_8_bit_weights_with_scales_beside_them_are_refused(folder, extra, said):
    weights = {"img_in.weight": torch.zeros(4, 4).to(torch.float8_e4m3fn), **extra}
    save_file(weights, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    if said:
        assert said in problem(folder)
    else:
        QwenImageEditor(str(folder), **PARAMS).check()


def test_memory_is_counted_as_it_will_be_loaded(folder):
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({"a": torch.zeros(8), "b": torch.zeros(8).half(), "ids": torch.zeros(8, dtype=torch.int64)}, file)
    sizes = check_pipeline_folder(folder)
    assert sizes.bytes_in("bfloat16")["transformer"] == 16 + 16 + 64
    assert sizes.bytes_in("float32")["transformer"] == 32 + 32 + 64


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stochastic_sampling": True}, "stochastic_sampling"),
        ({"_class_name": "FlowMatchLCMScheduler"}, "FlowMatchLCMScheduler"),
    ],
)
def test_a_scheduler_whose_noise_does_not_follow_the_seed_is_refused(folder, fields, said):
    edit_json(folder / "scheduler" / "scheduler_config.json", **fields)
    assert said in problem(folder)


@pytest.mark.parametrize(
    "scheduler", [{"stochastic_sampling": True}, {"shift": "much"}, {"use_dynamic_shifting": 1}, {"basis_shift": 1}]
)
def test_a_scheduler_field_is_checked_before_any_gpu(folder, scheduler):
    assert "editor.params.scheduler" in problem(folder, scheduler=scheduler)


def test_a_gpu_too_small_for_anything_is_told_what_the_least_would_be(folder, tmp_path, monkeypatch):
    a_small_gpu(tmp_path, monkeypatch)
    said = problem(folder)
    assert "text_first and offload_modulation" in said
    assert "profile=w8a16" in said
    assert "profile=w8a16 needs" in problem(folder, profile="w8a16")
    assert "or try" not in problem(folder, profile="w8a16")
    assert "text_first" not in problem(folder, profile="stock")


def a_small_gpu(tmp_path, monkeypatch):
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho 'GPU-0, NVIDIA Tiny, 1024, 570.1, 9.0'\n")
    smi.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(smi.parent), prepend=":")
    return smi


def test_too_small_a_gpu(folder, tmp_path, monkeypatch):
    smi = a_small_gpu(tmp_path, monkeypatch)
    assert "1 GiB" in problem(folder)
    smi.write_text("#!/bin/sh\necho 'GPU-0, NVIDIA H100 80GB HBM3, 81559, 570.1, 9.0'\n")
    QwenImageEditor(str(folder), **PARAMS).check()


@pytest.fixture(scope="module")
def full_size():
    """The published model by its tensors' shapes."""
    from diffusers import QwenImageTransformer2DModel

    with torch.device("meta"):
        transformer = QwenImageTransformer2DModel()
    tensors = {name: TensorInfo("BF16", tuple(p.shape)) for name, p in transformer.named_parameters()}
    rest = {
        "text_encoder": {"w": TensorInfo("BF16", (8_292_166_656,))},
        "vae": {"w": TensorInfo("BF16", (126_892_531,))},
    }
    return ModelFolder(Path("x"), "QwenImageEditPipeline", {"transformer": tensors, **rest})


def ways(folder, **params):
    settings = QwenImageEditor("x", **{**PARAMS, **params}).settings
    return ways_to_fit(folder, settings, settings.profile_on(cuda=True))


def test_memory_needed_at_full_size(full_size):
    asked, first, leanest, *streamed = (way.needed for way in ways(full_size))
    assert 57e9 < asked < 80e9
    assert asked - first == 2 * 8_292_166_656
    assert first - leanest == pytest.approx(13.6e9, rel=0.01)
    assert streamed == sorted(streamed, reverse=True)
    assert len(streamed) == 60 - 2, "of fewer blocks than the GPU has buffers for, none is spared"
    assert leanest - streamed[0] == pytest.approx(453e6, rel=0.01), "three wait, two are there"
    assert len(ways(full_size, profile="stock")) == 1


@pytest.mark.parametrize(
    ("profile", "gib", "savings"),
    [
        ("exact", 80, ()),
        ("exact", 48, ("text_first",)),
        ("exact", 40, ("text_first", "offload_modulation")),
        ("exact", 32, ("text_first", "offload_modulation")),
        ("exact", 30, ("text_first", "offload_modulation", "stream_blocks=6")),
        ("exact", 22, ("text_first", "offload_modulation", "stream_blocks=25")),
        ("exact", 16, None),
        ("fp8", 32, ("text_first", "offload_modulation")),
        ("fp8", 22, ("text_first", "offload_modulation")),
        ("w8a16", 80, ()),
        ("w8a16", 40, ("text_first",)),
        ("w8a16", 22, ("text_first", "offload_modulation")),
        ("w8a16", 16, None),
    ],
)
def test_what_fits_a_gpu_is_picked(full_size, profile, gib, savings):
    settings = QwenImageEditor("x", profile=profile).settings
    gpu = Gpu("a GPU", gib * 2**30, (8, 9))
    if savings is None:
        with pytest.raises(UserError, match="a GPU has"):
            choose_fit(full_size, settings, PROFILES[profile], gpu)
        return
    fit = choose_fit(full_size, settings, PROFILES[profile], gpu)
    assert fit.settings.savings == savings
    assert fit.needed <= gpu.memory
    assert fit.from_host == (profile == "w8a16" or "offload_modulation" in savings)


@pytest.mark.parametrize(
    ("gib", "params", "takes_over"),
    [(80, {}, True), (48, {}, False), (80, {"text_first": True}, False), (None, {"device": "cpu"}, True)],
)
def test_what_is_picked_is_known_before_a_load(full_size, monkeypatch, gib, params, takes_over):
    gpu = gib and Gpu("a GPU", gib * 2**30, (9, 0))
    monkeypatch.setattr(base_editor, "visible_gpu", lambda: gpu)
    editor = QwenImageEditor("x", **params)
    monkeypatch.setattr(editor, "_find", lambda: full_size)
    assert editor.takes_over == takes_over


@pytest.mark.parametrize(
    ("params", "streams"),
    [({}, True), ({"profile": "w8a16"}, False), ({"text_first": True, "stream_blocks": 2}, False)],
)
def test_a_transformer_that_passes_through_the_host_needs_a_turn(saved, params, streams):
    """On a node whose tasks all did so at once, the host's memory would have to hold as many."""
    assert QwenImageEditor(str(saved), **{**PARAMS, **params}).streams() == streams


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
        ({"max_pixels": 10**8}, "max_pixels"),
        ({"cache": {"threshold": 1}}, "threshold"),
        ({"profile": "stock", "text_first": True}, "text_first"),
        ({"true_cfg_scale": float("nan")}, "true_cfg_scale"),
        ({"cache": {"residual_diff_threshold": "half"}}, "residual_diff_threshold"),
        ({"cache": {"mask_policy": "quick"}}, "mask_policy"),
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


def test_the_editor_tells_the_types_of_its_parameters():
    """Plug-ins' params are checked by the signature's annotations, before the editor is made."""
    parameters = inspect.signature(QwenImageEditor).parameters
    assert {name: p.annotation for name, p in parameters.items() if p.annotation in (int, float, bool)} == {
        **dict.fromkeys(["num_inference_steps", "max_pixels", "stream_blocks"], int),
        **dict.fromkeys(["text_first", "offload_modulation"], bool),
        "true_cfg_scale": float,
    }
    assert not any(isinstance(p.annotation, str) for p in parameters.values())
