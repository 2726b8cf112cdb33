"""The editor's parameters, checked: what is wrong here is said before any GPU is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slurm_bench.editors.qwen.images import MEGAPIXEL
from slurm_bench.editors.qwen.loading import Lora, loras
from slurm_bench.editors.qwen.profiles import (
    CACHE_DEFAULTS,
    MASK_POLICIES,
    check_keep_bf16,
    profile_named,
    scheduler_overrides,
)
from slurm_bench.errors import UserError
from slurm_bench.machine import DTYPE_BYTES, GIB

DTYPES = ("bfloat16", "float32")
WORKSPACE = 6 * GIB  # activations at a megapixel, the CUDA context, the allocator's slack


@dataclass(frozen=True)
class Sampling:
    """What an edit depends on besides the sample. Without `negative_prompt` there is no guidance."""

    steps: int
    scale: float
    negative_prompt: str | None
    pixels: int = MEGAPIXEL

    @property
    def guidance(self) -> bool:
        return self.negative_prompt is not None


@dataclass(frozen=True)
class Settings:
    """See QwenImageEditor for what each means."""

    sampling: Sampling
    dtype: str
    profile: str | None
    loras: tuple[Lora, ...]
    scheduler: dict[str, Any]
    text_first: bool
    offload_modulation: bool
    cache: dict[str, Any]
    keep_bf16: tuple[str, ...]

    def require_own_loop_for_savings(self, own_loop: bool) -> None:
        """Raises UserError where memory is to be saved in the pipeline's own loop, which can't."""
        _require(
            own_loop or not (self.text_first or self.offload_modulation),
            "profile",
            "stock, the default without a GPU, runs the pipeline as it is: text_first and offload_modulation need "
            "another",
        )

    def memory_needed(self, parameters: dict[str, int]) -> int:
        """Bytes of GPU memory at the peak, given the parameters of the pipeline's components."""
        size = {name: count * DTYPE_BYTES[self.dtype] for name, count in parameters.items()}
        transformer, text = size.pop("transformer", 0), size.pop("text_encoder", 0)
        together = max(transformer, text) if self.text_first else transformer + text
        return sum(size.values()) + together + WORKSPACE


def settings(
    dtype: str,
    num_inference_steps: int,
    true_cfg_scale: float,
    negative_prompt: str | None,
    max_pixels: int,
    lora: Any,
    scheduler: str | dict[str, Any] | None,
    profile: str | None,
    text_first: bool,
    offload_modulation: bool,
    cache: dict[str, Any] | None,
    keep_bf16: Sequence[str],
) -> Settings:
    """Raises UserError that names the parameter."""
    _require(dtype in DTYPES, "dtype", f"'{dtype}' is none of {', '.join(DTYPES)}")
    _require(num_inference_steps >= 1, "num_inference_steps", f"{num_inference_steps} is less than 1")
    _require(max_pixels >= 64 * 64, "max_pixels", f"{max_pixels} is less than {64 * 64}")
    _require(true_cfg_scale >= 1, "true_cfg_scale", f"{true_cfg_scale} is less than 1; 1 is no guidance")
    _require(
        true_cfg_scale == 1 or negative_prompt is not None,
        "negative_prompt",
        f"true_cfg_scale={true_cfg_scale} does nothing without one: the pipeline would silently leave guidance "
        "off; set negative_prompt=' ' or true_cfg_scale=1",
    )
    fp8 = profile is not None and profile_named(profile, cuda=False).fp8
    _require(not fp8 or dtype == "bfloat16", "dtype", f"profile={profile} computes in bfloat16 beside its fp8")
    for option in set(cache or {}) - set(CACHE_DEFAULTS):
        _require(False, "cache", f"no option '{option}'; there are {', '.join(CACHE_DEFAULTS)}")
    policy = {**CACHE_DEFAULTS, **(cache or {})}["mask_policy"]
    _require(
        policy in MASK_POLICIES, "cache", f"mask_policy '{policy}' is none of {', '.join(map(str, MASK_POLICIES))}"
    )
    made = Settings(
        sampling=Sampling(
            steps=num_inference_steps,
            scale=float(true_cfg_scale),
            negative_prompt=negative_prompt if true_cfg_scale > 1 else None,
            pixels=max_pixels,
        ),
        dtype=dtype,
        profile=profile,
        loras=tuple(loras(lora)),
        scheduler=scheduler_overrides(scheduler),
        text_first=text_first,
        offload_modulation=offload_modulation,
        cache={**CACHE_DEFAULTS, **(cache or {})},
        keep_bf16=check_keep_bf16(keep_bf16),
    )
    made.require_own_loop_for_savings(profile != "stock")
    return made


def _require(condition: bool, parameter: str, problem: str) -> None:
    if not condition:
        raise UserError(f"'editor.params.{parameter}': {problem}")
