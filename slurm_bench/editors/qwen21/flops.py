"""The arithmetic of an edit by Qwen-Image-2.1: text and sources once, then the noise in each step. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slurm_bench.editors.qwen.flops import ForwardFlops

FULL_SIZE = {
    "num_layers": 32,
    "attention_head_dim": 128,
    "num_attention_heads": 32,
    "in_channels": 64,
    "context_in_dim": 4096,
    "mlp_ratio": 3,
}


def step_flops(prefix_tokens: int, noise_tokens: int, config: Mapping[str, Any] = FULL_SIZE) -> ForwardFlops:
    """The noise's tokens, which see themselves and all that stands before them. Modulation isn't counted: it is
    computed once a schedule."""
    dim = _dim(config)
    blocks = _blocks(noise_tokens, config)
    ends = 2 * 2 * noise_tokens * config["in_channels"] * dim
    attention = config["num_layers"] * 4 * noise_tokens * (prefix_tokens + noise_tokens) * dim
    return ForwardFlops(float(blocks + ends), float(attention), float(blocks))


def prefix_flops(text_tokens: int, source_tokens: Sequence[int], config: Mapping[str, Any] = FULL_SIZE) -> ForwardFlops:
    """Text and sources, each of which sees itself and what stands before it. What attention costs the text itself is
    left out: it is a few dozen tokens."""
    dim, sources = _dim(config), sum(source_tokens)
    blocks = _blocks(text_tokens + sources, config)
    ends = 2 * sources * config["in_channels"] * dim + 2 * text_tokens * dim * (config["context_in_dim"] + dim)
    seen = sum(tokens * sum(source_tokens[: place + 1]) for place, tokens in enumerate(source_tokens))
    return ForwardFlops(float(blocks + ends), float(config["num_layers"] * 4 * seen * dim), float(blocks))


def _dim(config: Mapping[str, Any]) -> int:
    return config["num_attention_heads"] * config["attention_head_dim"]


def _blocks(tokens: int, config: Mapping[str, Any]) -> int:
    """Query, key, value and output, and the three of the gated MLP."""
    return config["num_layers"] * 2 * tokens * (4 + 3 * config["mlp_ratio"]) * _dim(config) ** 2
