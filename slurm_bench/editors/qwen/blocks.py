"""A block of the transformer over diffusers' modules: what is left and right of the attention is pure functions
that are compiled once for all blocks and sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Modulation:
    """One schedule's modulation. Rows of shift, scale, gate, twice: [steps, rows, 6·dim] a block; an image has a
    second row, for its source tokens, where the model takes these for free of noise (`zero_cond_t`)."""

    temb: Tensor  # [steps, dim]
    image: Sequence[Tensor]
    text: Sequence[Tensor]


@dataclass(frozen=True)
class Layout:
    """What is the same at every step of a sample. RoPE tables are [tokens, 1, head_dim / 2], float32."""

    noise_tokens: int
    image_rope: tuple[Tensor, Tensor]
    source_mask: Tensor | None  # [1, tokens, 1]: which image tokens are the source's, for `zero_cond_t`


class ExactBlock(nn.Module):
    """One block. Its call is (hidden_states, encoder_hidden_states, …) → (text, image), the order that diffusers'
    own block has, so that a caching library takes it for one."""

    def __init__(self, block: Any, index: int, before: Callable[..., Any], after: Callable[..., Any]) -> None:
        super().__init__()
        self.block = block
        self.index = index
        self.before = before
        self.after = after

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        modulation: Modulation,
        step: int,
        layout: Layout,
        text_rope: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:
        image, text = hidden_states, encoder_hidden_states
        image_row, text_row = modulation.image[self.index][step], modulation.text[self.index][step]
        size_varies(1, image, text)
        query, key, value = self.before(
            self.block, image, text, image_row, text_row, layout.image_rope, text_rope, layout.source_mask
        )
        joined = _attention(query, key, value)
        return self.after(self.block, image, text, joined, image_row, text_row, layout.source_mask)


class LastBlock(ExactBlock):
    """All tokens are still looked at, but only the noise's look, and go on: nobody reads the others."""

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        modulation: Modulation,
        step: int,
        layout: Layout,
        text_rope: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:
        image, text = hidden_states, encoder_hidden_states
        image_row, text_row = modulation.image[self.index][step], modulation.text[self.index][step]
        noise = image[:, : layout.noise_tokens]
        size_varies(1, image, text, noise)
        query, key, value = self.before(
            self.block,
            image,
            text,
            image_row,
            text_row,
            layout.image_rope,
            text_rope,
            layout.source_mask,
            noise,
        )
        joined = _attention(query, key, value)
        return text, self.after(self.block, noise, None, joined, image_row[:1], text_row, None)


def before_attention(
    block: Any,
    image: Tensor,
    text: Tensor,
    image_row: Tensor,
    text_row: Tensor,
    image_rope: tuple[Tensor, Tensor],
    text_rope: tuple[Tensor, Tensor],
    source_mask: Tensor | None,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of text and image together, each [1, tokens, heads, head_dim], text first. With
    `noise`, the first tokens of `image`, queries are theirs alone."""
    attn = block.attn
    shape = (attn.heads, attn.inner_dim // attn.heads)
    shift, scale, _ = _parts(image_row, 0, source_mask)
    image = block.img_norm1(image) * (1 + scale) + shift
    shift, scale, _ = _parts(text_row, 0, None)
    text = block.txt_norm1(text) * (1 + scale) + shift

    key = torch.cat(
        [
            _rotate(attn.norm_added_k(attn.add_k_proj(text).unflatten(-1, shape)), text_rope),
            _rotate(attn.norm_k(attn.to_k(image).unflatten(-1, shape)), image_rope),
        ],
        dim=1,
    )
    value = torch.cat([attn.add_v_proj(text), attn.to_v(image)], dim=1).unflatten(-1, shape)
    if noise is not None:
        image = image[:, : noise.shape[1]]
        image_rope = image_rope[0][: noise.shape[1]], image_rope[1][: noise.shape[1]]
    query = _rotate(attn.norm_q(attn.to_q(image).unflatten(-1, shape)), image_rope)
    if noise is None:
        text_query = _rotate(attn.norm_added_q(attn.add_q_proj(text).unflatten(-1, shape)), text_rope)
        query = torch.cat([text_query, query], dim=1)
    return query, key, value


def after_attention(
    block: Any,
    image: Tensor,
    text: Tensor | None,
    joined: Tensor,
    image_row: Tensor,
    text_row: Tensor,
    source_mask: Tensor | None,
) -> Any:
    """From the attention's output, [1, tokens, heads, head_dim], to the block's: text and image, or with no
    `text` the image alone."""
    attn = block.attn
    length = 0 if text is None else text.shape[1]
    joined = joined.flatten(2)
    _, _, gate = _parts(image_row, 0, source_mask)
    image = image + gate * attn.to_out[0](joined[:, length:])
    shift, scale, gate = _parts(image_row, 1, source_mask)
    image = image + gate * block.img_mlp(block.img_norm2(image) * (1 + scale) + shift)
    if text is None:
        return image
    _, _, gate = _parts(text_row, 0, None)
    text = text + gate * attn.to_add_out(joined[:, :length])
    shift, scale, gate = _parts(text_row, 1, None)
    text = text + gate * block.txt_mlp(block.txt_norm2(text) * (1 + scale) + shift)
    return text, image


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Outside the compiled parts: the kernel is chosen for the tensors at hand, and no size is guarded."""
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    joined = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    size_varies(1, joined)
    return joined


def _parts(rows: Tensor, half: int, source_mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Shift, scale and gate for the attention (half 0) or the MLP (1): [1, 1, dim], or a row a token by mask."""
    shift, scale, gate = rows.chunk(2, dim=-1)[half].unsqueeze(1).chunk(3, dim=-1)
    if source_mask is None:
        return shift, scale, gate
    return tuple(torch.where(source_mask, part[1:2], part[0:1]) for part in (shift, scale, gate))  # type: ignore


def _rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Neighbouring channels are a pair's two coordinates, turned by its angle, in float32."""
    cos, sin = rope
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2).type_as(x)


def size_varies(dimension: int, *tensors: Tensor) -> None:
    """Tell the compiler beforehand: texts differ in length from prompt to prompt, images from sample to sample."""
    for tensor in tensors:
        torch._dynamo.maybe_mark_dynamic(tensor, dimension)
