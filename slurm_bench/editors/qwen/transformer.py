"""The diffusion transformer's forward, exact but faster: it borrows the modules (and weights) of diffusers'
QwenImageTransformer2DModel and rearranges the work around them.

- Modulation depends on the timestep alone: all steps of a schedule at once, then looked up.
- RoPE in real numbers, which the compiler can fuse; complex ones it can't.
- Attention in the layout in which it was computed, by cuDNN where there is one (1.7 times FlashAttention-2 on an
  H100); what is left and right of it is compiled once for all blocks and all sizes.
- The text's projection once a prompt; the output layers on the noise's tokens alone.

A batch is one sample: at a megapixel a forward is bound by arithmetic, and batching buys nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

KERNELS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
MAX_TABLES = 8  # 220 MB each at full size and 50 steps; one a picture size in use


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


@dataclass(frozen=True)
class Prompt:
    """A prompt behind the transformer's text projection, [1, tokens, dim], with its RoPE table."""

    hidden: Tensor
    rope: tuple[Tensor, Tensor]


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
        _size_varies(1, image, text)
        query, key, value = self.before(
            self.block, image, text, image_row, text_row, layout.image_rope, text_rope, layout.source_mask
        )
        joined = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        ).transpose(1, 2)
        _size_varies(1, joined)
        return self.after(self.block, image, text, joined, image_row, text_row, layout.source_mask)


class ExactTransformer(nn.Module):
    """`transformer` is diffusers' module, which stays usable; `compiled` compiles the blocks once."""

    def __init__(self, transformer: Any, compiled: bool = False, offload_modulation: bool = False) -> None:
        super().__init__()
        before, after = before_attention, after_attention
        if compiled:
            before, after = torch.compile(before, fullgraph=True), torch.compile(after, fullgraph=True)
        self.source = transformer
        self.transformer_blocks = nn.ModuleList(
            ExactBlock(block, index, before, after)
            for index, block in enumerate(transformer.transformer_blocks)
        )
        self.offload_modulation = offload_modulation
        self._tables: OrderedDict[tuple[float, ...], Modulation] = OrderedDict()
        if offload_modulation:
            for block in transformer.transformer_blocks:
                block.img_mod.to("cpu")
                block.txt_mod.to("cpu")

    def prompt(self, embeddings: Tensor, grids: Sequence[tuple[int, int, int]]) -> Prompt:
        """`embeddings` of the text encoder, [1, tokens, its dim]; `grids` as for `layout`."""
        source = self.source
        hidden = source.txt_in(source.txt_norm(embeddings))
        _, text = source.pos_embed([list(grids)], max_txt_seq_len=hidden.shape[1], device=hidden.device)
        return Prompt(hidden, _real(text))

    def layout(self, grids: Sequence[tuple[int, int, int]], device: torch.device) -> Layout:
        """`grids`: frames, rows and columns of tokens, of the noise and then of each source."""
        image, _ = self.source.pos_embed([list(grids)], max_txt_seq_len=1, device=device)
        noise = grids[0][0] * grids[0][1] * grids[0][2]
        mask = None
        if self.source.zero_cond_t:
            mask = (torch.arange(image.shape[0], device=device) >= noise)[None, :, None]
            _size_varies(1, mask)
        return Layout(noise, _real(image), mask)

    def modulation(self, timesteps: Tensor) -> Modulation:
        """The table for a schedule of timesteps in 0…1, in the dtype in which a forward would get them. Tables
        of the latest schedules are kept: the schedule depends on the picture's size."""
        key = tuple(timesteps.tolist())
        if key not in self._tables:
            while len(self._tables) >= MAX_TABLES:
                self._tables.popitem(last=False)
            self._tables[key] = self._modulation(timesteps)
        self._tables.move_to_end(key)
        return self._tables[key]

    def _modulation(self, timesteps: Tensor) -> Modulation:
        source = self.source
        temb = source.time_text_embed(timesteps, source.img_in.weight)
        clean = (
            source.time_text_embed(timesteps[:1] * 0, source.img_in.weight) if source.zero_cond_t else None
        )
        image, text = [], []
        for block in source.transformer_blocks:
            with self._on(block.img_mod, temb.device), self._on(block.txt_mod, temb.device):
                rows = block.img_mod(temb)[:, None]
                if clean is not None:
                    rows = torch.cat([rows, block.img_mod(clean).expand_as(rows[:, 0])[:, None]], dim=1)
                image.append(rows)
                text.append(block.txt_mod(temb)[:, None])
        return Modulation(temb, image, text)

    @contextmanager
    def _on(self, module: nn.Module, device: torch.device) -> Iterator[None]:
        if not self.offload_modulation:
            yield
            return
        module.to(device)
        try:
            yield
        finally:
            module.to("cpu")

    def forward(
        self, latents: Tensor, prompt: Prompt, modulation: Modulation, step: int, layout: Layout
    ) -> Tensor:
        """`latents` [1, tokens, channels], noise first, then sources → the noise's velocity."""
        image, text = self.source.img_in(latents), prompt.hidden
        with sdpa_kernel(KERNELS, set_priority=True):
            for block in self.transformer_blocks:
                text, image = block(
                    image, text, modulation=modulation, step=step, layout=layout, text_rope=prompt.rope
                )
        image = self.source.norm_out(image[:, : layout.noise_tokens], modulation.temb[step : step + 1])
        return self.source.proj_out(image)


