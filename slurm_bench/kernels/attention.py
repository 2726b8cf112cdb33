"""Scaled dot-product attention by the fastest kernel that this GPU and these packages have.

Shapes: B rows, T tokens, H heads, C channels of a head. Tensors are [B, T, H, C].

FlashAttention 3: https://arxiv.org/abs/2407.08608.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from slurm_bench.logs import log

Compute = Callable[[Tensor, Tensor, Tensor, float | None, bool], Tensor]  # (query, key, value, scale, causal)

# FlashAttention 3's module, as the wheel `fa3-fwd` and as a build from its source call it, and torch's namespace of its
# operators.
FLASH_ATTENTION_3 = {"fa3_fwd_interface": "fa3_fwd", "flash_attn_interface": "flash_attn_3"}

_FLASH_FIRST = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
_CUDNN_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    *(backend for backend in _FLASH_FIRST if backend != SDPBackend.CUDNN_ATTENTION),
]


@dataclass(frozen=True)
class AttentionKernel:
    """`name` is what a record says."""

    name: str
    compute: Compute


def attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None, causal: bool = False) -> Tensor:
    """softmax(scale · query · keyᵀ) · value; without `scale`, 1/√C.

    `key` and `value` may have fewer heads than `query` (https://arxiv.org/abs/2305.13245). A `causal` mask is aligned
    at the end: the last query sees every key.
    """
    return select_kernel(query.device, query.dtype).compute(query, key, value, scale, causal)


def attention_of_one(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None = None) -> Tensor:
    """Of one query a row, [B, H, C], to keys that a `mask` [B, T] shows: bool, or what is added to their scores.

    Heads that share keys stand as so many queries of one head, so that any of torch's kernels takes them.
    """
    shared = query.unflatten(1, (key.shape[2], -1))
    key, value = key.transpose(1, 2), value.transpose(1, 2)
    attended = functional.scaled_dot_product_attention(shared, key, value, mask[:, None, None], scale=scale)
    return attended.flatten(1, 2)


@cache
def select_kernel(device: torch.device, dtype: torch.dtype) -> AttentionKernel:
    """The kernel that `attention` runs on such tensors: the one place that decides it, for the call and the record.

    On an H100, hot, at 9592 tokens and 24 heads of 128: FlashAttention 3 takes 1.73 ms, cuDNN 2.02 (1.85 where the
    keys are a multiple of 128); torch's FlashAttention 2 had 358 TFLOP/s where cuDNN had 620. On Ampere and Blackwell
    cuDNN was seen to be slower than FlashAttention 2 (https://github.com/huggingface/transformers/pull/48163).
    """
    if not _is_hopper(device):
        return AttentionKernel("torch", partial(_torch_attention, _FLASH_FIRST))
    flash = _flash_attention_3() if dtype == torch.bfloat16 else None
    if flash is None:
        return AttentionKernel("cuDNN", partial(_torch_attention, _CUDNN_FIRST))

    return AttentionKernel("FlashAttention 3", flash)


def _torch_attention(
    backends: list[SDPBackend], query: Tensor, key: Tensor, value: Tensor, scale: float | None, causal: bool
) -> Tensor:
    """torch's own, by the first of `backends` that supports the tensors."""
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    earlier = key.shape[2] - query.shape[2] if causal else 0
    with sdpa_kernel(backends, set_priority=True):
        attended = functional.scaled_dot_product_attention(
            functional.pad(query, (0, 0, earlier, 0)) if earlier else query,
            key,
            value,
            is_causal=causal,
            scale=scale,
            enable_gqa=key.shape[1] != query.shape[1],
        )
    return attended[:, :, earlier:].transpose(1, 2)


def _is_hopper(device: torch.device) -> bool:
    """Compute capability 9.0 of NVIDIA's: an AMD GPU reports numbers of the same form (MI300 9.4, MI250 9.0)."""
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(device) == (9, 0)


@cache
def _flash_attention_3() -> Compute | None:
    """None where it isn't installed, or was built for another torch or CUDA."""
    for module, namespace in FLASH_ATTENTION_3.items():
        if find_spec(module) is not None:
            try:
                function = import_module(module).flash_attn_func  # which brings the operators
                return _by_operator(namespace) or _by_function(function)
            except Exception as error:
                log.warning("FlashAttention 3 (%s) is installed but not usable: %s", module, error)
                return None
    log.info("attention by cuDNN; FlashAttention 3 is a seventh faster: pip install fa3-fwd")
    return None


def _by_function(function: Callable[..., Tensor]) -> Compute:
    def compute(query: Tensor, key: Tensor, value: Tensor, scale: float | None, causal: bool) -> Tensor:
        return function(query, key, value, softmax_scale=scale, causal=causal)

    return compute


def _by_operator(namespace: str) -> Compute | None:
    """As the function calls it, which does more in Python around that than a GPU takes for the attention of a short
    prompt: in a profile of Qwen-Image-2.1's sources and first step an H200 waited 7.6 ms instead of 27.9."""
    packet = getattr(getattr(torch.ops, namespace), "fwd", None)
    operator: Any = getattr(packet, "default", None)
    arguments = {each.name for each in operator._schema.arguments} if operator else set()
    if not {"softmax_scale", "is_causal", "num_splits"} <= arguments:
        return None

    def compute(query: Tensor, key: Tensor, value: Tensor, scale: float | None, causal: bool) -> Tensor:
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        attended: Tensor = operator(query, key, value, softmax_scale=scale, is_causal=causal, num_splits=1)[0]
        return attended

    return compute
