"""Attention by the fastest kernel at hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from slurm_bench.logs import log

# FlashAttention 3's module, as the wheel `fa3-fwd` and as a build from its source call it.
FLASH_ATTENTION_3 = ("fa3_fwd_interface", "flash_attn_interface")

_FLASH_FIRST = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
_CUDNN_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    *(kernel for kernel in _FLASH_FIRST if kernel != SDPBackend.CUDNN_ATTENTION),
]


def attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None, causal: bool = False) -> Tensor:
    """Tensors are [rows, tokens, heads, channels]; `key` and `value` may have fewer heads. The tokens of a `causal`
    one are aligned at their ends: the last query sees every key."""
    flash = _flash_for(query.device, query.dtype)
    if flash is not None:
        return flash(query, key, value, softmax_scale=scale, causal=causal)
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    earlier = key.shape[2] - query.shape[2] if causal else 0
    grouped = key.shape[1] != query.shape[1]
    with sdpa_kernel(_CUDNN_FIRST if _is_hopper(query.device) else _FLASH_FIRST, set_priority=True):
        attended = functional.scaled_dot_product_attention(
            functional.pad(query, (0, 0, earlier, 0)) if earlier else query,
            key,
            value,
            is_causal=causal,
            scale=scale,
            enable_gqa=grouped,
        )
    return attended[:, :, earlier:].transpose(1, 2)


def kernel_at_hand(device: torch.device, dtype: torch.dtype) -> str:
    """What `attention` runs by there, for a record. What cuDNN's kernel can't do goes to torch's others.

    On an H100, hot, at 9592 tokens and 24 heads of 128: FlashAttention 3 takes 1.73 ms, cuDNN 2.02 (1.85 where the
    keys are a multiple of 128); torch's FlashAttention 2 had 358 TFLOP/s where cuDNN had 620. On Ampere and Blackwell
    cuDNN was seen to be slower than that one (transformers pull request 48163).
    """
    if not _is_hopper(device):
        return "torch"
    return "FlashAttention 3" if _flash_for(device, dtype) else "cuDNN"


def _flash_for(device: torch.device, dtype: torch.dtype) -> Callable[..., Any] | None:
    return _flash_attention_3() if _is_hopper(device) and dtype == torch.bfloat16 else None


def _is_hopper(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9


@cache
def _flash_attention_3() -> Callable[..., Any] | None:
    """Its function; None where it isn't installed, or was built for another torch or CUDA."""
    for module in FLASH_ATTENTION_3:
        if find_spec(module) is not None:
            try:
                return import_module(module).flash_attn_func
            except Exception as error:
                log.warning("FlashAttention 3 (%s) is installed but not usable: %s", module, error)
                return None
    log.info("attention by cuDNN; FlashAttention 3 is a seventh faster: pip install fa3-fwd")
    return None
