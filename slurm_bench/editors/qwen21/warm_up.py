"""The kernels of a first step of Qwen-Image-2.1."""

from __future__ import annotations

from typing import Any

# Of the published transformer: channels, heads, and channels of the MLP's middle. Other sizes are built when needed.
CHANNELS, HEADS, MIDDLE = 4096, 32, 12288
TOKENS = 256


def run_once(device: str, fp8: bool, tokens: int = TOKENS, dtype: str = "bfloat16") -> None:
    """Each operation between two matrix products as `blocks` uses it, on random data."""
    import torch

    from slurm_bench.editors.qwen.warm_up import see_once
    from slurm_bench.kernels.attention import attention
    from slurm_bench.kernels.fp8 import Fp8Linear, OutlierLinear
    from slurm_bench.kernels.ops import add_gated, linear, norm_modulate, rotate_, swiglu

    def random(*shape: int) -> Any:
        return torch.randn(shape, device=device, dtype=getattr(torch, dtype))

    def layer(inputs: int, outputs: int) -> Any:
        made = torch.nn.Linear(inputs, outputs, bias=False, device="meta")
        made.weight = torch.nn.Parameter(random(outputs, inputs), False)
        return Fp8Linear.of(made) if fp8 else made

    with torch.no_grad():
        x, modulation = random(tokens, CHANNELS), random(1, 6, CHANNELS)
        _, normed = norm_modulate(x, modulation[:, :2], 0, 1e-6, fp8)
        heads = linear(layer(CHANNELS, CHANNELS), normed).unflatten(1, (HEADS, -1))
        width = heads.shape[-1]
        table = random(tokens, width // 2).float()
        rotate_(heads, table, table, True, random(1, 1, width), 0, 1e-6)
        for causal in (False, True):
            attended = attention(heads[None], heads[None], heads[None], causal=causal)[0].flatten(1)
        _, normed = norm_modulate(x, modulation[:, 3:5], 0, 1e-6, fp8, attended, modulation[:, 2])
        last: Any = torch.nn.Linear(MIDDLE, CHANNELS, bias=False, device="meta")
        last.weight = torch.nn.Parameter(random(CHANNELS, MIDDLE), False)
        gate, up = layer(CHANNELS, MIDDLE), layer(CHANNELS, MIDDLE)
        y = swiglu(gate, up, OutlierLinear(last, gelu=False) if fp8 else last, normed)
        add_gated(x, y, modulation[:, 5], 0)
        see_once(random)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
