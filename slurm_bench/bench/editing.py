"""An editing model in each profile: seconds an image by part, memory, and the error against float32."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from slurm_bench.bench.kernels import kernel_groups
from slurm_bench.bench.machine import Ceilings, peak_gib, reset_peak
from slurm_bench.bench.model import Model, Schedule
from slurm_bench.bench.pictures import INSTRUCTION, picture
from slurm_bench.bench.qwen_image_21 import QWEN_IMAGE_21
from slurm_bench.bench.qwen_image_edit import QWEN_IMAGE_EDIT
from slurm_bench.editors.base import EditRequest
from slurm_bench.editors.qwen.base_session import BaseSession
from slurm_bench.editors.qwen.flops import floor_seconds
from slurm_bench.editors.qwen.profiles import PROFILES, profile_named
from slurm_bench.machine import free_memory
from slurm_bench.stages.picture import encode_png

Say = Callable[[str], None]

# By the names that `run.MODELS` knows.
MODELS = {"qwen-image-edit": QWEN_IMAGE_EDIT, "qwen-image-2.1": QWEN_IMAGE_21}
DTYPES = {"cuda": "bfloat16", "cpu": "float32"}
REPEATS = {"full": 3, "tiny": 1}  # of what takes seconds; a long image is measured once


def measure_editing(
    name: str, size: str, device: str, profiles: list[str], ceilings: Ceilings, kernels: bool, say: Say
) -> Iterator[dict[str, Any]]:
    """A row for each profile and schedule of the model of this name. A profile's first gets another figure later."""
    model = MODELS[name]
    inputs: dict[str, Any] | None = None
    reference: Tensor | None = None
    for name in profiles:
        say(f"{name}: building the model")
        session = model.session(size, device, DTYPES[device], profile_named(name, device == "cuda"))
        request = EditRequest("bench", INSTRUCTION, (picture(0),), 0)
        facts: dict[str, Any] = {"profile": name, "first_image_seconds": _warm_up(session, request)}
        inputs = inputs or model.inputs(session, request)
        if reference is None and not PROFILES[name].approximate:
            reference = model.noise(float32_velocity(session, inputs), inputs)
        velocity = partial(model.velocity, session, inputs)
        if reference is not None and not session.profile.cache:
            facts["error"] = relative_error(velocity(), reference)
        if kernels:
            facts["kernels"] = kernel_groups(velocity, device)
        long, *short = model.schedules[size]
        rows: list[dict[str, Any]] = []
        for schedule in [long] if session.profile.cache else [long, *short]:
            repeats = 1 if schedule is long else REPEATS[size]
            rows.append({**facts, **_measure(model, session, request, schedule, repeats, ceilings)})
            say(f"{name}: {schedule.steps} steps in {rows[-1]['seconds']:.2f} s")
            yield rows[-1]
        if session.profile.own_loop and not session.profile.approximate:
            say(f"{name}: without the text encoder")
            rows[0]["peak_gib_text_first"] = _peak_without_text_encoder(session, request)
        del session, velocity
        free_memory()


def _warm_up(session: BaseSession, request: EditRequest) -> float:
    """Seconds of the first image of a process, of two steps: kernels are chosen and built in it."""
    steps = session.settings.num_inference_steps
    session.change_settings(num_inference_steps=2)
    begin = time.perf_counter()
    session.edit(request)
    took = time.perf_counter() - begin
    session.change_settings(num_inference_steps=steps)
    return round(took, 2)


def _measure(
    model: Model, session: BaseSession, request: EditRequest, schedule: Schedule, repeats: int, ceilings: Ceilings
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
    flops = model.flops(session, request, schedule.steps)
    cool, sustained = (
        sum(times * floor_seconds(forward, rates, session.profile.fp8) for times, forward in flops)
        for rates in (ceilings.cool, ceilings.sustained)
    )
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


def _peak_without_text_encoder(session: BaseSession, request: EditRequest) -> float | None:
    session.change_settings(text_first=True, num_inference_steps=2, scheduler=None)
    session.encode_ahead([request])
    reset_peak()
    session.edit(request)
    return peak_gib()


@torch.no_grad()
def float32_velocity(session: BaseSession, inputs: dict[str, Any]) -> Tensor:
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
    wide = {
        name: value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in inputs.items()
    }
    velocity = transformer(**wide)[0]
    for hook in hooks:
        hook.remove()
    return velocity


def relative_error(found: Tensor, reference: Tensor) -> float:
    """‖v − v₃₂‖ / ‖v₃₂‖ of one forward's velocity, over the noise's tokens."""
    return float((found.float() - reference).norm() / reference.norm())
