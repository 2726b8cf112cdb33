"""From a checked choice to a pipeline on its device."""

from __future__ import annotations

from typing import Any

from slurm_bench import marks
from slurm_bench.editors.diffusers_pipeline.settings import KEY, Scheduler, Settings
from slurm_bench.editors.diffusers_pipeline.watch import keep_positions, refuse_undefined_pixels
from slurm_bench.editors.qwen.loading import apply_loras
from slurm_bench.errors import UserError
from slurm_bench.lean_imports import lean_imports
from slurm_bench.machine import lasting


def load_pipeline(chosen: Settings, source: str, device: str) -> Any:
    """Safetensors only, straight to the device unless parts of it are to come and go. Raises UserError."""
    import torch

    with marks.part("import diffusers"), lean_imports(), lasting():
        import diffusers

        cls = getattr(diffusers, chosen.pipeline)
    whole = device != "cpu" and chosen.offload is None
    with marks.part("load the pipeline"), lean_imports():  # of its parts: schedulers, processors
        pipeline = cls.from_pretrained(
            source,
            revision=chosen.revision,
            dtype=getattr(torch, chosen.dtype),
            use_safetensors=True,
            **({"device_map": device} if whole else {}),
        )
    pipeline.set_progress_bar_config(disable=True)
    _replace_scheduler(pipeline, chosen.scheduler)
    apply_loras(pipeline, chosen.loras, fuse=False)
    keep_positions(pipeline)
    refuse_undefined_pixels(pipeline)
    if chosen.offload:
        _offload(pipeline, chosen.offload, device)
    return pipeline


def _replace_scheduler(pipeline: Any, scheduler: Scheduler) -> None:
    import diffusers

    if scheduler == Scheduler():
        return
    own = pipeline.scheduler
    cls = getattr(diffusers, scheduler.class_name) if scheduler.class_name else type(own)
    try:
        pipeline.scheduler = cls.from_config(own.config, **scheduler.fields)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UserError(f"'{KEY}.scheduler': {cls.__name__} refuses that: {error}") from None


def _offload(pipeline: Any, how: str, device: str) -> None:
    """model: whole parts, one at a time. group: layer by layer, copied while the one before computes."""
    import torch

    if device == "cpu":
        raise UserError(f"'{KEY}.offload': {how} moves weights to a GPU as they are needed, and there is none here")
    if how == "model":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.enable_group_offload(torch.device(device), offload_type="leaf_level", use_stream=True)
