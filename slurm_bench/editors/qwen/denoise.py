"""Our own denoising loop: the pipeline's arithmetic, step by step, over `ExactTransformer`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from slurm_bench.editors.qwen.cache import StepCache
from slurm_bench.editors.qwen.images import CONDITION_PIXELS, MEGAPIXEL, Size, canvas
from slurm_bench.editors.qwen.settings import Sampling
from slurm_bench.editors.qwen.stock import Outcome, require_finite, synchronize
from slurm_bench.editors.qwen.transformer import ExactTransformer, Prompt


@dataclass(frozen=True)
class Conditions:
    """A sample's text embeddings, [1, tokens, dim]; on the CPU while they wait for their turn."""

    positive: Tensor
    negative: Tensor | None

    def on(self, device: str) -> Conditions:
        return Conditions(self.positive.to(device), None if self.negative is None else self.negative.to(device))


class ExactRunner:
    """`pipeline` lends its parts: processors, text encoder (which may be gone), VAE and scheduler."""

    def __init__(
        self,
        pipeline: Any,
        transformer: ExactTransformer,
        sampling: Sampling,
        plus: bool,
        cache: StepCache | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.transformer = transformer
        self.sampling = sampling
        self.plus = plus
        self.cache = cache
        self.device = pipeline.vae.device

    def run(self, images: list[Image.Image], prompt: str, seed: int) -> Outcome:
        begin = time.perf_counter()
        conditions = encode_prompts(self.pipeline, images, prompt, self.sampling, self.plus)
        return self.finish(images, seed, conditions, begin)

    @torch.no_grad()
    def finish(self, images: list[Image.Image], seed: int, conditions: Conditions, begin: float) -> Outcome:
        """The edit of `images` whose text is encoded, or on its way; `begin` is when the sample's work began, on
        time.perf_counter's clock."""
        size = canvas(self.sampling.pixels, images[-1])
        sources = [canvas(MEGAPIXEL, image) for image in images]
        noise, source = self._latents(images, sources, size, seed)
        synchronize(self.device)
        encoded = time.perf_counter()
        latents, forwards = self._denoise(noise, source, [self._grid(s) for s in (size, *sources)], conditions)
        require_finite(latents)
        synchronize(self.device)
        denoised = time.perf_counter()
        edited = self._decode(latents, size)
        seconds = {
            "text": encoded - begin,
            "denoise": denoised - encoded,
            "decode": time.perf_counter() - denoised,
        }
        return Outcome(edited, size, forwards, seconds, self.cache.skipped() if self.cache else None)

    def _grid(self, size: Size) -> tuple[int, int, int]:
        side = 2 * self.pipeline.vae_scale_factor
        return 1, size.height // side, size.width // side

    def _latents(self, images: list[Image.Image], sources: list[Size], size: Size, seed: int) -> tuple[Tensor, Tensor]:
        """Noise (drawn on the CPU: a seed means the same on any GPU) and the sources' latents, as tokens."""
        prepare = self.pipeline.image_processor.preprocess
        tensors = [prepare(image, s.height, s.width).unsqueeze(2) for image, s in zip(images, sources, strict=True)]
        return self.pipeline.prepare_latents(
            tensors if self.plus else tensors[0],
            1,
            self.transformer.source.config.in_channels // 4,
            size.height,
            size.width,
            self.pipeline.vae.dtype,
            self.device,
            torch.Generator().manual_seed(seed),
        )

    def _denoise(
        self, noise: Tensor, source: Tensor, grids: Sequence[tuple[int, int, int]], conditions: Conditions
    ) -> tuple[Tensor, int]:
        scheduler, transformer, sampling = self.pipeline.scheduler, self.transformer, self.sampling
        timesteps = set_timesteps(scheduler, sampling.steps, noise.shape[1], self.device)
        modulation = transformer.modulation(timesteps.to(noise.dtype) / 1000)
        positive, negative = (
            None if embeddings is None else transformer.prompt(embeddings, grids)
            for embeddings in (conditions.positive, conditions.negative)
        )
        assert positive is not None
        transformer.begin()
        if self.cache:
            self.cache.begin()
        latents, forwards = noise, 0

        def predict(prompt: Prompt, step: int) -> Tensor:
            nonlocal forwards
            forwards += 1
            return transformer(torch.cat([latents, source], dim=1), prompt, modulation, step)

        for step, timestep in enumerate(timesteps):
            velocity = predict(positive, step)
            if negative is not None:
                velocity = guide(velocity, predict(negative, step), sampling.scale)
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        return latents, forwards

    def _decode(self, latents: Tensor, size: Size) -> Image.Image:
        vae, config = self.pipeline.vae, self.pipeline.vae.config
        latents = self.pipeline._unpack_latents(latents, size.height, size.width, self.pipeline.vae_scale_factor).to(
            vae.dtype
        )
        mean, deviation = (
            torch.tensor(values).view(1, -1, 1, 1, 1) for values in (config.latents_mean, config.latents_std)
        )
        inverse = 1.0 / deviation.to(latents)
        decoded = vae.decode(latents / inverse + mean.to(latents), return_dict=False)[0][:, :, 0]
        shades = self.pipeline.image_processor.postprocess(decoded, output_type="pt")[0].float()
        return Image.fromarray((shades * 255).round().byte().permute(1, 2, 0).cpu().numpy())


@torch.no_grad()
def encode_prompts(pipeline: Any, images: list[Image.Image], prompt: str, sampling: Sampling, plus: bool) -> Conditions:
    """What the text encoder sees: Edit the source at a megapixel, Edit-Plus each at 384². On a GPU the result may
    still be computing."""
    resize = pipeline.image_processor.resize
    shown = [
        resize(image, s.height, s.width)
        for image in images
        for s in [canvas(CONDITION_PIXELS if plus else MEGAPIXEL, image)]
    ]
    positive, negative = (
        None if text is None else pipeline.encode_prompt(text, image=shown if plus else shown[0])[0]
        for text in (prompt, sampling.negative_prompt)
    )
    assert positive is not None
    return Conditions(positive, negative)


def set_timesteps(scheduler: Any, steps: int, tokens: int, device: torch.device) -> Tensor:
    """The schedule, shifted for `tokens` of noise as the pipeline shifts it; the scheduler is ready for step 0."""
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit import calculate_shift

    config = scheduler.config
    shift = calculate_shift(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), device=device, mu=shift)
    scheduler.set_begin_index(0)
    return scheduler.timesteps


def guide(positive: Tensor, negative: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance, each token scaled back to the length that it has with the prompt."""
    guided = negative + scale * (positive - negative)
    return guided * (positive.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