def before_attention(
    block: Any,
    image: Tensor,
    text: Tensor,
    image_row: Tensor,
    text_row: Tensor,
    image_rope: tuple[Tensor, Tensor],
    text_rope: tuple[Tensor, Tensor],
    source_mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of text and image together, each [1, tokens, heads, head_dim], text first."""
    attn = block.attn
    shape = (attn.heads, attn.inner_dim // attn.heads)
    shift, scale, _ = _parts(image_row, 0, source_mask)
    image = block.img_norm1(image) * (1 + scale) + shift
    shift, scale, _ = _parts(text_row, 0, None)
    text = block.txt_norm1(text) * (1 + scale) + shift

    query = _rotate(attn.norm_q(attn.to_q(image).unflatten(-1, shape)), image_rope)
    key = _rotate(attn.norm_k(attn.to_k(image).unflatten(-1, shape)), image_rope)
    value = attn.to_v(image).unflatten(-1, shape)
    text_query = _rotate(attn.norm_added_q(attn.add_q_proj(text).unflatten(-1, shape)), text_rope)
    text_key = _rotate(attn.norm_added_k(attn.add_k_proj(text).unflatten(-1, shape)), text_rope)
    text_value = attn.add_v_proj(text).unflatten(-1, shape)
    return (
        torch.cat([text_query, query], dim=1),
        torch.cat([text_key, key], dim=1),
        torch.cat([text_value, value], dim=1),
    )


def after_attention(
    block: Any,
    image: Tensor,
    text: Tensor,
    joined: Tensor,
    image_row: Tensor,
    text_row: Tensor,
    source_mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """From the attention's output, [1, tokens, heads, head_dim], to the block's: text and image."""
    attn = block.attn
    length = text.shape[1]
    joined = joined.flatten(2)
    _, _, gate = _parts(image_row, 0, source_mask)
    image = image + gate * attn.to_out[0](joined[:, length:])
    shift, scale, gate = _parts(image_row, 1, source_mask)
    image = image + gate * block.img_mlp(block.img_norm2(image) * (1 + scale) + shift)

    _, _, gate = _parts(text_row, 0, None)
    text = text + gate * attn.to_add_out(joined[:, :length])
    shift, scale, gate = _parts(text_row, 1, None)
    text = text + gate * block.txt_mlp(block.txt_norm2(text) * (1 + scale) + shift)
    return text, image


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


def _real(frequencies: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = (part.contiguous().unsqueeze(1) for part in (frequencies.real, frequencies.imag))
    _size_varies(0, cos, sin)
    return cos, sin


def _size_varies(dimension: int, *tensors: Tensor) -> None:
    """Tell the compiler beforehand: texts differ in length from prompt to prompt, images from sample to sample."""
    for tensor in tensors:
        torch._dynamo.maybe_mark_dynamic(tensor, dimension)
