"""A block of the transformer over diffusers' modules: matrix products and attention, with the operations of `kernels`
between them. The architecture is MMDiT's (https://arxiv.org/abs/2403.03206): text and image have weights of their own
and attend to each other.

Shapes
    T  tokens of a stream: text, or image (the noise's tokens, then each source's)
    D  channels of a token (3072)
    H  heads (24)
    C  channels of a head (128)
    S  steps of the schedule
    K  kinds of tokens: noise and source where the model modulates them apart (`zero_cond_t`), else 1
A batch is one sample, so most tensors have no batch dimension.
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
from slurm_bench.kernels.ops import Rows, feed_forward, linear, rotate_


@dataclass(frozen=True)
class Modulation:
    """The modulation of every step of a schedule, a tensor [S, K, 6, D] a block. It depends on the timestep alone."""

    temb: Tensor  # [S, D], the embedded timesteps
    image: Sequence[Tensor]
    text: Sequence[Tensor]


@dataclass(frozen=True)
class PromptContext:
    """What every step of a sample shares: the projected prompt [1, T_text, D], and RoPE's tables
    [T_text + T_image, C / 2] in float32."""

    hidden_states: Tensor
    cos: Tensor
    sin: Tensor
    noise_tokens: int


class ExactBlock(nn.Module):
    """One block. `forward` has the arguments and results of diffusers' own block, so that a caching library can call
    it; `forward_streams` is the same on streams, without the sums between blocks.

    Only the noise's tokens are read behind the last block. With `last`, it therefore computes keys and values of all
    tokens, but queries, MLP and output of the noise's tokens alone.
    """

    norm_weights: Tensor
    weights_here: Callable[[], AbstractContextManager[None]] = nullcontext  # another where they wait on the host

    def __init__(self, block: Any, index: int, last: bool) -> None:
        super().__init__()
        self.block = block
        self.index = index
        self.last = last
        attn = block.attn
        self.text_qkv = stack_linears(attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        self.image_qkv = stack_linears(attn.to_q, attn.to_k, attn.to_v)
        norms = [attn.norm_added_q, attn.norm_added_k, attn.norm_q, attn.norm_k]
        weights = torch.stack([norm.weight.detach() for norm in norms]).unflatten(0, (2, 2))
        self.register_buffer("norm_weights", weights)  # [text or image, query or key, C]

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        modulation: Modulation,
        step: int,
        prompt: PromptContext,
    ) -> tuple[Tensor, Tensor]:
        """Image [1, T, D] and text [1, T, D] → (text, image)."""
        image, text = Stream(hidden_states[0], prompt.noise_tokens), Stream(encoder_hidden_states[0])
        text, image = self.forward_streams(text, image, modulation, step, prompt)
        return text.sum()[None], image.sum()[None]

    def forward_streams(
        self, text: Stream, image: Stream, modulation: Modulation, step: int, prompt: PromptContext
    ) -> tuple[Stream, Stream]:
        """(text, image) → (text, image)."""
        with self.weights_here():
            return self._forward_streams(text, image, modulation, step, prompt)

    def _forward_streams(
        self, text: Stream, image: Stream, modulation: Modulation, step: int, prompt: PromptContext
    ) -> tuple[Stream, Stream]:
        block, attn = self.block, self.block.attn
        image_mod, text_mod = modulation.image[self.index][step], modulation.text[self.index][step]
        fp8 = isinstance(self.image_qkv, Fp8Linear)
        image_x, image_in = image.norm(image_mod, ATTENTION, block.img_norm1.eps, fp8)
        fp8 = isinstance(self.text_qkv, Fp8Linear)
        text_x, text_in = text.norm(text_mod, ATTENTION, block.txt_norm1.eps, fp8)
        attended = self._attend(text_in, image_in, prompt)
        if self.last:
            image_x = image_x[: prompt.noise_tokens]
        else:
            text_attended, attended = attended[: len(text_x)], attended[len(text_x) :]
            text = Stream(text_x, 0, linear(attn.to_add_out, text_attended), text_mod[:, ATTENTION_GATE])
            text = _feed_forward(text, text_mod, block.txt_norm2, block.txt_mlp)
        y = linear(attn.to_out[0], attended)
        image = Stream(image_x, image.boundary, y, image_mod[:, ATTENTION_GATE])
        return text, _feed_forward(image, image_mod, block.img_norm2, block.img_mlp)

    def _attend(self, text: Rows, image: Rows, prompt: PromptContext) -> Tensor:
        """Joint attention, [T_text + T_image, D] with the text first; in the last block [T_noise, D].

        Queries and keys are RMS-normalized by head (https://arxiv.org/abs/2302.05442) before RoPE.
        """
        attn, text_tokens = self.block.attn, len(text)
        bias = self.image_qkv.bias
        qkv = bias.new_empty((text_tokens + len(image), len(bias)))
        linear(self.text_qkv, text, qkv[:text_tokens])
        linear(self.image_qkv, image, qkv[text_tokens:])
        heads = qkv.unflatten(1, (3 * attn.heads, -1))
        query_key = heads[:, : 2 * attn.heads]
        rotate_(query_key, prompt.cos, prompt.sin, True, self.norm_weights, text_tokens, attn.norm_q.eps)
        query, key, value = heads[None].chunk(3, dim=2)
        if self.last:
            query = query[:, text_tokens : text_tokens + prompt.noise_tokens]
        return attention(query, key, value)[0].flatten(1)


def _feed_forward(stream: Stream, modulation: Tensor, norm: Any, mlp: Any) -> Stream:
    """The second half of a block, for one of the two streams."""
    first, last = mlp.net[0].proj, mlp.net[2]
    x, normed = stream.norm(modulation, MLP, norm.eps, isinstance(first, Fp8Linear))
    return Stream(x, stream.boundary, feed_forward(first, last, normed), modulation[:, MLP_GATE])
