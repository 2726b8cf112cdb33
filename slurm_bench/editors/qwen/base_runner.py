"""What our own denoising loops share: from pictures and a seed to an edited picture, each part timed."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from slurm_bench.editors.qwen.images import Size, target_size
from slurm_bench.editors.qwen.stock import EditResult, require_finite, synchronize
from slurm_bench.kernels.attention import select_kernel


@dataclass(frozen=True)
class Wish:
    """What of a sample goes into an edit. `embeds` may still be computing."""

    images: list[Image.Image]
    seed: int
    embeds: Any


@dataclass(frozen=True)
class Sample:
    """What the denoising loop works on: noise [1, T_noise, Z] and the sources' latents [1, T_sources, Z]."""

    noise: Tensor
    sources: Tensor
    source_sizes: Sequence[Size]
    embeds: Any


class BaseRunner(ABC):
    """Edits with the processors, text encoder (which may be offloaded), VAE and scheduler of `pipeline`, and a
    transformer of our own. A family says how its prompts are encoded, its latents made, denoised and decoded."""

    def __init__(self, pipeline: Any, transformer: Any, sampling: Any) -> None:
        self.pipeline = pipeline
        self.transformer = transformer
        self.sampling = sampling
        self.device = pipeline.vae.device
        self.attention = select_kernel(self.device, pipeline.vae.dtype).name

    def wish(self, images: list[Image.Image], instruction: str, seed: int) -> Wish:
        """Encodes the prompts."""
        start = time.perf_counter()
        embeds = self._encode(images, instruction)
        return Wish(images, seed, replace(embeds, seconds=time.perf_counter() - start))

    @torch.no_grad()
    def edit(self, wishes: Sequence[Wish]) -> list[EditResult]:
        """Those of several have one `size`, are denoised as one batch, and share its seconds."""
        count, size = len(wishes), self.size(wishes[0])
        start = time.perf_counter() - sum(wish.embeds.seconds for wish in wishes)
        samples = [self._sample(wish, size) for wish in wishes]
        synchronize(self.device)
        conditioned = time.perf_counter()
        latents, forwards = self._denoise(samples, size)
        for each in latents:
            require_finite(each)
        synchronize(self.device)
        denoised = time.perf_counter()
        images = [self._decode(each, size) for each in latents]
        seconds = {
            "text": (conditioned - start) / count,
            "denoise": (denoised - conditioned) / count,
            "decode": (time.perf_counter() - denoised) / count,
        }
        return [EditResult(image, size, forwards, dict(seconds), self._skipped()) for image in images]

    def size(self, wish: Wish) -> Size:
        """Of the edited image. Raises SampleError for a source that is too long and thin."""
        return target_size(self.sampling.pixels, wish.images[-1])

    def _sample(self, wish: Wish, size: Size) -> Sample:
        source_sizes = [target_size(self._source_pixels(), image) for image in wish.images]
        noise, sources = self._prepare_latents(wish.images, source_sizes, size, wish.seed)
        return Sample(noise, sources, source_sizes, wish.embeds)

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
    def _denoise(self, samples: Sequence[Sample], size: Size) -> tuple[Sequence[Tensor], int]:
        """Each one's denoised latents [1, T_noise, Z], and how many forwards that took."""

    @abstractmethod
    def _decode(self, latents: Tensor, size: Size) -> Image.Image:
        """The picture."""
