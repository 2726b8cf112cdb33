"""The VAE on a single frame: its causal 3-D convolutions see zeros before it, so they are 2-D convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def flatten_convolutions(vae: Any) -> None:
    """The last time slice of each kernel is all that a first frame meets: a third of the work, same result.
    Frames after the first still take the 3-D way."""
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d

    for module in vae.modules():
        if isinstance(module, QwenImageCausalConv3d):
            module.forward = _frame_convolution(module)  # type: ignore[method-assign]


def _frame_convolution(conv: Any) -> Any:
    whole = conv.forward
    left, _, top, _, _, _ = conv._padding
    weight = conv.weight[:, :, -1].contiguous(memory_format=torch.channels_last)

    def forward(x: Tensor, cache_x: Tensor | None = None) -> Tensor:
        if x.shape[2] != 1 or cache_x is not None:
            return whole(x, cache_x)
        frame = functional.conv2d(x[:, :, 0], weight, conv.bias, conv.stride[1:], (top, left))
        return frame.unsqueeze(2)

    return forward
