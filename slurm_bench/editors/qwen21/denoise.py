"""Our own denoising loop: the pipeline's arithmetic, step by step, over `ExactTransformer`.

Shapes: T tokens, Z channels of a latent token (64), E channels of the text encoder (4096).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from slurm_bench.editors.qwen.base_runner import BaseRunner, Sample
from slurm_bench.editors.qwen.images import Size, target_size
from slurm_bench.editors.qwen.narrow import forget_outliers
from slurm_bench.editors.qwen.schedule import set_timesteps
from slurm_bench.editors.qwen.stock import to_picture
from slurm_bench.editors.qwen21.settings import Sampling
from slurm_bench.editors.qwen21.transformer import Grid, Prefix

SLOT = 4  # tokens of a source that stand where the text encoder has one


@dataclass(frozen=True)
class Prompt:
    """What the text encoder made of the text, [T_text, E]; what it made of the sources isn't used. `texts` are how many
    tokens stand before each source and behind the last."""

    embeds: Tensor
    texts: tuple[int, ...]

    def to(self, device: str) -> Prompt:
        return Prompt(self.embeds.to(device), self.texts)


@dataclass(frozen=True)
class Prompts:
    """A sample's prompt and the negative one. `seconds` is how long encoding took, where it was done ahead."""

    positive: Prompt
    negative: Prompt | None
    seconds: float = 0.0

    def to(self, device: str) -> Prompts:
        return Prompts(self.positive.to(device), self.negative and self.negative.to(device), self.seconds)


class ExactRunner(BaseRunner):
    def _source_pixels(self) -> int:
        pixels: int = self.sampling.pixels
        return pixels

    def grid(self, size: Size) -> Grid:
        side = self.pipeline.vae_scale_factor
        return 1, size.height // side, size.width // side

    def _pixels(self, image: Image.Image, size: Size) -> Tensor:
        pixels: Tensor = self.pipeline.image_processor.preprocess(image, width=size.width, height=size.height)
        return pixels.unsqueeze(2)

    def _channels(self) -> int:
        return int(self.transformer.source.config.in_channels)

    def _denoise(self, samples: Sequence[Sample], size: Size) -> tuple[Sequence[Tensor], int]:
        scheduler, transformer, sampling = self.pipeline.scheduler, self.transformer, self.sampling
        first = samples[0]
        timesteps = set_timesteps(scheduler, list(sampling.sigmas), first.noise.shape[1], self.device)
        modulation = transformer.modulation(timesteps.to(first.noise.dtype) / 1000)
        forget_outliers(transformer.source)

        def prefix(sample: Sample, prompt: Prompt) -> Prefix:
            grids = [self.grid(each) for each in (*sample.source_sizes, size)]
            return transformer.prefix(prompt.embeds, prompt.texts, sample.sources, grids, modulation)

        positive = [prefix(sample, sample.embeds.positive) for sample in samples]
        guided = first.embeds.negative is not None
        negative = [prefix(sample, sample.embeds.negative) for sample in samples] if guided else None
        latents, forwards = torch.cat([sample.noise for sample in samples], dim=1), 0
        for step, timestep in enumerate(timesteps):
            velocity = transformer(latents, positive, modulation, step)
            forwards += 1
            if negative is not None:
                without = transformer(latents, negative, modulation, step)
                velocity = without + sampling.scale * (velocity - without)
                forwards += 1
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        return latents.chunk(len(samples), dim=1), forwards

    def _decode(self, latents: Tensor, size: Size) -> Image.Image:
        vae, config = self.pipeline.vae, self.pipeline.vae.config
        unpack = self.pipeline._unpack_latents
        latents = unpack(latents, size.height, size.width, self.pipeline.vae_scale_factor).to(vae.dtype)
        mean, deviation = (
            torch.tensor(values).view(1, -1, 1, 1, 1).to(latents)
            for values in (config.latents_mean, config.latents_std)
        )
        decoded = vae.decode(latents * deviation + mean, return_dict=False)[0][:, :, 0]
        return to_picture(self.pipeline, decoded)


@torch.no_grad()
def encode_prompts(pipeline: Any, images: list[Image.Image], instruction: str, sampling: Sampling) -> Prompts:
    """The text encoder sees the sources too, as large as the VAE does. On a GPU the result may still be computing."""
    sizes = [target_size(sampling.pixels, image) for image in images]
    resize = pipeline.image_processor.resize
    shown = [resize(image, width=size.width, height=size.height) for image, size in zip(images, sizes, strict=True)]
    side = pipeline.vae_scale_factor
    slots = [size.width * size.height // side**2 // SLOT for size in sizes]

    def encode(text: str) -> Prompt:
        embeds, _, is_image = pipeline.encode_prompt(text, image=shown)
        return Prompt(embeds[0][~is_image[0]], text_lengths(is_image[0].tolist(), slots))

    negative = sampling.negative_prompt
    return Prompts(encode(instruction), None if negative is None else encode(negative))


def text_lengths(is_image: Sequence[bool], slots: Sequence[int]) -> tuple[int, ...]:
    """How many tokens of text stand before each source, whose `slots` are known, and behind the last."""
    lengths, at = [], 0
    for count in slots:
        begin = is_image.index(True, at)
        lengths.append(begin - at)
        at = begin + count
    return (*lengths, len(is_image) - at)
