"""The scheduler: which ones an edit may use, and the fields of its configuration that the user sets."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from slurm_bench.errors import UserError

# The four- and eight-step Lightning checkpoints were distilled with one fixed shift of 3
# (https://huggingface.co/lightx2v/Qwen-Image-Lightning).
LIGHTNING_SCHEDULER: dict[str, Any] = {
    "base_shift": math.log(3),
    "max_shift": math.log(3),
    "shift_terminal": None,
}

# Those of diffusers that take the pipeline's schedule and draw no noise. Noise in a step comes from torch's global
# generator, which the pipeline doesn't seed: the same sample would become another image each time.
SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler")


def scheduler_overrides(
    scheduler: str | dict[str, Any] | None, named: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Fields of the scheduler's configuration, as they are or by one of the names. Raises UserError."""
    if isinstance(scheduler, str) and scheduler not in named:
        names = " nor ".join(f"'{name}'" for name in named)
        raise UserError(f"'editor.params.scheduler': '{scheduler}' is neither {names} nor fields with values")
    return dict(named[scheduler] if isinstance(scheduler, str) else scheduler or {})


def check_scheduler(class_name: str, config: Mapping[str, Any], overrides: Mapping[str, Any], steps: int) -> None:
    """`config` is what the model's folder says. Raises UserError for a scheduler whose noise doesn't follow the seed,
    for a field that it doesn't have, for a value of another type, and for one step of a schedule that divides by the
    distance between its ends."""
    if class_name not in SCHEDULERS:
        raise UserError(
            f"'editor.params.model_name': its scheduler is {class_name!r}; edits that follow their seed need "
            f"{' or '.join(SCHEDULERS)}"
        )
    if unknown := sorted(set(overrides) - set(config) - _fields(class_name, overrides, config)):
        raise UserError(f"'editor.params.scheduler': {class_name} has no field '{unknown[0]}'")
    for name, value in overrides.items():
        if value is not None and not same_kind(value, config.get(name)):
            raise UserError(f"'editor.params.scheduler': {name}={value!r} should be like {config[name]!r}")
    merged = {**config, **overrides}
    if merged.get("stochastic_sampling"):
        raise UserError(
            "'editor.params.scheduler': stochastic_sampling draws noise that doesn't follow the seed; "
            "set editor.params.scheduler.stochastic_sampling=false"
        )
    if steps == 1 and merged.get("shift_terminal"):
        raise UserError(
            "'editor.params.num_inference_steps': 1 needs a schedule without shift_terminal; "
            "set editor.params.scheduler.shift_terminal=null, or take 2 steps"
        )


def _fields(class_name: str, overrides: Mapping[str, Any], config: Mapping[str, Any]) -> set[str]:
    """Those of the class, if the overrides have one that the folder doesn't name: it may be of an older diffusers."""
    if set(overrides) <= set(config):
        return set()
    import diffusers

    return set(inspect.signature(getattr(diffusers, class_name)).parameters)


def overridden(scheduler: Any, overrides: Mapping[str, Any], steps: int) -> Any:
    """The model's own `scheduler`, or one with these fields. Raises UserError as `check_scheduler` does."""
    check_scheduler(type(scheduler).__name__, scheduler.config, overrides, steps)
    return type(scheduler).from_config(scheduler.config, **overrides) if overrides else scheduler


def even_sigmas(steps: int) -> Any:
    """From 1 down to 1 / steps, [S], as the pipelines space them where a model fixes none."""
    import numpy as np

    return np.linspace(1.0, 1 / steps, steps)


def set_timesteps(scheduler: Any, sigmas: Any, tokens: int, device: Any) -> Any:
    """The timesteps [S] of a schedule of `sigmas`, shifted for `tokens` of noise as the pipelines do it. The scheduler
    stands at step 0 afterwards."""
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit import calculate_shift

    config = scheduler.config
    shift = calculate_shift(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    scheduler.set_timesteps(sigmas=sigmas, device=device, mu=shift)
    scheduler.set_begin_index(0)
    return scheduler.timesteps


def same_kind(value: Any, example: Any) -> bool:
    """Whether a value can stand where the example stands: a number for a number, a truth value for one, …"""
    if example is None:
        return True
    if isinstance(example, bool) or isinstance(value, bool):
        return isinstance(example, bool) and isinstance(value, bool)
    if isinstance(example, int | float):
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, type(example))
