"""What of the judge is on a GPU at once: its weights, in 8 bits where that is asked for, and what the prompts that it
works on at once take. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from slurm_bench.checkpoints.folder import Tensors, bytes_of
from slurm_bench.machine import DTYPE_BYTES, GIB, Gpu

# As the editors' profiles are called: weights as they are; or in 8 bits, of the language model's layers, products and
# all, or the weights alone.
EXACT, FP8, W8A16 = "exact", "fp8", "w8a16"
PROFILES = (EXACT, FP8, W8A16)

# Samples that are judged at once: a judge that isn't to write is asked about each aspect in a prompt of its own.
MICRO_BATCH = {"expected": 8, "generate": 16}

# Of two images of a megapixel: activations, and what is kept of a prompt that is written to, without the reply. Eight
# prompts took 4 GiB.
_PROMPT = {"expected": GIB // 2, "generate": GIB}
# Of that, another prompt about the same images: its own words, a tenth of the tokens.
_ASPECT = GIB // 8
# The CUDA context, what the allocator can't use, and weights that are widened for a product.
_BESIDE = {EXACT: 2 * GIB, FP8: 2 * GIB, W8A16: 3 * GIB}

_NARROW = re.compile(r"(?:.*\.)?language_model\.layers\.\d+\.(?:self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)")


def is_narrow(layer: str) -> bool:
    """Whether the linear layer of this name is in 8 bits with `fp8` and `w8a16`. Embedding, head and vision tower never
    are."""
    return _NARROW.fullmatch(layer) is not None


def weight_bytes(tensors: Tensors, dtype: str, profile: str) -> int:
    """At most: in `fp8` they come in 16 bits and are made narrow on the GPU, in `w8a16` before they come."""
    return sum(
        tensor.parameters if profile == W8A16 and is_narrow(name.removesuffix(".weight")) else bytes_of(tensor, dtype)
        for name, tensor in tensors.items()
    )


def reply_bytes(config: Mapping[str, Any], dtype: str, mode: str, tokens: int) -> int:
    """Keys and values of a reply of so many tokens, by the checkpoint's configuration."""
    if mode != "generate":
        return 0
    text = config.get("text_config") or {}
    heads = text.get("num_key_value_heads") or text.get("num_attention_heads", 0)
    width = text.get("head_dim") or text.get("hidden_size", 0) // text.get("num_attention_heads", 1)
    return 2 * text.get("num_hidden_layers", 0) * heads * width * DTYPE_BYTES[dtype] * tokens


def sample_bytes(mode: str, prompts: int = 1, reply: int = 0) -> int:
    """What one sample takes that is asked about in so many `prompts`, with a `reply` of so many bytes."""
    return _PROMPT[mode] + (prompts - 1) * _ASPECT + reply


def needed_memory(weights: int, profile: str, samples: int, each: int) -> int:
    """Bytes at the peak, of samples that take `each`."""
    return weights + _BESIDE[profile] + samples * each


def samples_at_once(weights: int, mode: str, profile: str, gpu: Gpu | None, each: int) -> int:
    """As many as pay, or as this GPU has the memory for."""
    samples = MICRO_BATCH[mode]
    while gpu is not None and samples > 1 and needed_memory(weights, profile, samples, each) > gpu.memory:
        samples //= 2
    return samples


def narrow(model: Any, profile: str, device: str) -> Any:
    """The model on the device, its layers in 8 bits: brought there one by one, so that of those that weren't there
    never more than one is in 16 bits."""
    from slurm_bench.kernels.fp8 import Fp8Linear, WidenedLinear

    kind = Fp8Linear if profile == FP8 else WidenedLinear
    for name in [name for name, _ in model.named_modules() if is_narrow(name)]:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, kind.of(model.get_submodule(name).to(device)))
    return model.to(device)
