"""What our own denoising loops share: from pictures and a seed to an edited picture, each part timed."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from slurm_bench.editors.qwen.images import Size, target_size
from slurm_bench.editors.qwen.stock import EditResult, require_finite
from slurm_bench.kernels.attention import select_kernel


@dataclass(frozen=True)
class Prepared:
    """What a CPU makes of a sample, and has: the sources' `pixels`, each [1, bands, 1, Y, X] and of its own size, and
    the `noise` [1, T_noise, Z] of an edited image of `size`."""

    pixels: Sequence[Tensor]
    source_sizes: Sequence[Size]
    noise: Tensor
    size: Size


@dataclass(frozen=True)
class Wish:
    """What of a sample goes into an edit. `embeds` may still be computing."""

    prepared: Prepared
    embeds: Any


@dataclass(frozen=True)
class Sample:
    """What the denoising loop works on: noise [1, T_noise, Z] and the sources' latents [1, T_sources, Z]."""

    noise: Tensor
    sources: Tensor
    source_sizes: Sequence[Size]
    embeds: Any


class Moment:
    """Of the work that a GPU has been given, which isn't waited for; on a CPU, of the clock."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._event = self._recorded() if device.type == "cuda" else None
        self._time = time.perf_counter()

    def seconds_since(self) -> float:
        """Once the GPU has done what it has been given until now."""
        if self._event is None:
            return time.perf_counter() - self._time
        now = self._recorded()
        now.synchronize()
        return self._event.elapsed_time(now) / 1000

    def _recorded(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


class BaseRunner(ABC):
    """Edits with the processors, VAE and scheduler of `pipeline`, and a transformer of our own. A family says how
    sources are shown to the VAE, and how latents are denoised and decoded."""

    def __init__(self, pipeline: Any, transformer: Any, sampling: Any) -> None:
        self.pipeline = pipeline
        self.transformer = transformer
        self.sampling = sampling
        self.device = pipeline.vae.device
        self.attention = select_kernel(self.device, pipeline.vae.dtype).name
        self._thread = ThreadPoolExecutor(1, "prepare")

    def wish(self, images: list[Image.Image], instruction: str, seed: int, encode: Callable[[], Any]) -> Wish:
        """`encode` gives the prompts' embeddings: a dataclass with `seconds` and `to(device)`. What a CPU has to do
        besides, a thread does while a GPU is at that. Raises SampleError for a source that is too long and thin."""
        start = time.perf_counter()
        preparing = self._thread.submit(self._prepare, images, seed)
        embeds, prepared = encode(), preparing.result()
        return Wish(prepared, replace(embeds, seconds=embeds.seconds + time.perf_counter() - start))

    @torch.no_grad()
    def edit(self, wishes: Sequence[Wish]) -> list[EditResult]:
        """Those of several have one `size`, are denoised as one batch, and share its seconds. The GPU is waited for
        once they are denoised: until then it always has something to do."""
        count, size = len(wishes), wishes[0].prepared.size
        start = time.perf_counter() - sum(wish.embeds.seconds for wish in wishes)
        samples = [self._sample(wish) for wish in wishes]
        conditioned = Moment(self.device)
        latents, forwards = self._denoise(samples, size)
        for each in latents:
            require_finite(each)
        denoising = conditioned.seconds_since()
        denoised = time.perf_counter()
        images = [self._decode(each, size) for each in latents]
        seconds = {
            "text": (denoised - denoising - start) / count,
            "denoise": denoising / count,
            "decode": (time.perf_counter() - denoised) / count,
        }
        return [EditResult(image, size, forwards, dict(seconds), self._skipped()) for image in images]

    def _prepare(self, images: list[Image.Image], seed: int) -> Prepared:
        sizes = [target_size(self._source_pixels(), image) for image in images]
        size = target_size(self.sampling.pixels, images[-1])
        pixels = [self._pixels(image, each) for image, each in zip(images, sizes, strict=True)]
        return Prepared(pixels, sizes, self._noise(size, seed), size)

    def _noise(self, size: Size, seed: int) -> Tensor:
        """As the pipeline draws it, on the CPU, so that a seed means the same on any GPU."""
        pipeline, channels = self.pipeline, self._channels()
        rows, columns = (side // (2 * pipeline.vae_scale_factor) * 2 for side in (size.height, size.width))
        shape, generator = (1, 1, channels, rows, columns), torch.Generator().manual_seed(seed)
        drawn = torch.randn(shape, generator=generator, dtype=pipeline.vae.dtype)
        packed: Tensor = pipeline._pack_latents(drawn, 1, channels, rows, columns)
        return packed

    def _sample(self, wish: Wish) -> Sample:
        prepared, pipeline = wish.prepared, self.pipeline
        noise, sources = pipeline.prepare_latents(
            self._as_given(prepared.pixels),
            1,
            self._channels(),
            prepared.size.height,
            prepared.size.width,
            pipeline.vae.dtype,
            self.device,
            None,
            prepared.noise.to(self.device),
        )
        return Sample(noise, sources, prepared.source_sizes, wish.embeds)

    def _skipped(self) -> dict[str, int] | None:
        """How many forwards of the last edit were not computed, where a profile skips any."""
        return None

    @abstractmethod
    def _source_pixels(self) -> int:
        """The area that the VAE sees a source at."""

    @abstractmethod
    def _pixels(self, image: Image.Image, size: Size) -> Tensor:
        """A source as the VAE takes it, [1, bands, 1, Y, X]."""

    @abstractmethod
    def _channels(self) -> int:
        """Of a latent, before several of them are packed into a token."""

    def _as_given(self, pixels: Sequence[Tensor]) -> Any:
        """As the pipeline's `prepare_latents` takes them."""
        return list(pixels)

    @abstractmethod
    def _denoise(self, samples: Sequence[Sample], size: Size) -> tuple[Sequence[Tensor], int]:
        """Each one's denoised latents [1, T_noise, Z], and how many forwards that took."""

    @abstractmethod
    def _decode(self, latents: Tensor, size: Size) -> Image.Image:
        """The picture."""
