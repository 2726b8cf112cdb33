"""The editor's parameters, each checked for its type and meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from slurm_bench.checkpoints.lora import Lora, read_lora_params
from slurm_bench.data.images import MAX_PIXELS
from slurm_bench.editors.diffusers_pipeline.call import PLACEHOLDERS
from slurm_bench.editors.diffusers_pipeline.families import FAMILIES, MEGAPIXEL, Family, family
from slurm_bench.errors import UserError
from slurm_bench.machine import DTYPE_BYTES

KEY = "editor.params"
LORA_KEY = f"{KEY}.lora"
OFFLOADS = ("model", "group")
SIZES = ("source", "own")
# The editor gives these itself: one image a sample, as pixels, from the sample's seed and instruction.
OURS = (
    *("prompt_2", "prompt_3", "generator", "seed", "latents", "output_type", "return_dict"),
    *("num_images_per_prompt", "num_videos_per_prompt", "callback", "callback_steps", "callback_on_step_end"),
)


@dataclass(frozen=True)
class Scheduler:
    """In place of the model's own: another class, or fields of its configuration, or both."""

    class_name: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass
class Parameters:
    """As a configuration says them. `docs/models.md` tells what each does."""

    pipeline: str
    model_name: str
    revision: str | None = None
    dtype: str = "bfloat16"
    call: dict[str, Any] | None = None
    image_arg: str | None = None
    prompt_arg: str = "prompt"
    prompt_template: str | None = None
    size: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    multiple: int | None = None
    lora: Any = None
    scheduler: Any = None
    offload: str | None = None
    batched: bool = False
    device: str | None = None


@dataclass(frozen=True)
class Settings:
    """The same, checked."""

    pipeline: str
    model_name: str
    revision: str | None
    dtype: str
    call: dict[str, Any]
    image_arg: str
    prompt_arg: str
    prompt_template: str
    size: str
    min_pixels: int
    max_pixels: int
    multiple: int | None
    loras: tuple[Lora, ...]
    scheduler: Scheduler
    offload: str | None
    batched: bool
    device: str | None

    @property
    def family(self) -> Family:
        return family(self.pipeline)


def settings(given: Parameters) -> Settings:
    """Types, and what can be told without diffusers. Raises UserError that names the parameter."""
    for name in ("pipeline", "model_name", "prompt_arg"):
        _text(name, getattr(given, name))
    for name in ("revision", "image_arg", "prompt_template"):
        if getattr(given, name) is not None:
            _text(name, getattr(given, name))
    known = family(given.pipeline)
    lowest = known.min_pixels if given.min_pixels is None else _whole("min_pixels", given.min_pixels, 0)
    highest = MEGAPIXEL if given.max_pixels is None else _whole("max_pixels", given.max_pixels, 1)
    if given.min_pixels is not None and lowest > highest:
        raise UserError(f"'{KEY}.min_pixels': {lowest} is more than max_pixels, {highest}")
    if highest > MAX_PIXELS:
        raise UserError(f"'{KEY}.max_pixels': no image of more than {MAX_PIXELS} is scored")
    image_arg = given.image_arg or known.image
    call = _call(given.call, (image_arg, given.prompt_arg, *OURS))
    return Settings(
        pipeline=given.pipeline,
        model_name=str(given.model_name),
        revision=given.revision,
        dtype=_one_of("dtype", given.dtype, tuple(DTYPE_BYTES)),
        call=call,
        image_arg=image_arg,
        prompt_arg=given.prompt_arg,
        prompt_template=_template(given.prompt_template or known.template, known),
        size=_size(given, call, known),
        min_pixels=min(lowest, highest),
        max_pixels=highest,
        multiple=known.multiple if given.multiple is None else _whole("multiple", given.multiple, 1),
        loras=read_lora_params(given.lora, LORA_KEY),
        scheduler=_scheduler(given.scheduler),
        offload=None if given.offload is None else _one_of("offload", given.offload, OFFLOADS),
        batched=_batched(given.batched, given.pipeline, known),
        device=given.device,
    )


def _batched(value: Any, pipeline: str, known: Family) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"'{KEY}.batched': {value!r} is neither true nor false")
    if value and not known.batches:
        able = ", ".join(name for name, each in FAMILIES.items() if each.batches)
        raise UserError(
            f"'{KEY}.batched': several samples in one call of {pipeline} are not known to come out as each alone; "
            f"leave it out (it is for {able})"
        )
    return value


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"'{KEY}.{name}': {value!r} is no whole number of at least {least}")
    return value


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise UserError(f"'{KEY}.{name}': {value!r} is none of {', '.join(allowed)}")
    return value


def _call(call: Any, taken: tuple[str, ...]) -> dict[str, Any]:
    if call is not None and not (isinstance(call, dict) and all(isinstance(name, str) for name in call)):
        raise UserError(f"'{KEY}.call': {call!r} is no mapping of the call's arguments")
    given = [name for name in call or {} if name in taken]
    if given:
        raise UserError(f"'{KEY}.call': '{given[0]}' comes from the editor, for each sample; leave it out")
    return dict(call or {})


def _template(template: str, known: Family) -> str:
    if "{instruction}" not in template and "{json}" not in template:
        raise UserError(f"'{KEY}.prompt_template': {template!r} lacks the {{instruction}} (or {{json}}, it in JSON)")
    if known.image_tag and "{images}" not in template:
        raise UserError(f"'{KEY}.prompt_template': {template!r} lacks {{images}}, where the sources' tags go")
    if not known.image_tag and "{images}" in template:
        places = ", ".join(PLACEHOLDERS[:2])
        raise UserError(f"'{KEY}.prompt_template': this pipeline has no image tags; leave {{images}} out ({places})")
    return template


def _size(given: Parameters, call: dict[str, Any], known: Family) -> str:
    """source or own."""
    bounded = any(value is not None for value in (given.min_pixels, given.max_pixels, given.multiple))
    explicit = [name for name in ("width", "height") if call.get(name) is not None]
    if len(explicit) == 1:
        raise UserError(f"'{KEY}.call': {explicit[0]} needs the other side too, or leave both to {KEY}.size=source")
    if explicit and (given.size == "source" or bounded):
        raise UserError(f"'{KEY}.size': follows the sample, but {KEY}.call has a width and a height; take one of them")
    if given.size is not None:
        chosen = _one_of("size", given.size, SIZES)
        if chosen == "own" and bounded:
            raise UserError(f"'{KEY}.size': own leaves the size to the pipeline, without max_pixels and the like")
        return chosen
    return "own" if explicit or (known.own_size and not bounded) else "source"


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"'{KEY}.{name}': {value!r} is no text; quote it if it is meant as one")


def _scheduler(given: Any) -> Scheduler:
    if given is None:
        return Scheduler()
    if isinstance(given, str):
        return Scheduler(given)
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise UserError(f"'{KEY}.scheduler': {given!r} is neither a class's name nor a mapping of its fields")
    name = given.get("class")
    if name is not None and not isinstance(name, str):
        raise UserError(f"'{KEY}.scheduler.class': {name!r} is no class's name")
    return Scheduler(name, {k: v for k, v in given.items() if k != "class"})
