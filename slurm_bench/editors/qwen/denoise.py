"""Our own denoising loop: the pipeline's arithmetic, step by step, over `ExactTransformer`.

Shapes: T tokens, Z channels of a latent token (64), E channels of the text encoder (3584).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from slurm_bench.editors.qwen.base_runner import BaseRunner, Sample
from slurm_bench.editors.qwen.cache import StepCache
from slurm_bench.editors.qwen.images import CONDITION_PIXELS, MEGAPIXEL, Size, target_size
from slurm_bench.editors.qwen.narrow import forget_outliers
from slurm_bench.editors.qwen.schedule import even_sigmas, set_timesteps
from slurm_bench.editors.qwen.settings import Sampling
from slurm_bench.editors.qwen.stock import to_picture
from slurm_bench.editors.qwen.transformer import ExactTransformer, Grid, PromptContext


@dataclass(frozen=True)
class PromptEmbeds:
    """The text encoder's output for a sample's prompt and for the negative one, [1, T_text, E]. `seconds` is how long
    it took, where it was encoded ahead."""

    positive: Tensor
    negative: Tensor | None
    seconds: float = 0.0

    def to(self, device: str) -> PromptEmbeds:
        negative = None if self.negative is None else self.negative.to(device)
        return PromptEmbeds(self.positive.to(device), negative, self.seconds)


class ExactRunner(BaseRunner):
    """Of Edit, or with `plus` of Edit-Plus."""

    def __init__(
        self,
        pipeline: Any,
        transformer: ExactTransformer,
        sampling: Sampling,
        plus: bool,
        cache: StepCache | None = None,
    ) -> None:
        super().__init__(pipeline, transformer, sampling)
        self.plus = plus
        self.cache = cache

    def _skipped(self) -> dict[str, int] | None:
        return self.cache.skipped() if self.cache else None

    def _source_pixels(self) -> int:
        return MEGAPIXEL

    def _grid(self, size: Size) -> Grid:
        side = 2 * self.pipeline.vae_scale_factor
        return 1, size.height // side, size.width // side

    def _pixels(self, image: Image.Image, size: Size) -> Tensor:
        pixels: Tensor = self.pipeline.image_processor.preprocess(image, size.height, size.width)
        return pixels.unsqueeze(2)

    def _channels(self) -> int:
        return int(self.transformer.source.config.in_channels) // 4

    def _as_given(self, pixels: Sequence[Tensor]) -> Any:
        return list(pixels) if self.plus else pixels[0]

    def _denoise(self, samples: Sequence[Sample], size: Size) -> tuple[Sequence[Tensor], int]:
        (sample,) = samples
        noise, sources, embeds = sample.noise, sample.sources, sample.embeds
        grids = [self._grid(each) for each in (size, *sample.source_sizes)]
        scheduler, transformer, sampling = self.pipeline.scheduler, self.transformer, self.sampling
        timesteps = set_timesteps(scheduler, even_sigmas(sampling.steps), noise.shape[1], self.device)
        modulation = transformer.modulation(timesteps.to(noise.dtype) / 1000)
        positive = transformer.project_prompt(embeds.positive, grids)
        negative = None if embeds.negative is None else transformer.project_prompt(embeds.negative, grids)
        forget_outliers(transformer.source)
        if self.cache:
            self.cache.reset()
        latents, forwards = noise, 0

        def predict(prompt: PromptContext, step: int) -> Tensor:
            nonlocal forwards
            forwards += 1
            return transformer(torch.cat([latents, sources], dim=1), prompt, modulation, step)

        for step, timestep in enumerate(timesteps):
            velocity = predict(positive, step)
            if negative is not None:
                velocity = guide(velocity, predict(negative, step), sampling.scale)
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        return [latents], forwards

    def _decode(self, latents: Tensor, size: Size) -> Image.Image:
        vae, config = self.pipeline.vae, self.pipeline.vae.config
        unpack = self.pipeline._unpack_latents
        latents = unpack(latents, size.height, size.width, self.pipeline.vae_scale_factor).to(vae.dtype)
        mean, deviation = (
            torch.tensor(values).view(1, -1, 1, 1, 1) for values in (config.latents_mean, config.latents_std)
        )
        inverse = 1.0 / deviation.to(latents)  # divided twice, as the pipeline does it: it rounds otherwise
        decoded = vae.decode(latents / inverse + mean.to(latents), return_dict=False)[0][:, :, 0]
        return to_picture(self.pipeline, decoded)


def shown_pixels(plus: bool) -> int:
    """The area that the text encoder sees a source at."""
    return CONDITION_PIXELS if plus else MEGAPIXEL


@torch.no_grad()
def encode_prompts(
    pipeline: Any, images: list[Image.Image], instruction: str, sampling: Sampling, plus: bool
) -> PromptEmbeds:
    """The text encoder sees the images too: Edit's source at a megapixel, each of Edit-Plus's at 384². On a GPU the
    result may still be computing."""
    resize = pipeline.image_processor.resize
    shown = [
        resize(image, size.height, size.width) for image in images for size in [target_size(shown_pixels(plus), image)]
    ]
    positive, negative = (
        None if text is None else pipeline.encode_prompt(text, image=shown if plus else shown[0])[0]
        for text in (instruction, sampling.negative_prompt)
    )
    assert positive is not None
    return PromptEmbeds(positive, negative)


def guide(positive: Tensor, negative: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (https://arxiv.org/abs/2207.12598) of velocities [1, T, Z]. Each token is scaled back
    to the length that it has with the prompt alone, as in the pipeline."""
    guided = negative + scale * (positive - negative)
    return guided * (positive.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
