"""A block of Qwen-Image-2.1's transformer over diffusers' modules: matrix products and attention, with the operations
of `kernels` between them. Text and images are one stream, and a block has no modulation of its own.

Shapes
    T  tokens: a prefix (text and sources), or the noise's
    D  channels of a token (4096)
    H  heads (32)
    C  channels of a head (128)
Samples of a batch stand one behind the other, so most tensors have no batch dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slurm_bench.editors.qwen.stream import ATTENTION, ATTENTION_GATE, MLP, MLP_GATE, Stream
from slurm_bench.kernels.attention import attention
from slurm_bench.kernels.fp8 import Fp8Linear, stack_linears
from slurm_bench.kernels.ops import Rows, linear, rotate_, swiglu


@dataclass(frozen=True)
class Segment:
    """Tokens `begin` to `end` of a sequence: a stretch of text, each token of which sees what stands before it, or an
    image, whose tokens see each other too."""

    begin: int
    end: int
    text: bool


@dataclass(frozen=True)
class Rope:
    """Tables of some tokens, [T, C / 2] in float32."""

    cos: Tensor
    sin: Tensor

    def __getitem__(self, tokens: slice) -> Rope:
        return Rope(self.cos[tokens], self.sin[tokens])


@dataclass(frozen=True)
class Part:
    """Of one sample, the neighbouring tokens in `segments`, and the keys and values [T of all, 2 D] of all that stands
    before them, with room for theirs."""

    keys_values: Tensor
    segments: Sequence[Segment]

    @property
    def begin(self) -> int:
        return self.segments[0].begin

    @property
    def end(self) -> int:
        return self.segments[-1].end

    def __len__(self) -> int:
        return self.end - self.begin


class ExactBlock(nn.Module):
    """`forward` takes tokens through the block, once all before them have been: it finds their keys and values, and
    leaves its own there."""

    weights_here: Callable[[], AbstractContextManager[None]] = nullcontext  # another where they wait on the host

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block
        self.key_value = stack_linears(block.attn.to_k, block.attn.to_v)

    def forward(
        self, stream: Stream, modulation: Tensor, rope: Rope, parts: Sequence[Part], leave: bool = False
    ) -> Stream:
        """The `stream` has the tokens of `parts` one behind the other: each is a sample's, and sees that sample alone.
        `modulation` is [1, 6, D]. With `leave`, only keys and values are wanted: nothing reads what a prefix becomes
        behind the last block."""
        with self.weights_here():
            return self._forward(stream, modulation, rope, parts, leave)

    def _forward(self, stream: Stream, modulation: Tensor, rope: Rope, parts: Sequence[Part], leave: bool) -> Stream:
        block, attn = self.block, self.block.attn
        x, normed = stream.norm(modulation, ATTENTION, block.img_norm1.eps, isinstance(self.key_value, Fp8Linear))
        self._leave_keys_values(normed, rope, parts)
        if leave:
            return stream
        query = linear(attn.to_q, normed).unflatten(1, (attn.heads, -1))
        rotate_(query, rope.cos, rope.sin, True, _group(attn.norm_q), 0, attn.norm_q.eps)
        attended = []
        for part, queries in zip(parts, query.split([len(part) for part in parts]), strict=True):
            heads = part.keys_values.unflatten(1, (2 * attn.heads, -1))
            for segment in part.segments:
                key, value = heads[None, : segment.end].split(attn.heads, dim=2)
                mine = queries[None, segment.begin - part.begin : segment.end - part.begin]
                attended.append(attention(mine, key, value, causal=segment.text)[0].flatten(1))
        y = linear(attn.to_out[0], torch.cat(attended) if len(attended) > 1 else attended[0])
        stream = Stream(x, 0, y, modulation[:, ATTENTION_GATE])
        mlp = block.img_mlp
        x, normed = stream.norm(modulation, MLP, block.img_norm2.eps, isinstance(mlp.gate_layer, Fp8Linear))
        return Stream(x, 0, swiglu(mlp.gate_layer, mlp.proj, mlp.out, normed), modulation[:, MLP_GATE])

    def _leave_keys_values(self, normed: Rows, rope: Rope, parts: Sequence[Part]) -> None:
        """Those of one sample are written where they stay."""
        attn, places = self.block.attn, [part.keys_values[part.begin : part.end] for part in parts]
        rows = places[0] if len(places) == 1 else places[0].new_empty((len(normed), places[0].shape[1]))
        linear(self.key_value, normed, rows)
        keys = rows.unflatten(1, (2 * attn.heads, -1))[:, : attn.heads]
        rotate_(keys, rope.cos, rope.sin, True, _group(attn.norm_k), 0, attn.norm_k.eps)
        if len(places) > 1:
            for place, mine in zip(places, rows.split([len(part) for part in parts]), strict=True):
                place.copy_(mine)


def _group(norm: Any) -> Tensor:
    """A norm's weight as `rotate_` takes it: one kind of tokens, one group of heads."""
    return norm.weight.detach()[None, None]
