"""What of the judge is on a GPU at once: its weights, in 8 bits where that is asked for, and what the prompts that it
works on at once take. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from slurm_bench.checkpoints.folder import Tensors, bytes_of
from slurm_bench.machine import DTYPE_BYTES, GIB, Gpu

# As the editors' profiles are called: weights as they are, or those of the language model's layers in 8 bits.
EXACT, W8A16 = "exact", "w8a16"
PROFILES = (EXACT, W8A16)

MICRO_BATCH = {"expected": 8, "generate": 16}

# Of two images of a megapixel: activations, and what is kept of a prompt that is written to, without the reply. Eight
# prompts took 4 GiB.
_PROMPT = {"expected": GIB // 2, "generate": GIB}
# The CUDA context, what the allocator can't use, and weights that are widened for a product.
_BESIDE = {EXACT: 2 * GIB, W8A16: 3 * GIB}

_NARROW = re.compile(r"(?:.*\.)?language_model\.layers\.\d+\.(?:self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)")


def is_narrow(layer: str) -> bool:
    """Whether the linear layer of this name is in 8 bits with `w8a16`. Embedding, head and vision tower never are."""
    return _NARROW.fullmatch(layer) is not None


def weight_bytes(tensors: Tensors, dtype: str, profile: str) -> int:
    """Once they are loaded."""
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


def needed_memory(weights: int, mode: str, profile: str, prompts: int, reply: int = 0) -> int:
    """Bytes at the peak, of replies that take `reply` each."""
    return weights + _BESIDE[profile] + prompts * (_PROMPT[mode] + reply)


def prompts_at_once(weights: int, mode: str, profile: str, gpu: Gpu | None, reply: int = 0) -> int:
    """As many as pay, or as this GPU has the memory for."""
    prompts = MICRO_BATCH[mode]
    while gpu is not None and prompts > 1 and needed_memory(weights, mode, profile, prompts, reply) > gpu.memory:
        prompts //= 2
    return prompts


def narrow(model: Any, device: str) -> Any:
    """The model on the device, its layers in 8 bits: brought there one by one, so that never more than one is there in
    16 bits."""
    from slurm_bench.kernels.fp8 import WidenedLinear

    for name in [name for name, _ in model.named_modules() if is_narrow(name)]:
        parent, _, child = name.rpartition(".")
        linear = WidenedLinear.of(model.get_submodule(name).to(device))
        setattr(model.get_submodule(parent), child, linear)
    return model.to(device)
