"""Qwen-Image-2.1, as the bench measures it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from slurm_bench.bench.model import Model, Schedule
from slurm_bench.bench.random_qwen_image_21 import random_qwen_image_21
from slurm_bench.editors.base import EditRequest
from slurm_bench.editors.qwen.flops import ForwardFlops
from slurm_bench.editors.qwen.images import MEGAPIXEL, target_size
from slurm_bench.editors.qwen.profiles import Profile
from slurm_bench.editors.qwen21.flops import prefix_flops, step_flops
from slurm_bench.editors.qwen21.session import Session
from slurm_bench.editors.qwen21.settings import Settings

# The last is Turbo's own.
SCHEDULES = {
    "full": (Schedule(40, 1.0), Schedule(40, 4.0), Schedule(8, 1.0, "turbo")),
    "tiny": (Schedule(3, 1.0), Schedule(2, 4.0), Schedule(8, 1.0, "turbo")),
}


def _session(size: str, device: str, dtype: str, profile: Profile) -> Session:
    settings = Settings(
        "random weights",
        dtype=dtype,
        num_inference_steps=SCHEDULES[size][0].steps,
        max_pixels=MEGAPIXEL if size == "full" else 128 * 128,
    )
    return Session(random_qwen_image_21(size, device, dtype), profile, settings, device, None)


def _grids(session: Session, request: EditRequest) -> list[tuple[int, int, int]]:
    """The source's, and the noise's, which are of one size."""
    size, side = target_size(session.sampling.pixels, request.image), session.pipeline.vae_scale_factor
    return [(1, size.height // side, size.width // side)] * 2


@torch.no_grad()
def _inputs(session: Session, request: EditRequest) -> dict[str, Any]:
    """Random latents, and the text encoder's embeddings of the request's own prompt, with a place for each four of its
    source's latents and of the noise's."""
    vae, grids = session.pipeline.vae, _grids(session, request)
    prompt = session.encode(session.sources(request), request.instruction).positive
    shape = 1, sum(map(math.prod, grids)), session.pipeline.transformer.config.in_channels
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    slots = math.prod(grids[0]) // 4
    before, behind = prompt.texts
    embeds = prompt.embeds
    place = embeds.new_zeros((slots, embeds.shape[1]))
    is_image = [False] * before + [True] * slots + [False] * behind + [True] * slots
    return {
        "hidden_states": latents.to(vae.device, vae.dtype),
        "encoder_hidden_states": torch.cat([embeds[:before], place, embeds[before:]])[None],
        "timestep": torch.tensor([0.9], device=vae.device, dtype=vae.dtype),
        "img_shapes": [grids],
        "img_mask": torch.tensor([is_image], device=vae.device),
    }


def _noise(velocity: Tensor, inputs: dict[str, Any]) -> Tensor:
    return velocity[:, -math.prod(inputs["img_shapes"][0][-1]) :]


@torch.no_grad()
def _velocity(session: Session, inputs: dict[str, Any]) -> Tensor:
    if not session.profile.own_loop:
        return _noise(session.pipeline.transformer(**inputs, return_dict=False)[0], inputs)
    exact, grids = session.runner.transformer, inputs["img_shapes"][0]
    slots = math.prod(grids[0]) // 4
    (is_image,) = inputs["img_mask"][:, :-slots]
    embeds = inputs["encoder_hidden_states"][0][~is_image]
    before = is_image.tolist().index(True)
    sources, noise = inputs["hidden_states"].split([math.prod(grid) for grid in grids], dim=1)
    modulation = exact.modulation(inputs["timestep"])
    prefix = exact.prefix(embeds, (before, len(embeds) - before), sources, grids, modulation)
    return exact(noise, [prefix], modulation, 0)


def _flops(session: Session, request: EditRequest, steps: int) -> list[tuple[int, ForwardFlops]]:
    prompts = session.encode(session.sources(request), request.instruction)
    source, noise = map(math.prod, _grids(session, request))
    config = session.pipeline.transformer.config
    found = []
    for prompt in (prompts.positive, prompts.negative):
        if prompt is not None:
            text = sum(prompt.texts)
            found += [(1, prefix_flops(text, [source], config)), (steps, step_flops(text + source, noise, config))]
    return found


QWEN_IMAGE_21 = Model(SCHEDULES, _session, _inputs, _velocity, _noise, _flops)
