"""A block of the transformer over diffusers' modules: its matrix products and attention, and between them the
operations of `kernels`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slurm_bench.kernels.attention import attention
from slurm_bench.kernels.fp8 import Fp8Linear, stacked
from slurm_bench.kernels.ops import Rows, add_gated, feed_forward, linear, norm_modulate, rotate_

# Where a part stands in a row of modulation, of the attention's half and of the MLP's: a shift with its scale, and
# a gate.
ATTENTION, ATTENTION_GATE, MLP, MLP_GATE = slice(0, 2), 2, slice(3, 5), 5


@dataclass(frozen=True)
class Modulation:
    """One schedule's modulation, [steps, rows, 6, dim] a block; an image has a second row, for its source tokens,
    where the model takes these for free of noise (`zero_cond_t`)."""

    temb: Tensor  # [steps, dim]
    image: Sequence[Tensor]
    text: Sequence[Tensor]


@dataclass(frozen=True)
class Prompt:
    """A prompt behind the transformer's text projection, [1, tokens, dim], and with it what is the same at every
    step of a sample: RoPE's cosines and sines for text and images together, [tokens, head_dim / 2], float32."""

    hidden: Tensor
    cos: Tensor
    sin: Tensor
    noise_tokens: int


@dataclass(frozen=True)
class Stream:
    """Tokens between two blocks, [tokens, dim]: x + gates·y, which the next norm adds up on its way. Tokens before
    `boundary` take the first of the gates, [kinds, dim], the others the last."""

    x: Tensor
    boundary: int = 0
    y: Tensor | None = None
    gates: Tensor | None = None

    def sum(self) -> Tensor:
        if self.y is None or self.gates is None:
            return self.x
        return add_gated(self.x, self.y, self.gates, self.boundary)

    def normed(self, rows: Tensor, part: slice, eps: float, fp8: bool) -> tuple[Tensor, Rows]:
        """The sum, and its norm under that part of the modulation."""
        return norm_modulate(self.x, rows[:, part], self.boundary, eps, fp8, self.y, self.gates)


class ExactBlock(nn.Module):
    """One block. Its call is (hidden_states, encoder_hidden_states, …) → (text, image), the order that diffusers'
    own block has, so that a caching library takes it for one, on tensors [1, tokens, dim]; `work` does the same on
    streams.

    In a block that is the `last`, all tokens are still looked at, but only the noise's look, and go on: nobody
    reads the others.
    """

    norms: Tensor

    def __init__(self, block: Any, index: int, last: bool) -> None:
        super().__init__()
        self.block = block
        self.index = index
        self.last = last
        attn = block.attn
        self.text_qkv = stacked(attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        self.image_qkv = stacked(attn.to_q, attn.to_k, attn.to_v)
        norms = [attn.norm_added_q, attn.norm_added_k, attn.norm_q, attn.norm_k]
        weights = torch.stack([norm.weight.detach() for norm in norms]).unflatten(0, (2, 2))
        self.register_buffer("norms", weights)  # [text or image, query or key, head_dim]

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, modulation: Modulation, step: int, prompt: Prompt
    ) -> tuple[Tensor, Tensor]:
        image, text = Stream(hidden_states[0], prompt.noise_tokens), Stream(encoder_hidden_states[0])
        text, image = self.work(text, image, modulation, step, prompt)
        return text.sum()[None], image.sum()[None]

    def work(
        self, text: Stream, image: Stream, modulation: Modulation, step: int, prompt: Prompt
    ) -> tuple[Stream, Stream]:
        block, attn = self.block, self.block.attn
        image_rows, text_rows = modulation.image[self.index][step], modulation.text[self.index][step]
        fp8 = isinstance(self.image_qkv, Fp8Linear)
        image_x, image_in = image.normed(image_rows, ATTENTION, block.img_norm1.eps, fp8)
        fp8 = isinstance(self.text_qkv, Fp8Linear)
        text_x, text_in = text.normed(text_rows, ATTENTION, block.txt_norm1.eps, fp8)
        attended = self._attend(text_in, image_in, prompt)
        if self.last:
            image_x = image_x[: prompt.noise_tokens]
        else:
            to_text, attended = attended[: len(text_x)], attended[len(text_x) :]
            text = Stream(text_x, 0, linear(attn.to_add_out, to_text), text_rows[:, ATTENTION_GATE])
            text = _feed_forward(text, text_rows, block.txt_norm2, block.txt_mlp)
        y = linear(attn.to_out[0], attended)
        image = Stream(image_x, image.boundary, y, image_rows[:, ATTENTION_GATE])
        return text, _feed_forward(image, image_rows, block.img_norm2, block.img_mlp)

    def _attend(self, text: Rows, image: Rows, prompt: Prompt) -> Tensor:
        """Of text and image together, [tokens, dim], text first; in the last block, of the noise alone."""
        attn, length = self.block.attn, len(text)
        bias = self.image_qkv.bias
        joint = bias.new_empty((length + len(image), len(bias)))
        linear(self.text_qkv, text, joint[:length])
        linear(self.image_qkv, image, joint[length:])
        heads = joint.unflatten(1, (3 * attn.heads, -1))
        rotate_(heads[:, : 2 * attn.heads], prompt.cos, prompt.sin, True, self.norms, length, attn.norm_q.eps)
        query, key, value = heads[None].chunk(3, dim=2)
        if self.last:
            query = query[:, length : length + prompt.noise_tokens]
        return attention(query, key, value)[0].flatten(1)


def _feed_forward(stream: Stream, rows: Tensor, norm: Any, mlp: Any) -> Stream:
    """From the attention's output to the block's, for one of the two streams."""
    first, last = mlp.net[0].proj, mlp.net[2]
    x, hidden = stream.normed(rows, MLP, norm.eps, isinstance(first, Fp8Linear))
    return Stream(x, stream.boundary, feed_forward(first, last, hidden), rows[:, MLP_GATE])
