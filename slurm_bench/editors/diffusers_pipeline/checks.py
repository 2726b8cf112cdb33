"""The checked parameters against diffusers' classes, the model's files and this machine, before anything starts."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from slurm_bench.checkpoints.folder import ModelFolder, read_json
from slurm_bench.checkpoints.lora import fit_lora, read_lora
from slurm_bench.editors.diffusers_pipeline.settings import KEY, LORA_KEY, Settings
from slurm_bench.editors.diffusers_pipeline.signature import (
    REQUIRED,
    ClassSource,
    find_pipeline,
    find_scheduler,
    nearest,
)
from slurm_bench.errors import UserError
from slurm_bench.machine import check_device


def check_settings(chosen: Settings) -> ClassSource:
    """Against diffusers' own classes, the files and this machine. Gives the pipeline's class; raises UserError."""
    cls = find_pipeline(chosen.pipeline, f"{KEY}.pipeline")
    if chosen.family.needs and find_spec(chosen.family.needs) is None:
        raise UserError(f"'{KEY}.pipeline': {cls.name} needs a package: pip install {chosen.family.needs}")
    if chosen.family.dtype not in (None, chosen.dtype):
        raise UserError(f"'{KEY}.dtype': {cls.name} runs in {chosen.family.dtype} alone, not in {chosen.dtype}")
    for key, name in (("image_arg", chosen.image_arg), ("prompt_arg", chosen.prompt_arg)):
        if name not in cls.call:
            raise UserError(f"'{KEY}.{key}': {cls.name} has no argument '{name}'; {nearest(name, cls.call)}")
    for name, value in chosen.call.items():
        if name not in cls.call:
            raise UserError(f"'{KEY}.call': {cls.name} has no argument '{name}'; {nearest(name, cls.call)}")
        cls.check_value(name, value, f"{KEY}.call.{name}")
    if (steps := chosen.call.get("num_inference_steps")) is not None and steps < 1:
        raise UserError(f"'{KEY}.call.num_inference_steps': {steps} is less than 1")
    given = {chosen.image_arg, chosen.prompt_arg, *chosen.call}
    lacking = [name for name, argument in cls.call.items() if argument.default is REQUIRED and name not in given]
    if lacking:
        raise UserError(f"'{KEY}.call': {cls.name} can't do without '{lacking[0]}'; say it in {KEY}.call")
    if chosen.size == "source" and chosen.family.own_size and not {"width", "height"} <= set(cls.call):
        raise UserError(f"'{KEY}.size': {cls.name} chooses it by the source's aspect, at its own area; leave it out")
    for lora in chosen.loras:
        read_lora(lora.path, LORA_KEY)
    check_device(chosen.device, f"{KEY}.device")
    if chosen.offload and chosen.device == "cpu":
        raise UserError(f"'{KEY}.offload': {chosen.offload} moves weights to a GPU as they are needed, not to the CPU")
    if chosen.offload == "group" and not chosen.family.by_groups:
        raise UserError(f"'{KEY}.offload': {cls.name} fails when it is moved by groups; take {KEY}.offload=model")
    return cls


def check_class(chosen: Settings, class_name: str, where: str) -> None:
    """The folder's pipeline against the one that was asked for: another's weights load without a word and make other
    pictures. An Img2Img class takes the weights of the one without. Raises UserError."""
    if class_name not in (chosen.pipeline, chosen.pipeline.replace("Img2Img", "")):
        raise UserError(
            f"'{KEY}.pipeline': {where} holds a {class_name}, not a {chosen.pipeline}; "
            f"take {KEY}.pipeline={class_name}, or another model"
        )


def check_loras(chosen: Settings, folder: ModelFolder) -> None:
    """Against the part that denoises, whose layers they change. Raises UserError."""
    denoiser = next((name for name in ("transformer", "unet") if name in folder.tensors), None)
    for lora in chosen.loras:
        if denoiser is None:
            raise UserError(f"'{LORA_KEY}': {chosen.pipeline} has neither a transformer nor a unet to apply it to")
        fit_lora(read_lora(lora.path, LORA_KEY), folder.tensors[denoiser], LORA_KEY)


def check_scheduler(chosen: Settings, folder: Path) -> None:
    """Against the classes of diffusers and the model's own scheduler. Raises UserError."""
    scheduler = chosen.scheduler
    file = folder / "scheduler" / "scheduler_config.json"
    own = read_json(file) if file.is_file() else {}
    name = scheduler.class_name or own.get("_class_name")
    if not isinstance(name, str):
        raise UserError(f"{file}: no '_class_name'")
    key = f"{KEY}.scheduler"
    cls = find_scheduler(name, key)
    for field_name, value in scheduler.fields.items():
        if field_name not in cls.init:
            raise UserError(f"'{key}': {name} has no '{field_name}'; {nearest(field_name, cls.init)}")
        if not cls.init[field_name].takes(value):
            raise UserError(f"'{key}.{field_name}': {value!r} is not what {name} takes ({cls.init[field_name]})")
    fields = {**own, **scheduler.fields}
    if chosen.call.get("num_inference_steps") == 1 and fields.get("shift_terminal"):
        raise UserError(
            f"'{KEY}.call.num_inference_steps': 1 step can't be stretched to the schedule's shift_terminal; "
            f"take 2, or {key}.shift_terminal=null"
        )
    if own and _flows(name, fields) != _flows(str(own.get("_class_name")), own):
        raise UserError(
            f"'{key}': {name} doesn't solve what this model was trained for ({own['_class_name']}); "
            "flow matching needs a FlowMatch… scheduler or use_flow_sigmas, and no other model does"
        )


def _flows(name: str, fields: dict[str, Any]) -> bool:
    flow_fields = fields.get("use_flow_sigmas") or fields.get("prediction_type") == "flow_prediction"
    return name.startswith("FlowMatch") or bool(flow_fields)
