"""Which attention kernel is the fastest where."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

FLASH_FIRST = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
CUDNN_FIRST = [SDPBackend.CUDNN_ATTENTION, *(kernel for kernel in FLASH_FIRST if kernel != SDPBackend.CUDNN_ATTENTION)]


def fastest_attention(device: torch.device) -> AbstractContextManager[Any]:
    """For `scaled_dot_product_attention` within; what the first kernel can't do goes to the next.

    On Hopper that is cuDNN's, 1.7 times FlashAttention-2 on an H100. It plans anew for each new shape, so there
    should be few. On Ampere and Blackwell it was seen to be the slower one (transformers pull request 48163).
    """
    if device.type != "cuda":
        return nullcontext()
    hopper = torch.cuda.get_device_capability(device)[0] == 9
    return sdpa_kernel(CUDNN_FIRST if hopper else FLASH_FIRST, set_priority=True)
