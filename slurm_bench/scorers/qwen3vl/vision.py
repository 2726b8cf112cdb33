"""Qwen3-VL's vision tower by the kernels of `kernels`, which a prefill calls.

Shapes: P patches of all images together, D channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from slurm_bench.kernels.attention import attention
from slurm_bench.kernels.ops import feed_forward, layer_norm, rotate_


def patch_vision(visual: Any) -> None:
    """Replaces the forwards of the tower's blocks by our own: the same mathematics with less work."""
    _patches_by_product(visual.patch_embed)
    images = _Images()
    for block in visual.blocks:
        block.forward = _vision_block(block, images, visual.config.hidden_act == "gelu_pytorch_tanh")


def _patches_by_product(embed: Any) -> None:
    """The patch embedding as a matrix product, [P, pixels] → [P, D]: a convolution whose stride equals its kernel."""
    conv = embed.proj

    def forward(patches: Tensor) -> Tensor:
        return functional.linear(patches.to(conv.weight.dtype), conv.weight.flatten(1), conv.bias)

    embed.forward = forward


def _vision_block(block: Any, images: _Images, tanh_gelu: bool) -> Any:
    attn, mlp, norm1, norm2 = block.attn, block.mlp, block.norm1, block.norm2

    def forward(
        hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor], **_: Any
    ) -> Tensor:
        h = layer_norm(hidden_states, norm1.weight, norm1.bias, norm1.eps)[1]
        packed = attn.qkv(h).unflatten(-1, (3, attn.num_heads, -1))
        cos, sin = (table[:, : packed.shape[-1] // 2] for table in position_embeddings)
        rotate_(packed[:, :2].flatten(1, 2), cos, sin, interleaved=False)
        attended = []
        for start, stop, count in images.runs(cu_seqlens):
            query, key, value = packed[start:stop].unflatten(0, (count, -1)).unbind(2)
            attended.append(attention(query, key, value, attn.scaling).flatten(0, 1).flatten(1))
        y = attn.proj(attended[0] if len(attended) == 1 else torch.cat(attended))
        x, h = layer_norm(hidden_states, norm2.weight, norm2.bias, norm2.eps, y)
        return x + (feed_forward(mlp.linear_fc1, mlp.linear_fc2, h) if tanh_gelu else mlp(h))

    return forward


class _Images:
    """Which patches belong to which image: read from the GPU once a forward, not in each block."""

    def __init__(self) -> None:
        self._bounds: Tensor | None = None
        self._runs: list[tuple[int, int, int]] = []

    def runs(self, bounds: Tensor) -> Iterable[tuple[int, int, int]]:
        """Images of one size that stand side by side attend together: (start, stop, how many images)."""
        if bounds is not self._bounds:
            self._bounds, self._runs, start = bounds, [], 0
            sizes = (stop - begin for begin, stop in pairwise(bounds.tolist()))
            for size, alike in groupby(sizes):
                count = len(list(alike))
                if size:
                    self._runs.append((start, start + size * count, count))
                start += size * count
        return self._runs
