"""How much arithmetic a forward is, and so how fast a GPU can be at best. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FULL_SIZE = {
    "num_layers": 60,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "in_channels": 64,
    "joint_attention_dim": 3584,
}


def forward_flops(image_tokens: int, text_tokens: int, config: Mapping[str, Any] = FULL_SIZE) -> float:
    """Of one forward of the transformer, a multiplication and an addition counted as two.

    `image_tokens` are the noise's and the sources' (4096 each at a megapixel). Modulation is left out: it is
    computed once a schedule.
    """
    dim = config["num_attention_heads"] * config["attention_head_dim"]
    tokens = image_tokens + text_tokens
    linears = 2 * tokens * 12 * dim**2  # query, key, value and output, and two of the MLP, four times as wide
    attention = 4 * tokens**2 * dim
    ends = 2 * dim * (2 * image_tokens * config["in_channels"] + text_tokens * config["joint_attention_dim"])
    return float(config["num_layers"] * (linears + attention) + ends)


def floor_seconds(flops: float, flops_per_second: float) -> float:
    """No implementation is faster, where matrix products reach `flops_per_second` and all else is free."""
    return flops / flops_per_second
