"""The diffusion transformer's forward, exact but faster: it borrows the modules (and weights) of diffusers'
QwenImageTransformer2DModel and rearranges the work around them.

- Modulation depends on the timestep alone: all steps of a schedule at once, then looked up.
- What stands between two matrix products is one pass over the data (`kernels`): norm with modulation, the query's
  and the key's norm with RoPE in real numbers, gates with residuals; GELU is the matrix product's epilogue.
- Query, key and value of text and image are written side by side by one matrix product each, for the GPU's fastest
  attention.
- The text's projection once a prompt; the last block and the output layers for the noise's tokens alone.

A batch is one sample: at a megapixel a forward is bound by arithmetic, and batching buys nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from slurm_bench.editors.qwen.blocks import ExactBlock, Modulation, Prompt, Stream
from slurm_bench.kernels.fp8 import OutlierLinear

MAX_TABLES = 8  # 220 MB each at full size and 50 steps; one a picture size in use


class ExactTransformer(nn.Module):
    """`transformer` is diffusers' module, which stays usable. A caching library wants `uniform` blocks, called
    one after the other on whole tensors: the last one then treats its tokens as the others do."""

    def __init__(self, transformer: Any, offload_modulation: bool = False, uniform: bool = False) -> None:
        super().__init__()
        self.source = transformer
        self.uniform = uniform
        last = len(transformer.transformer_blocks) - 1
        self.transformer_blocks = nn.ModuleList(
            ExactBlock(block, index, last=index == last and not uniform)
            for index, block in enumerate(transformer.transformer_blocks)
        )
        self.offload_modulation = offload_modulation
        self._tables: OrderedDict[tuple[float, ...], Modulation] = OrderedDict()
        if offload_modulation:
            for block in transformer.transformer_blocks:
                block.img_mod.to("cpu")
                block.txt_mod.to("cpu")

    def begin(self) -> None:
        """A sample depends on none before it."""
        for module in self.source.modules():
            if isinstance(module, OutlierLinear):
                module.forget()

    def prompt(self, embeddings: Tensor, grids: Sequence[tuple[int, int, int]]) -> Prompt:
        """`embeddings` of the text encoder, [1, tokens, its dim]; `grids`: frames, rows and columns of tokens, of
        the noise and then of each source."""
        source = self.source
        hidden = source.txt_in(source.txt_norm(embeddings))
        image, text = source.pos_embed([list(grids)], max_txt_seq_len=hidden.shape[1], device=hidden.device)
        turns = torch.cat([text, image])
        frames, rows, columns = grids[0]
        return Prompt(hidden, turns.real.contiguous(), turns.imag.contiguous(), frames * rows * columns)

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
                image.append(rows.unflatten(-1, (6, -1)))
                text.append(block.txt_mod(temb)[:, None].unflatten(-1, (6, -1)))
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

    def forward(self, latents: Tensor, prompt: Prompt, modulation: Modulation, step: int) -> Tensor:
        """`latents` [1, tokens, channels], noise first, then sources → the noise's velocity."""
        image, text = self.source.img_in(latents), prompt.hidden
        if self.uniform:
            for block in self.transformer_blocks:
                text, image = block(image, text, modulation=modulation, step=step, prompt=prompt)
        else:
            streams = Stream(text[0]), Stream(image[0], prompt.noise_tokens)
            for block in self.transformer_blocks:
                assert isinstance(block, ExactBlock)
                streams = block.work(*streams, modulation, step, prompt)
            image = streams[1].sum()[None]
        image = self.source.norm_out(image[:, : prompt.noise_tokens], modulation.temb[step : step + 1])
        return self.source.proj_out(image)
