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

# Where a part stands in a row of modulation, of the attention's half and of the MLP's: a shift, with its scale
# behind it, and a gate.
ATTENTION, ATTENTION_GATE, MLP, MLP_GATE = 0, 2, 3, 5


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


class ExactBlock(nn.Module):
    """One block. Its call is (hidden_states, encoder_hidden_states, …) → (text, image), the order that diffusers'
    own block has, so that a caching library takes it for one. Tensors are [1, tokens, dim].

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
        block, attn, noise = self.block, self.block.attn, prompt.noise_tokens
        image, text = hidden_states[0], encoder_hidden_states[0]
        image_rows, text_rows = modulation.image[self.index][step], modulation.text[self.index][step]
        fp8 = isinstance(self.image_qkv, Fp8Linear)
        _, image_in = norm_modulate(image, image_rows, ATTENTION, noise, block.img_norm1.eps, fp8)
        fp8 = isinstance(self.text_qkv, Fp8Linear)
        _, text_in = norm_modulate(text, text_rows, ATTENTION, 0, block.txt_norm1.eps, fp8)
        joined = self._attend(text_in, image_in, prompt)
        if self.last:
            image, attended = image[:noise], joined
        else:
            attended = joined[len(text) :]
            y = linear(attn.to_add_out, joined[: len(text)])
            text = _feed_forward(text, y, text_rows, 0, block.txt_norm2, block.txt_mlp)
        y = linear(attn.to_out[0], attended)
        image = _feed_forward(image, y, image_rows, noise, block.img_norm2, block.img_mlp)
        return text[None], image[None]

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


def _feed_forward(x: Tensor, attended: Tensor, rows: Tensor, boundary: int, norm: Any, mlp: Any) -> Tensor:
    """From the attention's output to the block's, for one of the two streams."""
    first, last = mlp.net[0].proj, mlp.net[2]
    fp8 = isinstance(first, Fp8Linear)
    x, hidden = norm_modulate(x, rows, MLP, boundary, norm.eps, fp8, attended, ATTENTION_GATE)
    return add_gated(x, feed_forward(first, last, hidden), rows, MLP_GATE, boundary)
