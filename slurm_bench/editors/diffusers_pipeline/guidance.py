"""Guidance that a pipeline would leave off without an error: the edits come out, but not the model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slurm_bench.checkpoints.folder import read_json
from slurm_bench.editors.diffusers_pipeline.signature import ClassSource
from slurm_bench.errors import UserError

# Takes both "for API parity", says its docstring, and uses neither.
GUIDES_NEVER = {"DreamLiteMobilePipeline"}
# Guides above 0, where all others guide above 1.
GUIDES_ABOVE_0 = {"ZImageOmniPipeline"}
# How InstructPix2Pix's classes say that they guide by text and image together, or not at all.
IMAGE_GUIDANCE = "image_guidance_scale >= 1.0"


def check_guidance(cls: ClassSource, call: dict[str, Any], folder: Path | None, key: str) -> None:
    """Raises UserError for a guidance of the `call` that this class, or the model in `folder`, would leave off."""
    if "true_cfg_scale" in cls.call:
        _check_true_cfg(cls, call, key)
    elif "guidance_scale" in cls.call:
        _check_negative_prompt(cls, call, key)
    _check_image_guidance(cls, call, key)
    _check_distilled(cls, call, folder, key)


def guides(cls: ClassSource, call: dict[str, Any]) -> bool | None:
    """Whether a checked call guides, where the arguments alone tell it."""
    if "true_cfg_scale" in cls.call:
        return bool(_value(cls, call, "true_cfg_scale") > 1)
    return bool(_value(cls, call, "guidance_scale") > 1) if IMAGE_GUIDANCE in cls.source else None


def _check_true_cfg(cls: ClassSource, call: dict[str, Any], key: str) -> None:
    scale = _value(cls, call, "true_cfg_scale")
    named = any(call.get(name) is not None for name in ("negative_prompt", "negative_prompt_2"))
    if scale > 1 and call.get("negative_prompt") is None:
        default = "" if "true_cfg_scale" in call else " (its default)"
        raise UserError(
            f"'{key}.true_cfg_scale': {scale}{default} guides only with a negative prompt; "
            f"add {key}.negative_prompt=' ', or {key}.true_cfg_scale=1 for none"
        )
    if scale <= 1 and named:
        raise UserError(f"'{key}.negative_prompt': without effect while true_cfg_scale is {scale}; raise it above 1")


def _check_negative_prompt(cls: ClassSource, call: dict[str, Any], key: str) -> None:
    bound = 0 if cls.name in GUIDES_ABOVE_0 else 1
    scale = _value(cls, call, "guidance_scale")
    if call.get("negative_prompt") is not None and isinstance(scale, int | float) and scale <= bound:
        raise UserError(
            f"'{key}.negative_prompt': without effect while guidance_scale is {scale}; raise it above {bound}"
        )


def _check_image_guidance(cls: ClassSource, call: dict[str, Any], key: str) -> None:
    if IMAGE_GUIDANCE not in cls.source:
        return
    text, image = _value(cls, call, "guidance_scale"), _value(cls, call, "image_guidance_scale")
    if text > 1 > image:
        raise UserError(
            f"'{key}.image_guidance_scale': {image} turns all guidance off, the prompt's too; take 1 or more"
        )
    if text <= 1 and "image_guidance_scale" in call:
        raise UserError(
            f"'{key}.image_guidance_scale': without effect while guidance_scale is {text}; raise it above 1"
        )


def _check_distilled(cls: ClassSource, call: dict[str, Any], folder: Path | None, key: str) -> None:
    given = [name for name in ("guidance_scale", "image_guidance_scale") if call.get(name) is not None]
    if not given:
        return
    ignored = f"'{key}.{given[0]}': {call[given[0]]}, but %s ignores it; leave it out"
    if cls.name in GUIDES_NEVER:
        raise UserError(ignored % cls.name)
    if folder is None or "guidance_scale" not in given:
        return
    if "is_distilled" in cls.init and call["guidance_scale"] > 1 and _is_distilled(cls, folder):
        raise UserError(ignored % f"a distilled model ({folder})")
    config = folder / "transformer" / "config.json"
    if "config.guidance_embeds" in cls.source and config.is_file() and not read_json(config).get("guidance_embeds"):
        raise UserError(ignored % f"this model ({config}: no guidance_embeds)")


def _is_distilled(cls: ClassSource, folder: Path) -> bool:
    return bool(read_json(folder / "model_index.json").get("is_distilled", cls.init["is_distilled"].default))


def _value(cls: ClassSource, call: dict[str, Any], name: str) -> Any:
    return call.get(name, cls.call[name].default)
