"""Qwen-Image-Edit, as the bench measures it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from slurm_bench.bench.model import Model, Schedule
from slurm_bench.editors.base import EditRequest
from slurm_bench.editors.qwen.flops import ForwardFlops, forward_flops
from slurm_bench.editors.qwen.images import MEGAPIXEL, target_size
from slurm_bench.editors.qwen.profiles import Profile
from slurm_bench.editors.qwen.random_weights import random_pipeline
from slurm_bench.editors.qwen.session import Session
from slurm_bench.editors.qwen.settings import Settings

# The last is what a few-step LoRA asks for: no guidance, and a schedule of its own.
SCHEDULES = {
    "full": (Schedule(50, 4.0), Schedule(10, 4.0), Schedule(4, 1.0, "lightning")),
    "tiny": (Schedule(3, 4.0), Schedule(2, 4.0), Schedule(2, 1.0, "lightning")),
}


def _session(size: str, device: str, dtype: str, profile: Profile) -> Session:
    first = SCHEDULES[size][0]
    settings = Settings(
        "random weights",
        dtype=dtype,
        num_inference_steps=first.steps,
        true_cfg_scale=first.scale,
        max_pixels=MEGAPIXEL if size == "full" else 128 * 128,
    )
    return Session(random_pipeline(size, device, dtype), profile, settings, device, None)


def _grids(session: Session, request: EditRequest) -> list[tuple[int, int, int]]:
    """The noise's, and the source's, which is seen at a megapixel whatever is asked for."""
    side = 2 * session.pipeline.vae_scale_factor
    sizes = [target_size(pixels, request.image) for pixels in (session.sampling.pixels, MEGAPIXEL)]
    return [(1, size.height // side, size.width // side) for size in sizes]


@torch.no_grad()
def _inputs(session: Session, request: EditRequest) -> dict[str, Any]:
    """Random latents, the request's own text."""
    vae, grids = session.pipeline.vae, _grids(session, request)
    texts = session.encode(list(request.images), request.instruction)
    shape = 1, sum(map(math.prod, grids)), session.pipeline.transformer.config.in_channels
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return {
        "hidden_states": latents.to(vae.device, vae.dtype),
        "encoder_hidden_states": texts.positive,
        "timestep": torch.tensor([0.9], device=vae.device, dtype=vae.dtype),
        "img_shapes": [grids],
    }


def _noise(velocity: Tensor, inputs: dict[str, Any]) -> Tensor:
    return velocity[:, : math.prod(inputs["img_shapes"][0][0])]


@torch.no_grad()
def _velocity(session: Session, inputs: dict[str, Any]) -> Tensor:
    if not session.profile.own_loop:
        return _noise(session.pipeline.transformer(**inputs)[0], inputs)
    exact = session.runner.transformer
    prompt = exact.project_prompt(inputs["encoder_hidden_states"], inputs["img_shapes"][0])
    return exact(inputs["hidden_states"], prompt, exact.modulation(inputs["timestep"]), 0)


def _flops(session: Session, request: EditRequest, steps: int) -> list[tuple[int, ForwardFlops]]:
    """Forwards that are skipped too, as they are what the cache saves."""
    texts = session.encode(list(request.images), request.instruction)
    image_tokens = sum(map(math.prod, _grids(session, request)))
    config = session.pipeline.transformer.config
    return [
        (steps, forward_flops(image_tokens, text.shape[1], config))
        for text in (texts.positive, texts.negative)
        if text is not None
    ]


QWEN_IMAGE_EDIT = Model(SCHEDULES, _session, _inputs, _velocity, _noise, _flops)
