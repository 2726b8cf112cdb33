"""How much arithmetic a forward is, and so how fast a GPU can be at best. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FULL_SIZE = {
    "num_layers": 60,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "in_channels": 64,
    "joint_attention_dim": 3584,
}


@dataclass(frozen=True)
class Work:
    """FLOP of one forward, a multiplication and an addition counted as two. Of the linear layers, `blocks` can be
    computed in 8 bits, and of these `fp8_safe` are by default."""

    linears: float
    attention: float
    blocks: float
    fp8_safe: float

    @property
    def total(self) -> float:
        return self.linears + self.attention


def forward_work(image_tokens: int, text_tokens: int, config: Mapping[str, Any] = FULL_SIZE) -> Work:
    """`image_tokens` are the noise's and the sources' (4096 each at a megapixel). Modulation is left out: it is
    computed once a schedule."""
    dim = config["num_attention_heads"] * config["attention_head_dim"]
    tokens, layers = image_tokens + text_tokens, config["num_layers"]
    # Query, key, value and output, and the two of the MLP, which is four times as wide.
    blocks = layers * 2 * tokens * 12 * dim**2
    ends = 2 * dim * (2 * image_tokens * config["in_channels"] + text_tokens * config["joint_attention_dim"])
    unsafe = layers * 2 * image_tokens * 4 * dim**2  # the image MLP's second
    return Work(float(blocks + ends), float(layers * 4 * tokens**2 * dim), float(blocks), float(blocks - unsafe))


def floor_seconds(work: Work, ceilings: Mapping[str, float], in_fp8: float = 0.0) -> float:
    """No implementation is faster, where matrix products reach `ceilings` (FLOP/s, by type) and all else is free.
    `in_fp8` is how much of the work is in 8 bits."""
    return (work.total - in_fp8) / ceilings["bf16"] + (in_fp8 / ceilings["fp8"] if in_fp8 else 0.0)
