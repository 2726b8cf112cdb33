"""From a model's folder (or the hub) to its parts on the device: safetensors straight to the GPU, no pickle, no
code of the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm_bench.checkpoints.folder import read_safetensors_header
from slurm_bench.errors import UserError


@dataclass(frozen=True)
class Lora:
    path: Path
    scale: float = 1.0


@dataclass(frozen=True)
class Source:
    """Where the parts come from. `folder` is a folder on disk or a hub id."""

    folder: str
    revision: str | None
    dtype: str
    device: str


def loras(given: Any) -> list[Lora]:
    """The parameter `lora`: a path, {path, scale}, or a list of these. Raises UserError."""
    entries = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
    found = []
    for entry in entries:
        fields: dict[str, Any] = {"path": entry} if isinstance(entry, str | Path) else dict(entry)
        unknown = set(fields) - {"path", "scale"}
        if "path" not in fields or unknown:
            raise UserError(f"'editor.params.lora': {entry} is not {{path, scale}}")
        found.append(Lora(Path(fields["path"]).expanduser(), float(fields.get("scale", 1.0))))
    return found


def check_lora(lora: Lora) -> None:
    """Raises UserError if the file is missing, pickled, cut off, or holds no LoRA."""
    if lora.path.suffix != ".safetensors":
        raise UserError(f"'editor.params.lora': {lora.path} is no safetensors file; others are never loaded")
    if not lora.path.is_file():
        raise UserError(f"'editor.params.lora': no file {lora.path}")
    if not any("lora" in name for name in read_safetensors_header(lora.path)):
        raise UserError(f"'editor.params.lora': {lora.path} holds no LoRA weights")


def load_transformer(source: Source) -> Any:
    from diffusers import QwenImageTransformer2DModel

    return _load(QwenImageTransformer2DModel, source, "transformer", "torch_dtype")


def load_text_encoder(source: Source) -> Any:
    from transformers import Qwen2_5_VLForConditionalGeneration

    return _load(Qwen2_5_VLForConditionalGeneration, source, "text_encoder", "dtype")


def load_pipeline(source: Source, text_encoder: Any, transformer: Any) -> Any:
    """The pipeline around parts already loaded; None leaves a part out."""
    from diffusers import AutoencoderKLQwenImage, DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(
        source.folder,
        revision=source.revision,
        text_encoder=text_encoder,
        transformer=transformer,
        vae=_load(AutoencoderKLQwenImage, source, "vae", "torch_dtype"),
        use_safetensors=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _load(cls: Any, source: Source, subfolder: str, dtype_argument: str) -> Any:
    import torch

    return cls.from_pretrained(
        source.folder,
        revision=source.revision,
        subfolder=subfolder,
        use_safetensors=True,
        device_map={"": source.device},
        **{dtype_argument: getattr(torch, source.dtype)},
    ).eval()


def apply_loras(pipeline: Any, adapters: Sequence[Lora], fuse: bool) -> None:
    """`fuse` adds them to the weights, once and for all: no work left at each forward. Raises UserError."""
    from safetensors.torch import load_file

    if not adapters:
        return
    names = [f"lora_{index}" for index in range(len(adapters))]
    for name, lora in zip(names, adapters, strict=True):
        try:
            pipeline.load_lora_weights(load_file(lora.path), adapter_name=name)
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"'editor.params.lora': {lora.path} does not fit this model: {reason}") from error
    pipeline.set_adapters(names, [lora.scale for lora in adapters])
    if fuse:
        pipeline.fuse_lora(components=["transformer"], adapter_names=names)
        pipeline.unload_lora_weights()


def override_scheduler(pipeline: Any, overrides: dict[str, Any]) -> None:
    """Raises UserError for a field that the scheduler doesn't have."""
    if not overrides:
        return
    unknown = set(overrides) - set(pipeline.scheduler.config)
    if unknown:
        raise UserError(f"'editor.params.scheduler': the scheduler has no field '{sorted(unknown)[0]}'")
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, **overrides)


def check_schedule(scheduler: Any, steps: int) -> None:
    """A schedule stretched to a last value divides by the distance between its ends: one step has none."""
    if steps == 1 and scheduler.config.get("shift_terminal"):
        raise UserError(
            "'editor.params.num_inference_steps': 1 needs a schedule without shift_terminal; "
            "set editor.params.scheduler=lightning, or take 2 steps"
        )


def to_fp8(transformer: Any, keep_bf16: Sequence[str]) -> None:
    """Linears to 8 bits, in place, one by one: the peak of memory is what it was before."""
    from slurm_bench.editors.qwen.profiles import WITH_OUTLIERS, in_fp8
    from slurm_bench.kernels.fp8 import Fp8Linear, OutlierLinear

    for name in [name for name, _ in transformer.named_modules() if in_fp8(name, keep_bf16)]:
        parent, _, child = name.rpartition(".")
        linear = transformer.get_submodule(name)
        narrow = OutlierLinear(linear) if name.endswith(WITH_OUTLIERS) else Fp8Linear.of(linear)
        setattr(transformer.get_submodule(parent), child, narrow)
