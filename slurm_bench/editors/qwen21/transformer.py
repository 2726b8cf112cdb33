"""The forward of Qwen-Image-2.1's transformer: the mathematics of diffusers' QwenImage21Transformer2DModel in less work
and fewer passes over memory.

It borrows the modules, and so the weights, of diffusers' transformer and rearranges the work around them.

- Text and sources are modulated as at t = 0, and see what stands before them alone: never the noise, which stands last.
  So their keys and values are the same in every step. They are computed once a sample, by `prefix`; a step is the
  noise's tokens alone. diffusers keeps them too, but computes the first step's noise along with them.
- One modulation serves all blocks. It is computed for all steps at once.
- Between two matrix products there is one pass over the data (`kernels`). Keys and values are written where attention
  reads them.
- Behind the last block nothing reads text and sources: of them it computes keys and values alone.

Shapes: as in `blocks`, and S steps, E channels of the text encoder (4096), Z channels of a latent token (64).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from slurm_bench.editors.qwen.stream import Stream
from slurm_bench.editors.qwen21.blocks import ExactBlock, Part, Rope, Segment
from slurm_bench.errors import FinalError
from slurm_bench.kernels.ops import linear

NEGATIVE = 1024  # of RoPE's positions, at the end of its tables: rows and columns on one side of an image's middle

# Frames, rows and columns of tokens.
Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Modulation:
    """For each step of a schedule and, in the last row, for tokens that are no noise. Of the six vectors the model has
    four: it shifts nothing."""

    blocks: Tensor  # [S + 1, 6, D]
    output: Tensor  # [S + 1, 2, D]


@dataclass(frozen=True)
class Prefix:
    """A sample's text and sources as a step sees them, and room for the step's own keys and values."""

    keys_values: tuple[Tensor, ...]  # a block's, [T_prefix + T_noise, 2 D]
    noise: Segment
    rope: Rope  # of the noise


class ExactTransformer(nn.Module):
    """`transformer` is diffusers' module, which stays usable."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.source = transformer
        self.transformer_blocks = nn.ModuleList(map(ExactBlock, transformer.transformer_blocks))

    def modulation(self, timesteps: Tensor) -> Modulation:
        """Of a schedule's `timesteps` [S] in 0…1, in the dtype in which a forward would get them."""
        source = self.source
        temb = source.time_text_embed(torch.cat([timesteps, timesteps.new_zeros(1)]), source.img_in.weight)
        scale, gate, mlp_scale, mlp_gate = source.modulation(temb).chunk(4, dim=-1)
        none = torch.zeros_like(scale)
        out_scale = linear(source.norm_out.linear, functional.silu(temb))
        return Modulation(
            torch.stack([none, scale, gate.tanh(), none, mlp_scale, mlp_gate.tanh()], dim=1),
            torch.stack([none, out_scale], dim=1),
        )

    def prefix(
        self, embeds: Tensor, texts: Sequence[int], sources: Tensor, grids: Sequence[Grid], modulation: Modulation
    ) -> Prefix:
        """Text and sources through all blocks. `embeds` [T_text, E] are the text encoder's of the text alone, `texts`
        how many of them stand before each source and behind the last. `sources` [1, T_sources, Z] are latents one
        behind the other; `grids` are each source's, then the noise's. Raises FinalError for a prompt that RoPE's
        tables have no positions for."""
        source = self.source
        lengths = [rows * columns for _, rows, columns in grids]
        *before, behind = source.txt_in(embeds[None])[0].split(list(texts))
        images = linear(source.img_in, sources[0]).split(lengths[:-1])
        tokens = torch.cat([*(part for pair in zip(before, images, strict=True) for part in pair), behind])
        segments = _segments(texts, lengths)
        noise = segments[-1]
        rope = self._rope(texts, grids, segments, tokens.device)
        keys_values = tuple(tokens.new_empty((noise.end, 2 * source.inner_dim)) for _ in source.transformer_blocks)
        stream, last = Stream(tokens), len(keys_values) - 1
        clean, places = modulation.blocks[-1:], rope[: noise.begin]
        for index, block in enumerate(self.transformer_blocks):
            parts = [Part(keys_values[index], segments[:-1])]
            stream = block(stream, clean, places, parts, leave=index == last)
        return Prefix(keys_values, noise, rope[noise.begin :])

    def forward(self, latents: Tensor, prefixes: Sequence[Prefix], modulation: Modulation, step: int) -> Tensor:
        """The noise's `latents` [1, T_noise, Z], of the samples with these prefixes one behind the other → its
        velocity, likewise."""
        source = self.source
        stream = Stream(linear(source.img_in, latents[0]))
        now = modulation.blocks[step : step + 1]
        rope = _joined([prefix.rope for prefix in prefixes])
        for index, block in enumerate(self.transformer_blocks):
            parts = [Part(prefix.keys_values[index], [prefix.noise]) for prefix in prefixes]
            stream = block(stream, now, rope, parts)
        _, normed = stream.norm(modulation.output[step : step + 1], slice(0, 2), source.norm_out.norm.eps, False)
        return linear(source.proj_out, normed)[None]

    def _rope(
        self, texts: Sequence[int], grids: Sequence[Grid], segments: Sequence[Segment], device: torch.device
    ) -> Rope:
        """All tokens' tables."""
        positions = sum(texts) + sum(max(rows, columns) for _, rows, columns in grids)
        known = len(self.source.pos_embed.freqs[0]) - NEGATIVE
        if positions > known:
            raise FinalError(f"the prompt and its images take {positions} positions; the model has {known}")
        is_image = torch.cat([torch.full((part.end - part.begin,), not part.text) for part in segments])
        freqs = self.source.pos_embed(list(grids), is_image.to(device), device=device)
        return Rope(freqs.real.contiguous(), freqs.imag.contiguous())


def _joined(ropes: Sequence[Rope]) -> Rope:
    if len(ropes) == 1:
        return ropes[0]
    return Rope(torch.cat([rope.cos for rope in ropes]), torch.cat([rope.sin for rope in ropes]))


def _segments(texts: Sequence[int], lengths: Sequence[int]) -> list[Segment]:
    """The sequence's, the noise last: text and images in turn, without what is empty."""
    segments, at = [], 0
    for text, length in zip(texts, lengths, strict=True):
        for count, is_text in ((text, True), (length, False)):
            if count:
                segments.append(Segment(at, at + count, is_text))
                at += count
    return segments
