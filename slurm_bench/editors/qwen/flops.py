"""The arithmetic of a forward, and from it the least time that a GPU can take. Pure functions."""

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
class ForwardFlops:
    """FLOP of one forward: a multiplication and an addition are two. `linears` are all linear layers, `blocks` those
    of the blocks, which can be computed in 8 bits."""

    linears: float
    attention: float
    blocks: float

    @property
    def total(self) -> float:
        return self.linears + self.attention


def forward_flops(image_tokens: int, text_tokens: int, config: Mapping[str, Any] = FULL_SIZE) -> ForwardFlops:
    """`image_tokens` are the noise's and the sources' (4096 each at a megapixel). Modulation isn't counted, because
    it is computed once a schedule."""
    dim = config["num_attention_heads"] * config["attention_head_dim"]
    tokens, layers = image_tokens + text_tokens, config["num_layers"]
    # Query, key, value and output, and the two of the MLP, which is four times as wide.
    blocks = layers * 2 * tokens * 12 * dim**2
    ends = 2 * dim * (2 * image_tokens * config["in_channels"] + text_tokens * config["joint_attention_dim"])
    return ForwardFlops(float(blocks + ends), float(layers * 4 * tokens**2 * dim), float(blocks))


def floor_seconds(flops: ForwardFlops, ceilings: Mapping[str, float], fp8: bool) -> float:
    """The time if matrix products run at `ceilings` (FLOP/s, by dtype) and everything else is free. With `fp8` the
    linear layers of the blocks are in 8 bits."""
    narrow = flops.blocks if fp8 else 0.0
    return (flops.total - narrow) / ceilings["bf16"] + (narrow / ceilings["fp8"] if narrow else 0.0)
