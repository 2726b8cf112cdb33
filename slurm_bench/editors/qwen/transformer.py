"""The diffusion transformer's forward, exact but faster: it borrows the modules (and weights) of diffusers'
QwenImageTransformer2DModel and rearranges the work around them.

- Modulation depends on the timestep alone: all steps of a schedule at once, then looked up.
- RoPE in real numbers, which the compiler can fuse; complex ones it can't.
- Attention in the layout in which it was computed, by cuDNN where there is one (1.7 times FlashAttention-2 on an
  H100); what is left and right of it is compiled once for all blocks and all sizes.
- The text's projection once a prompt; the last block and the output layers for the noise's tokens alone.

A batch is one sample: at a megapixel a forward is bound by arithmetic, and batching buys nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from slurm_bench.editors.qwen.blocks import (
    ExactBlock,
    LastBlock,
    Layout,
    Modulation,
    after_attention,
    before_attention,
    size_varies,
)

KERNELS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
MAX_TABLES = 8  # 220 MB each at full size and 50 steps; one a picture size in use


@dataclass(frozen=True)
class Prompt:
    """A prompt behind the transformer's text projection, [1, tokens, dim], with its RoPE table."""

    hidden: Tensor
    rope: tuple[Tensor, Tensor]


class ExactTransformer(nn.Module):
    """`transformer` is diffusers' module, which stays usable; `compiled` compiles the blocks once. A caching
    library wants `uniform` blocks: the last one then treats its tokens as the others do."""

    def __init__(
        self,
        transformer: Any,
        compiled: bool = False,
        offload_modulation: bool = False,
        uniform: bool = False,
    ) -> None:
        super().__init__()
        before, after = before_attention, after_attention
        if compiled:
            before, after = torch.compile(before, fullgraph=True), torch.compile(after, fullgraph=True)
        self.source = transformer
        last = len(transformer.transformer_blocks) - 1
        self.transformer_blocks = nn.ModuleList(
            (LastBlock if index == last and not uniform else ExactBlock)(block, index, before, after)
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
            size_varies(1, mask)
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
        clean = source.time_text_embed(timesteps[:1] * 0, source.img_in.weight) if source.zero_cond_t else None
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

    def forward(self, latents: Tensor, prompt: Prompt, modulation: Modulation, step: int, layout: Layout) -> Tensor:
        """`latents` [1, tokens, channels], noise first, then sources → the noise's velocity."""
        image, text = self.source.img_in(latents), prompt.hidden
        with sdpa_kernel(KERNELS, set_priority=True):
            for block in self.transformer_blocks:
                text, image = block(image, text, modulation=modulation, step=step, layout=layout, text_rope=prompt.rope)
        image = self.source.norm_out(image[:, : layout.noise_tokens], modulation.temb[step : step + 1])
        return self.source.proj_out(image)


def _real(frequencies: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = (part.contiguous().unsqueeze(1) for part in (frequencies.real, frequencies.imag))
    size_varies(0, cos, sin)
    return cos, sin
