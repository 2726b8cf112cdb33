"""The VAE on a single frame. Its causal 3-D convolutions see zeros before the first frame, so that only the last time
slice of a kernel counts: a 2-D convolution.

Shapes: B images, C channels, F frames, Y rows, X columns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def flatten_convolutions(vae: Any) -> None:
    """A third of the work, the same result. Several frames are still convolved in 3-D."""
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d

    for module in vae.modules():
        if isinstance(module, QwenImageCausalConv3d):
            module.forward = _frame_convolution(module)  # type: ignore[method-assign]


def _frame_convolution(conv: Any) -> Any:
    forward_3d = conv.forward
    left, _, top, _, _, _ = conv._padding
    weight = conv.weight[:, :, -1].contiguous(memory_format=torch.channels_last)

    def forward(x: Tensor, cache_x: Tensor | None = None) -> Tensor:
        if x.shape[2] != 1 or cache_x is not None:
            return forward_3d(x, cache_x)
        # [B, C, 1, Y, X]
        frame = functional.conv2d(x[:, :, 0], weight, conv.bias, conv.stride[1:], (top, left))
        return frame.unsqueeze(2)

    return forward
