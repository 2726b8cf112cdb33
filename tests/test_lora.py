"""A LoRA is applied whole and at the strength that its file says, or refused by its header."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import ModelMixin
from diffusers.loaders import PeftAdapterMixin
from safetensors.torch import save_file
from tiny_models import save_tiny_qwen_edit

from slurm_bench.checkpoints.lora import Lora, read_lora, read_lora_params
from slurm_bench.editors.qwen import QwenImageEditor
from slurm_bench.editors.qwen.loading import apply_loras
from slurm_bench.editors.qwen.random_weights import random_pipeline
from slurm_bench.errors import UserError

torch.set_num_threads(2)
TO_Q = "transformer_blocks.0.attn.to_q"
TO_K = "transformer_blocks.1.attn.to_k"


def factors(rank: int = 2, out: int = 32, inner: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """(down, up)"""
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(rank, inner, generator=generator), torch.randn(out, rank, generator=generator)


def named(module: str = TO_Q, down: str = "lora_A.weight", up: str = "lora_B.weight", rank: int = 2) -> dict[str, Any]:
    values = factors(rank)
    return {f"{module}.{down}": values[0], f"{module}.{up}": values[1]}


def diffusers_metadata(**config: Any) -> dict[str, str]:
    return {"lora_adapter_metadata": json.dumps({f"transformer.{name}": value for name, value in config.items()})}


@pytest.fixture(scope="module")
def transformer() -> Any:
    return random_pipeline().transformer


def applied(transformer: Any, path: Path, module: str = TO_Q, rank: int = 2, scale: float = 1.0) -> float:
    """How many times up @ down was added to the weight of a module."""
    pipeline = SimpleNamespace(transformer=copy.deepcopy(transformer))
    apply_loras(pipeline, [Lora(path, scale)], fuse=True)
    change = pipeline.transformer.get_submodule(module).weight - transformer.get_submodule(module).weight
    down, up = factors(rank)
    times = float((change * (up @ down)).sum() / (up @ down).pow(2).sum())
    assert torch.allclose(change, times * (up @ down), atol=1e-5)
    return times


@pytest.mark.parametrize(
    ("tensors", "metadata", "expected"),
    [
        ({}, None, 1.0),
        ({}, diffusers_metadata(r=2, lora_alpha=1), 0.5),
        ({}, diffusers_metadata(lora_alpha=1, use_rslora=True), 1 / 2**0.5),
        ({}, diffusers_metadata(lora_alpha=1, alpha_pattern={"attn.to_q": 8}), 4.0),
        ({}, diffusers_metadata(lora_alpha=1, alpha_pattern={"attn.to_k": 8}), 0.5),
        ({}, diffusers_metadata(lora_alpha=1, alpha_pattern={r"^transformer_blocks\.0\.attn\.to_q": 8}), 4.0),
        ({}, diffusers_metadata(lora_alpha=1, alpha_pattern={"o_q": 8}), 0.5),
        ({}, diffusers_metadata(lora_alpha=1, alpha_pattern={"attn.to": 8}), 0.5),
        ({}, {"lora_adapter_metadata": '{"transformer.lora_alpha": 1, "text_encoder.lora_alpha": 7}'}, 0.5),
        ({}, {"lora_adapter_metadata": '{"r": 2, "lora_alpha": 1}'}, 0.5),
        ({}, {"ss_network_alpha": "1.0", "ss_network_dim": "2"}, 0.5),
        ({}, {**diffusers_metadata(lora_alpha=1), "ss_network_alpha": "7"}, 0.5),
        ({}, {"lora_alpha": "1"}, 0.5),
        ({}, {"alpha": "1"}, 0.5),
        ({}, {"network_alpha": "1"}, 0.5),
        ({f"{TO_Q}.alpha": torch.tensor(1.0)}, None, 0.5),
        ({f"{TO_Q}.alpha": torch.tensor(3.0, dtype=torch.bfloat16)}, None, 1.5),
        *(
            ({f"{TO_Q}.alpha": torch.tensor(3, dtype=dtype)}, None, 1.5)
            for dtype in (torch.float64, torch.float16, torch.int64, torch.int32)
        ),
        ({f"{TO_Q}.alpha": torch.tensor([[1.0]])}, None, 0.5),
        ({f"{TO_Q}.alpha": torch.tensor(1.0)}, {"ss_network_alpha": "7"}, 0.5),
        ({f"{TO_Q}.alpha": torch.tensor(1.0)}, diffusers_metadata(lora_alpha=1, use_rslora=True), 0.5),
    ],
)
def test_alpha_is_honoured_wherever_the_file_says_it(transformer, tmp_path, tensors, metadata, expected) -> None:
    save_file({**named(), **tensors}, tmp_path / "l.safetensors", metadata)
    assert applied(transformer, tmp_path / "l.safetensors") == pytest.approx(expected, abs=1e-5)
    assert applied(transformer, tmp_path / "l.safetensors", scale=0.5) == pytest.approx(expected / 2, abs=1e-5)


@pytest.mark.parametrize(
    ("module", "down", "up"),
    [
        (f"transformer.{TO_Q}", "lora_A.weight", "lora_B.weight"),
        (f"diffusion_model.{TO_Q}", "lora_A.weight", "lora_B.weight"),
        (TO_Q, "lora_A.default.weight", "lora_B.default.weight"),
        (TO_Q, "lora_down.weight", "lora_up.weight"),
        (TO_Q, "lora.down.weight", "lora.up.weight"),
        (f"lora_unet_{TO_Q.replace('.', '_')}", "lora_down.weight", "lora_up.weight"),
        (f"lora_transformer_{TO_Q.replace('.', '_')}", "lora_down.weight", "lora_up.weight"),
        (f"model.diffusion_model.{TO_Q}", "lora_A.weight", "lora_B.weight"),
        (f"unet.{TO_Q}", "lora_A.weight", "lora_B.weight"),
    ],
)
def test_every_trainers_names_are_understood(transformer, tmp_path, module, down, up) -> None:
    save_file(named(module, down, up), tmp_path / "l.safetensors")
    assert applied(transformer, tmp_path / "l.safetensors") == pytest.approx(1)


def test_pefts_own_names_need_pefts_configuration(transformer, tmp_path) -> None:
    save_file(named(f"base_model.model.{TO_Q}"), tmp_path / "l.safetensors")
    with pytest.raises(UserError, match=r"adapter_config\.json"):
        applied(transformer, tmp_path / "l.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 1}))
    assert applied(transformer, tmp_path / "l.safetensors") == pytest.approx(0.5)
    for other in ({"peft_type": "LOHA"}, {"peft_type": "LORA", "lora_alpha": 1, "use_dora": True}):
        (tmp_path / "adapter_config.json").write_text(json.dumps(other))
        with pytest.raises(UserError, match="no plain LoRA"):
            applied(transformer, tmp_path / "l.safetensors")
    save_file(named(f"base_model.model.{TO_Q}"), tmp_path / "l.safetensors", {"lora_alpha": "4"})
    assert applied(transformer, tmp_path / "l.safetensors") == pytest.approx(2), "the file's own word goes first"


def test_layers_of_several_ranks_and_alphas_keep_each_its_own(transformer, tmp_path) -> None:
    weights = {**named(TO_Q, rank=2), **named(TO_K, rank=4), f"{TO_K}.alpha": torch.tensor(1.0)}
    save_file(weights, tmp_path / "l.safetensors")
    assert applied(transformer, tmp_path / "l.safetensors", TO_Q, 2) == pytest.approx(1)
    assert applied(transformer, tmp_path / "l.safetensors", TO_K, 4) == pytest.approx(0.25)


@pytest.mark.parametrize("pixel", [(), (1, 1)])
def test_a_pixels_dimensions_may_be_written_or_not(transformer, tmp_path, pixel) -> None:
    save_file(
        {name: value.reshape(*value.shape, *pixel) for name, value in named().items()}, tmp_path / "l.safetensors"
    )
    assert applied(transformer, tmp_path / "l.safetensors") == pytest.approx(1)
    conv = torch.nn.Conv2d(32, 32, 1)
    model = SimpleNamespace(transformer=type("Model", (ModelMixin, PeftAdapterMixin), {})())
    model.transformer.conv, before = conv, conv.weight.detach().clone()
    save_file({name: v.reshape(*v.shape, *pixel) for name, v in named("conv").items()}, tmp_path / "l.safetensors")
    apply_loras(model, [Lora(tmp_path / "l.safetensors")], fuse=True)
    down, up = factors()
    assert torch.allclose((model.transformer.conv.weight - before)[..., 0, 0], up @ down, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_a_name_from_its_beginning_on_is_no_other_layers_end(tmp_path, prefix) -> None:
    """Whatever stands before it in the file."""
    model = SimpleNamespace(transformer=type("Model", (ModelMixin, PeftAdapterMixin), {})())
    model.transformer.inner = torch.nn.ModuleDict({"proj": torch.nn.Linear(32, 32)})
    model.transformer.proj = torch.nn.Linear(32, 32)
    layers = {name: model.transformer.get_submodule(name) for name in ("inner.proj", "proj")}
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    path, metadata = tmp_path / "l.safetensors", diffusers_metadata(lora_alpha=2, alpha_pattern={"^proj": 1})
    save_file({**named(f"{prefix}inner.proj"), **named(f"{prefix}proj")}, path, metadata)
    apply_loras(model, [Lora(path)], fuse=True)
    down, up = factors()
    for name, times in (("inner.proj", 1), ("proj", 0.5)):
        change = model.transformer.get_submodule(name).weight - before[name]
        assert torch.allclose(change, times * (up @ down), atol=1e-5), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_qwen_edit(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({f"{TO_Q}.lora_magnitude_vector": torch.ones(32)}, "DoRA"),
        ({f"{TO_Q}.dora_scale": torch.ones(32, 1)}, "DoRA"),
        ({f"{TO_K}.lokr_w1": torch.ones(2, 2), f"{TO_K}.lokr_w2": torch.ones(16, 16)}, "LoKr"),
        ({f"{TO_K}.hada_w1_a": torch.ones(32, 2)}, "LoHa"),
        ({f"{TO_Q}.lora_B.bias": torch.ones(32)}, "bias"),
        ({f"{TO_Q}.diff_b": torch.ones(32)}, "full weights"),
        ({"transformer_blocks.0.attn.norm_q.weight": torch.ones(16)}, "norm_q"),
        (named("transformer_blocks.7.attn.to_q"), r"no layer transformer_blocks\.7"),
        (named("text_encoder.model.layers.0.self_attn.q_proj"), "no layer text_encoder"),
        (named("transformer_blocks.0.img_mlp.net.2"), "img_mlp"),
        ({f"{TO_K}.lora_A.weight": torch.ones(2, 32)}, "no lora_B"),
        ({f"{TO_K}.lora_B.weight": torch.ones(32, 2)}, "no lora_A"),
        ({f"{TO_K}.lora_A.weight": torch.ones(0, 32), f"{TO_K}.lora_B.weight": torch.ones(32, 0)}, "multiplied"),
        ({f"{TO_K}.lora_A.weight": torch.ones(2, 32), f"{TO_K}.lora_B.weight": torch.ones(2)}, "multiplied"),
        ({f"{TO_K}.lora_A.weight": torch.ones(2), f"{TO_K}.lora_B.weight": torch.ones(32, 2)}, "multiplied"),
        ({f"{TO_K}.lora_A.weight": torch.ones(2, 32), f"{TO_K}.lora_B.weight": torch.ones(32, 3)}, "multiplied"),
        (named(f"transformer.{TO_Q}"), "2 adapters"),
        (named(TO_Q, "lora_A.second.weight", "lora_B.second.weight"), "two adapters"),
        *(
            ({f"{TO_Q}.alpha": alpha}, "alpha of .* is no number")
            for alpha in (torch.tensor(float("nan")), torch.ones(2), torch.tensor(1, dtype=torch.int8))
        ),
        ({f"{TO_K}.lora_A.weight": torch.ones(2, 32), f"{TO_K}.lora_B.weight": torch.ones(32, 2, 7)}, "does not fit"),
        ({name: value.to(torch.int8) for name, value in named(TO_K).items()}, "are I8, no floating-point"),
    ],
)
def test_what_would_be_left_out_is_refused_before_any_gpu(folder, tmp_path, tensors, said) -> None:
    path = tmp_path / "l.safetensors"
    save_file({**named(), **tensors}, path)
    with pytest.raises(UserError, match=said) as caught:
        QwenImageEditor(str(folder), profile="exact", lora=str(path)).check()
    assert str(path) in str(caught.value)
    assert "'editor.params.lora'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("metadata", ["{", "[1]", '{"lora_alpha": [1]}', f'{{"lora_alpha": {"9" * 400}}}'])
def test_metadata_that_cannot_be_read_is_refused(tmp_path, metadata) -> None:
    save_file(named(), tmp_path / "l.safetensors", {"lora_adapter_metadata": metadata})
    with pytest.raises(UserError, match=r"^'editor\.params\.lora': .*l\.safetensors: .*(can't be read|is no number)"):
        read_lora(tmp_path / "l.safetensors", "editor.params.lora")


@pytest.mark.parametrize("given", [3, {"file": "x"}, {"path": 3}, ["x", {"path": "y", "scale": "much"}], [["x"]]])
def test_a_parameter_of_another_form_is_refused(given: Any) -> None:
    with pytest.raises(UserError, match=r"'editor\.params\.lora'"):
        read_lora_params(given, "editor.params.lora")


def test_provenance_says_what_was_applied(folder, tmp_path) -> None:
    path = tmp_path / "l.safetensors"
    save_file({**named(TO_Q, rank=2), **named(TO_K, rank=4)}, path, {"ss_network_alpha": "2"})
    editor = QwenImageEditor(str(folder), profile="exact", lora={"path": str(path), "scale": 0.8})
    editor.check()
    assert editor.provenance()["lora"] == [
        {
            "path": str(path),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "scale": 0.8,
            "rank": [2, 4],
            "alpha": 2.0,
            "layers": 2,
        }
    ]
