"""Causal attention over a left-padded batch without a mask: each row attends within its own tokens.

A padding mask would cost a length² tensor, the fast kernels and the grouped key heads. Row by row there is no mask,
no padding is attended to, and a row's arithmetic is what it is alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

NAME = "slurm_bench_ragged"
_PADDING: ContextVar[tuple[int, ...]] = ContextVar("padding")


def register() -> str:
    """Make it known to transformers as an attention implementation. A name without a mask function gets no mask."""
    import torch
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, torch.compiler.disable(_attention))
    return NAME


@contextmanager
def padding(lengths: Sequence[int]) -> Iterator[None]:
    """How many tokens at the start of each row of the batch are padding, for the forward within."""
    token = _PADDING.set(tuple(lengths))
    try:
        yield
    finally:
        _PADDING.reset(token)


def kernels(device: str, first: str) -> AbstractContextManager[Any]:
    """On CUDA, prefer one kernel of scaled dot product attention and keep the others to fall back on.

    cuDNN is the fastest on an H100, but plans anew for each new length: right for images, whose sizes recur,
    and wrong for prompts, where FLASH_ATTENTION serves.
    """
    if device != "cuda":
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    names = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH")
    order = sorted(names, key=lambda name: name != first)
    return sdpa_kernel([getattr(SDPBackend, name) for name in order], set_priority=True)


def _attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any = None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Any, None]:
    """`query` is [rows, heads, length, dim], `key` and `value` have fewer heads; gives [rows, length, heads, dim].
    What stands at padding is zero. For a whole prompt at once, without a cache."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    rows, heads, length, width = query.shape
    output = torch.zeros((rows, length, heads, width), dtype=query.dtype, device=query.device)
    with kernels(query.device.type, "FLASH_ATTENTION"):
        for row, start in enumerate(_PADDING.get()):
            q, k, v = (tensor[row : row + 1, :, start:] for tensor in (query, key, value))
            attended = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
            output[row, start:] = attended[0].transpose(0, 1)
    return output, None
