"""From a model's folder (or the hub) to its parts on the device: safetensors straight to the GPU, no pickle, no
code of the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slurm_bench.checkpoints.lora import Lora, fit_lora, peft_config, read_lora
from slurm_bench.checkpoints.safetensors_header import TensorInfo
from slurm_bench.editors.qwen.profiles import WITH_OUTLIERS, in_fp8

LORA_KEY = "editor.params.lora"


@dataclass(frozen=True)
class Source:
    """Where the parts come from. `folder` is a folder on disk or a hub id."""

    folder: str
    revision: str | None
    dtype: str
    device: str


def load_transformer(source: Source) -> Any:
    from diffusers import QwenImageTransformer2DModel

    return _load(QwenImageTransformer2DModel, source, "transformer")


def load_text_encoder(source: Source) -> Any:
    from transformers import Qwen2_5_VLForConditionalGeneration

    return _load(Qwen2_5_VLForConditionalGeneration, source, "text_encoder")


def load_pipeline(source: Source, text_encoder: Any, transformer: Any) -> Any:
    """The pipeline around parts already loaded; None leaves a part out."""
    from diffusers import AutoencoderKLQwenImage, DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(
        source.folder,
        revision=source.revision,
        text_encoder=text_encoder,
        transformer=transformer,
        vae=_load(AutoencoderKLQwenImage, source, "vae"),
        use_safetensors=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _load(cls: Any, source: Source, subfolder: str) -> Any:
    import torch

    return cls.from_pretrained(
        source.folder,
        revision=source.revision,
        subfolder=subfolder,
        use_safetensors=True,
        device_map={"": source.device},
        dtype=getattr(torch, source.dtype),
    ).eval()


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
