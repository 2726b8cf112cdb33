"""The kernels of a first step of Qwen-Image-Edit, and of both families' VAEs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Of the published transformer: channels, heads, and channels of the MLP's middle. Other sizes are built when needed.
CHANNELS, HEADS, MIDDLE = 3072, 24, 12288
PIXELS = 96  # channels of the VAEs' widest pictures
TOKENS = 256


def see_once(random: Callable[..., Any]) -> None:
    """The VAE's."""
    import torch

    from slurm_bench.kernels.pixels import add_, enlarge, rms_norm_silu

    weight, place = random(PIXELS), torch.zeros((2, 2, PIXELS), dtype=torch.int64, device=random(1).device)
    x = random(1, PIXELS, 8, 8).contiguous(memory_format=torch.channels_last)
    x = add_(rms_norm_silu(rms_norm_silu(x, weight), weight, weight), weight, x)
    enlarge(x, 2, place, onto=enlarge(add_(x, weight), 2))


def run_once(device: str, fp8: bool, tokens: int = TOKENS, dtype: str = "bfloat16") -> None:
    """Each operation between two matrix products as `blocks` uses it, on random data."""
    import torch

    from slurm_bench.kernels.attention import attention
    from slurm_bench.kernels.fp8 import Fp8Linear, OutlierLinear
    from slurm_bench.kernels.ops import add_gated, feed_forward, linear, norm_modulate, rotate_

    def random(*shape: int) -> Any:
        return torch.randn(shape, device=device, dtype=getattr(torch, dtype))

    def layer(inputs: int, outputs: int) -> Any:
        made = torch.nn.Linear(inputs, outputs, device="meta")
        made.weight = torch.nn.Parameter(random(outputs, inputs), False)
        made.bias = torch.nn.Parameter(random(outputs), False)
        return made

    with torch.no_grad():
        x, modulation = random(tokens, CHANNELS), random(1, 6, CHANNELS)
        first, last = layer(CHANNELS, MIDDLE), layer(MIDDLE, CHANNELS)
        stacked = layer(CHANNELS, 3 * CHANNELS)
        if fp8:
            first, stacked, last = Fp8Linear.of(first), Fp8Linear.of(stacked), OutlierLinear(last)
        _, normed = norm_modulate(x, modulation[:, :2], 0, 1e-6, fp8)
        heads = linear(stacked, normed).unflatten(1, (3 * HEADS, -1))
        width = heads.shape[-1]
        table = random(tokens, width // 2).float()
        rotate_(heads[:, : 2 * HEADS], table, table, True, random(2, 2, width), 1, 1e-6)
        query, key, value = (part[None] for part in heads.split(HEADS, dim=1))
        attended = attention(query, key, value)[0].flatten(1)
        _, normed = norm_modulate(x, modulation[:, 3:5], 0, 1e-6, fp8, attended, modulation[:, 2])
        if fp8:
            feed_forward(first, Fp8Linear.of(last.exact), normed)
        y = feed_forward(first, last, normed)
        add_gated(x, y, modulation[:, 5], 0)
        see_once(random)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
