"""Qwen-Image-Edit in each profile: seconds an image by part, memory, and the error against float32."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from slurm_bench.bench.kernels import kernel_groups
from slurm_bench.bench.machine import Ceilings, peak_gib, reset_peak
from slurm_bench.bench.pictures import INSTRUCTION, picture
from slurm_bench.editors.base import EditRequest
from slurm_bench.editors.qwen.denoise import encode_prompts
from slurm_bench.editors.qwen.flops import floor_seconds, forward_flops
from slurm_bench.editors.qwen.images import MEGAPIXEL, Size, target_size
from slurm_bench.editors.qwen.profiles import profile_named
from slurm_bench.editors.qwen.random_weights import random_pipeline
from slurm_bench.editors.qwen.schedule import LIGHTNING_SCHEDULER
from slurm_bench.editors.qwen.session import Session
from slurm_bench.editors.qwen.settings import Settings
from slurm_bench.machine import free_memory
from slurm_bench.stages.work import encode_png

Say = Callable[[str], None]


@dataclass(frozen=True)
class Schedule:
    steps: int
    scale: float
    scheduler: dict[str, Any] | None = None


# By size. The last is what a few-step LoRA asks for: no guidance, and a schedule of its own.
SCHEDULES = {
    "full": (Schedule(50, 4.0), Schedule(10, 4.0), Schedule(4, 1.0, LIGHTNING_SCHEDULER)),
    "tiny": (Schedule(3, 4.0), Schedule(2, 4.0), Schedule(2, 1.0, LIGHTNING_SCHEDULER)),
}
DTYPES = {"cuda": "bfloat16", "cpu": "float32"}
REPEATS = {"full": 3, "tiny": 1}  # of what takes seconds; a long image is measured once


def measure_editing(
    size: str, device: str, profiles: list[str], ceilings: Ceilings, kernels: bool, say: Say
) -> list[dict[str, Any]]:
    """A row for each profile and schedule."""
    rows: list[dict[str, Any]] = []
    inputs: dict[str, Any] | None = None
    reference: Tensor | None = None
    for name in profiles:
        say(f"{name}: building the model")
        session = _session(size, device, name)
        request = EditRequest("bench", INSTRUCTION, (picture(0),), 0)
        facts: dict[str, Any] = {"profile": name, "first_image_seconds": _warm_up(session, request)}
        inputs = inputs or _inputs(session, request)
        if reference is None and not session.profile.fp8:
            reference = _float32_velocity(session, inputs)
        if reference is not None and not session.profile.cache:
            facts["error"] = _relative_error(_velocity(session, inputs), reference)
        if kernels:
            facts["kernels"] = kernel_groups(partial(_velocity, session, inputs), device)
        long, *short = SCHEDULES[size]
        for schedule in [long] if session.profile.cache else [long, *short]:
            say(f"{name}: {schedule.steps} steps")
            repeats = 1 if schedule is long else REPEATS[size]
            rows.append({**facts, **_measure(session, request, schedule, repeats, ceilings)})
        if session.profile.own_loop and not session.profile.approximate and device == "cuda":
            say(f"{name}: without the text encoder")
            rows[-len(SCHEDULES[size])]["peak_gib_text_first"] = _peak_without_text_encoder(session, request)
        del session
        free_memory()
    return rows


def _session(size: str, device: str, profile: str) -> Session:
    pipeline = random_pipeline(size, device, DTYPES[device])
    return Session(pipeline, profile_named(profile, device == "cuda"), _settings(size, device), device, None)


def _settings(size: str, device: str) -> Settings:
    return Settings(
        "random weights",
        dtype=DTYPES[device],
        num_inference_steps=SCHEDULES[size][0].steps,
        true_cfg_scale=SCHEDULES[size][0].scale,
        max_pixels=1024 * 1024 if size == "full" else 128 * 128,
    )


def _warm_up(session: Session, request: EditRequest) -> float:
    """Seconds of the first image of a process, of two steps: kernels are chosen and built in it."""
    steps = session.settings.num_inference_steps
    session.change_settings(num_inference_steps=2)
    begin = time.perf_counter()
    session.edit(request)
    took = time.perf_counter() - begin
    session.change_settings(num_inference_steps=steps)
    return round(took, 2)


def _measure(
    session: Session, request: EditRequest, schedule: Schedule, repeats: int, ceilings: Ceilings
) -> dict[str, Any]:
    session.change_settings(
        num_inference_steps=schedule.steps, true_cfg_scale=schedule.scale, scheduler=schedule.scheduler
    )
    reset_peak()
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        outcome = session.edit(request)
        taken.append((time.perf_counter() - begin, outcome))
    seconds, outcome = sorted(taken, key=lambda pair: pair[0])[len(taken) // 2]
    cool, sustained = (_floor(session, request, schedule, rates) for rates in (ceilings.cool, ceilings.sustained))
    begin = time.perf_counter()
    encode_png(outcome.image)
    encode = time.perf_counter() - begin
    return {
        "steps": schedule.steps,
        "guidance": schedule.scale > 1,
        "forwards": outcome.forwards,
        "seconds": round(seconds, 3),
        "parts": {name: round(value, 3) for name, value in outcome.seconds.items()},
        "png_seconds": round(encode, 3),
        "floor_seconds": round(cool, 3),
        "sustained_floor_seconds": round(sustained, 3),
        "peak_gib": peak_gib(),
        "cache_skips": outcome.cache_skips,
    }


def _floor(session: Session, request: EditRequest, schedule: Schedule, rates: dict[str, float]) -> float:
    """All forwards at the matrix products' rates; skipped ones too, as they are what the cache saves."""
    sampling, side = session.settings.sampling, 2 * session.pipeline.vae_scale_factor
    texts = encode_prompts(session.pipeline, list(request.images), request.instruction, sampling, session.plus)
    image_tokens = sum(size.width * size.height // side**2 for size in _sizes(session, request))
    config = session.pipeline.transformer.config
    per_step = 0.0
    for text in (texts.positive, texts.negative):
        if text is not None:
            flops = forward_flops(image_tokens, text.shape[1], config)
            per_step += floor_seconds(flops, rates, session.profile.fp8)
    return schedule.steps * per_step


def _peak_without_text_encoder(session: Session, request: EditRequest) -> float | None:
    session.change_settings(text_first=True, num_inference_steps=2)
    session.encode_ahead([request])
    reset_peak()
    session.edit(request)
    return peak_gib()


@torch.no_grad()
def _inputs(session: Session, request: EditRequest) -> dict[str, Any]:
    """A forward's, by the names that diffusers' transformer gives them: random latents, the request's own text."""
    sampling, vae = session.settings.sampling, session.pipeline.vae
    texts = encode_prompts(session.pipeline, list(request.images), request.instruction, sampling, session.plus)
    side = 2 * session.pipeline.vae_scale_factor
    grids = [(1, size.height // side, size.width // side) for size in _sizes(session, request)]
    tokens = sum(rows * columns for _, rows, columns in grids)
    channels = session.pipeline.transformer.config.in_channels
    latents = torch.randn((1, tokens, channels), generator=torch.Generator().manual_seed(0))
    return {
        "hidden_states": latents.to(vae.device, vae.dtype),
        "encoder_hidden_states": texts.positive,
        "timestep": torch.tensor([0.9], device=vae.device, dtype=vae.dtype),
        "img_shapes": [grids],
    }


def _sizes(session: Session, request: EditRequest) -> list[Size]:
    """The noise's, and the source's, which is seen at a megapixel whatever is asked for."""
    return [target_size(pixels, request.image) for pixels in (session.settings.sampling.pixels, MEGAPIXEL)]


@torch.no_grad()
def _float32_velocity(session: Session, inputs: dict[str, Any]) -> Tensor:
    """The same weights in float32, a module at a time: all of them at once would not fit 80 GB."""
    transformer = session.pipeline.transformer
    narrow: dict[Any, Tensor] = {}
    hooks: list[Any] = []
    children = [child for name, child in transformer.named_children() if name != "transformer_blocks"]

    def widen(module: Any, _: Any) -> None:
        for weight in module.parameters():
            narrow[weight], weight.data = weight.data, weight.data.float()

    def restore(module: Any, _: Any, __: Any) -> None:
        for weight in module.parameters():
            weight.data = narrow.pop(weight)

    for module in (*children, *transformer.transformer_blocks):
        hooks += [module.register_forward_pre_hook(widen), module.register_forward_hook(restore)]
    wide = {name: value.float() if isinstance(value, Tensor) else value for name, value in inputs.items()}
    velocity = transformer(**wide)[0]
    for hook in hooks:
        hook.remove()
    return velocity


def _relative_error(found: Tensor, reference: Tensor) -> float:
    """‖v − v₃₂‖ / ‖v₃₂‖ of one forward's velocity, over the noise's tokens."""
    reference = reference[:, : found.shape[1]]
    return float((found.float() - reference).norm() / reference.norm())


@torch.no_grad()
def _velocity(session: Session, inputs: dict[str, Any]) -> Tensor:
    grids = inputs["img_shapes"][0]
    if not session.profile.own_loop:
        _, rows, columns = grids[0]
        return session.pipeline.transformer(**inputs)[0][:, : rows * columns]
    exact = session.runner.transformer
    prompt = exact.project_prompt(inputs["encoder_hidden_states"], grids)
    return exact(inputs["hidden_states"], prompt, exact.modulation(inputs["timestep"]), 0)
