"""The diffusion transformer's forward: the mathematics of diffusers' QwenImageTransformer2DModel in fewer passes over
memory. Model: https://arxiv.org/abs/2508.02324.

It borrows the modules, and so the weights, of diffusers' transformer and rearranges the work around them.

- Modulation depends on the timestep alone. It is computed once for all steps of a schedule, then looked up.
- Between two matrix products there is one pass over the data (`kernels`): LayerNorm with modulation, the norms of
  query and key with RoPE in real numbers, gates with residuals. GELU is the epilogue of a matrix product.
- Query, key and value of a stream come from one matrix product each, written side by side for the attention kernel.
- The text is projected once a prompt. The output layers see the noise's tokens alone.

A batch is one sample: at a megapixel a forward is bound by arithmetic, and batching buys nothing.

Shapes: as in `blocks`, and S steps, E channels of the text encoder (3584), Z channels of a latent token (64).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from slurm_bench.editors.qwen.blocks import ExactBlock, Modulation, PromptContext
from slurm_bench.editors.qwen.stream import Stream
from slurm_bench.errors import FinalError

MAX_TABLES = 8  # 220 MB each at full size and 50 steps, one for each size of picture in use

# Frames, rows and columns of tokens.
Grid = tuple[int, int, int]


class ExactTransformer(nn.Module):
    """`transformer` is diffusers' module, which stays usable.

    A caching library needs `uniform` blocks: called one after the other on whole tensors, the last one like the others.
    """

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
        self._modulations: OrderedDict[tuple[float, ...], Modulation] = OrderedDict()
        if offload_modulation:
            for block in transformer.transformer_blocks:
                block.img_mod.to("cpu")
                block.txt_mod.to("cpu")

    def project_prompt(self, embeds: Tensor, grids: Sequence[Grid]) -> PromptContext:
        """From the text encoder's `embeds` [1, T_text, E]. `grids` are the noise's, then each source's. Raises
        FinalError for a prompt that RoPE's tables have no positions for."""
        source = self.source
        hidden_states = source.txt_in(source.txt_norm(embeds))
        text_tokens = hidden_states.shape[1]
        image_freqs, text_freqs = source.pos_embed(
            [list(grids)], max_txt_seq_len=text_tokens, device=hidden_states.device
        )
        if len(text_freqs) != text_tokens:
            raise FinalError(
                f"the prompt is {text_tokens} tokens long; the model has positions for {len(text_freqs)} at this size"
            )
        freqs_cis = torch.cat([text_freqs, image_freqs])
        frames, rows, columns = grids[0]
        cos, sin = freqs_cis.real.contiguous(), freqs_cis.imag.contiguous()
        return PromptContext(hidden_states, cos, sin, frames * rows * columns)

    def modulation(self, timesteps: Tensor) -> Modulation:
        """Of a schedule's `timesteps` [S] in 0…1, in the dtype in which a forward would get them. Those of the latest
        schedules are kept: a schedule depends on the size of the picture."""
        key = tuple(timesteps.tolist())
        if key not in self._modulations:
            while len(self._modulations) >= MAX_TABLES:
                self._modulations.popitem(last=False)
            self._modulations[key] = self._compute_modulation(timesteps)
        self._modulations.move_to_end(key)
        return self._modulations[key]

    def _compute_modulation(self, timesteps: Tensor) -> Modulation:
        source = self.source
        temb = source.time_text_embed(timesteps, source.img_in.weight)
        clean = source.time_text_embed(timesteps[:1] * 0, source.img_in.weight) if source.zero_cond_t else None
        image, text = [], []
        for block in source.transformer_blocks:
            with self._on_device(block.img_mod, temb.device), self._on_device(block.txt_mod, temb.device):
                rows = block.img_mod(temb)[:, None]
                if clean is not None:
                    rows = torch.cat([rows, block.img_mod(clean).expand_as(rows[:, 0])[:, None]], dim=1)
                image.append(rows.unflatten(-1, (6, -1)))
                text.append(block.txt_mod(temb)[:, None].unflatten(-1, (6, -1)))
        return Modulation(temb, image, text)

    @contextmanager
    def _on_device(self, module: nn.Module, device: torch.device) -> Iterator[None]:
        if not self.offload_modulation:
            yield
            return
        module.to(device)
        try:
            yield
        finally:
            module.to("cpu")

    def forward(self, latents: Tensor, prompt: PromptContext, modulation: Modulation, step: int) -> Tensor:
        """`latents` [1, T_image, Z], the noise's tokens first → the noise's velocity [1, T_noise, Z]."""
        image, text = self.source.img_in(latents), prompt.hidden_states
        if self.uniform:
            for block in self.transformer_blocks:
                text, image = block(image, text, modulation=modulation, step=step, prompt=prompt)
        else:
            streams = Stream(text[0]), Stream(image[0], prompt.noise_tokens)
            for block in self.transformer_blocks:
                assert isinstance(block, ExactBlock)
                streams = block.forward_streams(*streams, modulation, step, prompt)
            image = streams[1].sum()[None]
        image = self.source.norm_out(image[:, : prompt.noise_tokens], modulation.temb[step : step + 1])
        return self.source.proj_out(image)
