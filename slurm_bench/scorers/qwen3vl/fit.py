"""What of the judge is on a GPU at once: its weights, in 8 bits where that is asked for, and what the prompts that it
works on at once take. No torch."""

from __future__ import annotations

import re
from typing import Any

from slurm_bench.checkpoints.folder import Tensors, bytes_of
from slurm_bench.machine import GIB, Gpu

# As the editors' profiles are called: weights as they are, or those of the language model's layers in 8 bits.
EXACT, W8A16 = "exact", "w8a16"
PROFILES = (EXACT, W8A16)

MICRO_BATCH = {"expected": 8, "generate": 16}

# Of two images of a megapixel: activations, and what is kept of a prompt that is written to. Eight prompts took 4 GiB.
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


def needed_memory(weights: int, mode: str, profile: str, prompts: int) -> int:
    """Bytes at the peak."""
    return weights + _BESIDE[profile] + prompts * _PROMPT[mode]


def prompts_at_once(weights: int, mode: str, profile: str, gpu: Gpu | None) -> int:
    """As many as pay, or as this GPU has the memory for."""
    prompts = MICRO_BATCH[mode]
    while gpu is not None and prompts > 1 and needed_memory(weights, mode, profile, prompts) > gpu.memory:
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
