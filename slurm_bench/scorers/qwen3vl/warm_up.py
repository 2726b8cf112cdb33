"""The kernels of a judge's first prefill."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from slurm_bench.kernels.first_use import Kernels

TOKENS = 256


def kernels_of(config: Mapping[str, Any], dtype: str, device: str, fp8: bool) -> Kernels | None:
    """By the sizes that a checkpoint's configuration says; None where it leaves one out."""
    try:
        text, seen = config["text_config"], config["vision_config"]
        heads = (int(text["num_attention_heads"]), int(text["num_key_value_heads"]))
        language = (int(text["hidden_size"]), int(text["head_dim"]), int(text["intermediate_size"]))
        vision = (int(seen["hidden_size"]), int(seen["num_heads"]))
    except (KeyError, TypeError, ValueError):
        return None
    sizes = "x".join(map(str, (*heads, *language, *vision)))
    name = f"judge-{sizes}-{dtype}{'-8' if fp8 else ''}"
    return Kernels(name, partial(run_once, device, dtype, fp8, heads, language, vision))


def run_once(
    device: str,
    dtype: str,
    fp8: bool,
    heads: tuple[int, int],
    language: tuple[int, int, int],
    vision: tuple[int, int],
    tokens: int = TOKENS,
) -> None:
    """Each operation between two matrix products as `language_model` and `vision` use it, on random data. `heads` are
    those of queries and of keys; `language` has the channels of a token, of a head and of the MLP's middle, `vision`
    those of a patch, and its heads."""
    import torch

    from slurm_bench.kernels.attention import attention
    from slurm_bench.kernels.fp8 import quantize
    from slurm_bench.kernels.ops import layer_norm, rms_norm, rotate_, silu_mul

    def random(*shape: int, dtype: str = dtype) -> Any:
        return torch.randn(shape, device=device, dtype=getattr(torch, dtype))

    with torch.no_grad():
        channels, width, middle = language
        x, weight = random(tokens, channels), random(channels)
        rms_norm(rms_norm(x, weight, 1e-6)[1], weight, 1e-6, x)
        parts = [random(tokens, count, width) for count in (*heads, heads[1])]
        table = random(tokens, width)[:, : width // 2]
        for part in parts[:2]:
            for angles in (table, table.contiguous()):  # of all tokens, and of a prompt's last
                rotate_(part, angles, angles, False, random(1, 1, width), 0, 1e-6)
        query, key, value = (part[None] for part in parts)
        attention(query, key, value, causal=True)
        silu_mul(random(tokens, middle), random(tokens, middle))
        for size in (channels, heads[0] * width, middle) if fp8 else ():
            quantize(random(tokens, size))

        channels, count = vision
        x, weight, width = random(tokens, channels), random(channels), channels // count
        layer_norm(layer_norm(x, weight, weight, 1e-6)[1], weight, weight, 1e-6, x)
        packed = random(tokens, 3, count, width)
        table = random(tokens, width, dtype="float32")[:, : width // 2]
        rotate_(packed[:, :2].flatten(1, 2), table, table, interleaved=False)
        attention(*(part[None] for part in packed.unbind(1)))
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
