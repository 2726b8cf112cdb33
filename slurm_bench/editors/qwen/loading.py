"""From a model's folder to its components on the device: safetensors streamed to the GPU, no pickle, no code of the
model's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm_bench import marks
from slurm_bench.checkpoints.lora import Lora, fit_lora, peft_config, read_lora
from slurm_bench.checkpoints.place import diffusers_model, transformers_model
from slurm_bench.checkpoints.safetensors_header import TensorInfo
from slurm_bench.checkpoints.stream import WeightStream
from slurm_bench.editors.qwen.profiles import WITH_OUTLIERS, Profile, in_fp8
from slurm_bench.editors.qwen.warm_up import warm_up

LORA_KEY = "editor.params.lora"
COMPONENTS = ("text_encoder", "transformer", "vae")  # those with weights, in the order in which they are needed


@dataclass(frozen=True)
class Source:
    """Where the components come from, and where they go."""

    folder: Path
    dtype: str
    device: str


def load_components(source: Source, names: Sequence[str]) -> dict[str, Any]:
    """Of COMPONENTS those with these `names`. Their weights are on the way while the code is imported."""
    import torch

    with WeightStream(source.device) as stream:
        for name in names:
            stream.begin(source.folder / name)
        with marks.part("import diffusers, transformers"):
            from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
            from transformers import Qwen2_5_VLForConditionalGeneration
        builders: dict[str, tuple[Any, Any]] = {
            "text_encoder": (transformers_model, Qwen2_5_VLForConditionalGeneration),
            "transformer": (diffusers_model, QwenImageTransformer2DModel),
            "vae": (diffusers_model, AutoencoderKLQwenImage),
        }
        components = {}
        for name in names:
            build, cls = builders[name]
            folder = source.folder / name
            with marks.part(f"await {name}"):
                tensors = stream.take(folder)
            with marks.part(f"build {name}"):
                components[name] = build(cls, folder, tensors, getattr(torch, source.dtype), source.device)
        return components


def load_pipeline(source: Source, profile: Profile, text_first: bool) -> Any:
    """The pipeline on the device; with `text_first`, still without its transformer."""
    with warm_up(source.device, profile):
        components = load_components(source, [name for name in COMPONENTS if name != "transformer" or not text_first])
        from diffusers import DiffusionPipeline

        pipeline = DiffusionPipeline.from_pretrained(source.folder, **{"transformer": None, **components})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def apply_loras(pipeline: Any, adapters: Sequence[Lora], fuse: bool) -> None:
    """`fuse` adds them to the weights, once and for all, which leaves nothing to do in a forward. Raises UserError for
    a file that doesn't fit in all its layers."""
    from safetensors.torch import load_file

    if not adapters:
        return
    transformer = getattr(pipeline, "transformer", None) or pipeline.unet
    tensors = {name: TensorInfo("", tuple(p.shape)) for name, p in transformer.named_parameters()}
    names = [f"lora_{index}" for index in range(len(adapters))]
    for name, adapter in zip(names, adapters, strict=True):
        layers = fit_lora(read_lora(adapter.path, LORA_KEY), tensors, LORA_KEY).layers
        weights = load_file(adapter.path)
        factors = {f"{layer.module}.lora_A.weight": weights[layer.down] for layer in layers}
        factors |= {f"{layer.module}.lora_B.weight": weights[layer.up] for layer in layers}
        config = peft_config(layers)
        transformer.load_lora_adapter(factors, prefix=None, adapter_name=name, metadata=config, low_cpu_mem_usage=True)
    transformer.set_adapters(names, [adapter.scale for adapter in adapters])
    if fuse:
        transformer.fuse_lora(adapter_names=names)
        transformer.unload_lora()


def to_fp8(transformer: Any, keep_bf16: Sequence[str]) -> None:
    """Linear layers to 8 bits, in place, one by one: the peak of memory stays what it was."""
    from slurm_bench.kernels.fp8 import Fp8Linear, OutlierLinear

    for name in [name for name, _ in transformer.named_modules() if in_fp8(name, keep_bf16)]:
        parent, _, child = name.rpartition(".")
        linear = transformer.get_submodule(name)
        narrow = OutlierLinear(linear) if name.endswith(WITH_OUTLIERS) else Fp8Linear.of(linear)
        setattr(transformer.get_submodule(parent), child, narrow)
