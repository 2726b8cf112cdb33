"""What our own denoising loops share: from pictures and a seed to an edited picture, each part timed."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from slurm_bench.editors.qwen.images import Size, target_size
from slurm_bench.editors.qwen.stock import EditResult, require_finite, synchronize
from slurm_bench.kernels.attention import select_kernel


class BaseRunner(ABC):
    """Edits with the processors, text encoder (which may be offloaded), VAE and scheduler of `pipeline`, and a
    transformer of our own. A family says how its prompts are encoded, its latents made, denoised and decoded."""

    def __init__(self, pipeline: Any, transformer: Any, sampling: Any) -> None:
        self.pipeline = pipeline
        self.transformer = transformer
        self.sampling = sampling
        self.device = pipeline.vae.device
        self.attention = select_kernel(self.device, pipeline.vae.dtype).name

    def edit(self, images: list[Image.Image], instruction: str, seed: int) -> EditResult:
        start = time.perf_counter()
        return self.edit_with_embeds(images, seed, self._encode(images, instruction), start)

    @torch.no_grad()
    def edit_with_embeds(
        self, images: list[Image.Image], seed: int, embeds: Any, start: float | None = None
    ) -> EditResult:
        """`start` is when the encoding of `embeds`, which a GPU may still be computing, began on the clock of
        time.perf_counter; without it they were encoded ahead."""
        start = time.perf_counter() - embeds.seconds if start is None else start
        size = target_size(self.sampling.pixels, images[-1])
        source_sizes = [target_size(self._source_pixels(), image) for image in images]
        noise, sources = self._prepare_latents(images, source_sizes, size, seed)
        synchronize(self.device)
        conditioned = time.perf_counter()
        latents, forwards = self._denoise(noise, sources, size, source_sizes, embeds)
        require_finite(latents)
        synchronize(self.device)
        denoised = time.perf_counter()
        image = self._decode(latents, size)
        seconds = {
            "text": conditioned - start,
            "denoise": denoised - conditioned,
            "decode": time.perf_counter() - denoised,
        }
        return EditResult(image, size, forwards, seconds, self._skipped())

    def _skipped(self) -> dict[str, int] | None:
        """How many forwards of the last edit were not computed, where a profile skips any."""
        return None

    @abstractmethod
    def _source_pixels(self) -> int:
        """The area that the VAE sees a source at."""

    @abstractmethod
    def _encode(self, images: list[Image.Image], instruction: str) -> Any:
        """The prompts' embeddings: a dataclass with `seconds` and `to(device)`."""

    @abstractmethod
    def _prepare_latents(
        self, images: list[Image.Image], source_sizes: list[Size], size: Size, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Noise [1, T_noise, Z] and the sources' latents [1, T_sources, Z]. Noise is drawn on the CPU, so that a seed
        means the same on any GPU."""

    @abstractmethod
    def _denoise(
        self, noise: Tensor, sources: Tensor, size: Size, source_sizes: Sequence[Size], embeds: Any
    ) -> tuple[Tensor, int]:
        """The denoised latents [1, T_noise, Z], and how many forwards that took."""

    @abstractmethod
    def _decode(self, latents: Tensor, size: Size) -> Image.Image:
        """The picture."""
