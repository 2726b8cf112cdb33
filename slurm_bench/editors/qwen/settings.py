"""`editor.params` of QwenImageEditor, checked: what is wrong here is said before any GPU is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from slurm_bench.checkpoints.lora import Lora, read_lora_params
from slurm_bench.editors.qwen.images import MEGAPIXEL
from slurm_bench.editors.qwen.profiles import CACHE_DEFAULTS, MASK_POLICIES, Profile, check_keep_bf16, profile_named
from slurm_bench.editors.qwen.schedule import same_kind, scheduler_overrides
from slurm_bench.errors import UserError
from slurm_bench.machine import GIB

KEY = "editor.params"
DTYPES = ("bfloat16", "float32")
WORKSPACE = 6 * GIB  # activations at a megapixel, the CUDA context, the allocator's slack


@dataclass(frozen=True)
class Sampling:
    """What an edit depends on besides the sample and the weights. Without `negative_prompt` there is no guidance."""

    steps: int
    scale: float
    negative_prompt: str | None
    pixels: int = MEGAPIXEL

    @property
    def guidance(self) -> bool:
        return self.negative_prompt is not None


@dataclass(frozen=True)
class Settings:
    """The parameters as they were typed, and their defaults; QwenImageEditor says what each means. Raises UserError
    that names the parameter."""

    model_name: str
    revision: str | None = None
    dtype: str = "bfloat16"
    num_inference_steps: int = 50
    true_cfg_scale: float = 4.0
    negative_prompt: str | None = " "
    max_pixels: int = MEGAPIXEL
    lora: str | dict[str, Any] | list[str | dict[str, Any]] | None = None
    scheduler: str | dict[str, Any] | None = None
    profile: str | None = None
    text_first: bool = False
    offload_modulation: bool = False
    keep_bf16: list[str] | tuple[str, ...] = ()
    cache: dict[str, Any] | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        scale = self.true_cfg_scale
        _require(self.dtype in DTYPES, "dtype", f"'{self.dtype}' is none of {', '.join(DTYPES)}")
        _require(self.num_inference_steps >= 1, "num_inference_steps", f"{self.num_inference_steps} is less than 1")
        _require(self.max_pixels >= 64 * 64, "max_pixels", f"{self.max_pixels} is less than {64 * 64}")
        _require(1 <= scale < math.inf, "true_cfg_scale", f"{scale} is no number of 1 or more; 1 is no guidance")
        _require(
            scale == 1 or self.negative_prompt is not None,
            "negative_prompt",
            f"true_cfg_scale={scale} does nothing without one: the pipeline would silently leave guidance off; "
            "set negative_prompt=' ' or true_cfg_scale=1",
        )
        profile = profile_named(self.profile, cuda=True)
        _require(
            not profile.fp8 or self.dtype == "bfloat16",
            "dtype",
            f"profile={profile.name} computes in bfloat16 beside its fp8",
        )
        self.require_own_loop_for_savings(profile)
        self._check_cache()
        check_keep_bf16(self.keep_bf16)
        scheduler_overrides(self.scheduler)
        read_lora_params(self.lora, f"{KEY}.lora")

    def _check_cache(self) -> None:
        for option, value in (self.cache or {}).items():
            _require(option in CACHE_DEFAULTS, "cache", f"no option '{option}'; there are {', '.join(CACHE_DEFAULTS)}")
            fits = option == "mask_policy" or same_kind(value, CACHE_DEFAULTS[option])
            _require(fits, f"cache.{option}", f"{value!r} should be a number like {CACHE_DEFAULTS[option]}")
        policy = self.cache_options["mask_policy"]
        policies = ", ".join(map(str, MASK_POLICIES))
        _require(policy in MASK_POLICIES, "cache.mask_policy", f"'{policy}' is none of {policies}")

    @property
    def sampling(self) -> Sampling:
        guidance = self.true_cfg_scale > 1
        return Sampling(
            steps=self.num_inference_steps,
            scale=float(self.true_cfg_scale),
            negative_prompt=self.negative_prompt if guidance else None,
            pixels=self.max_pixels,
        )

    @property
    def loras(self) -> tuple[Lora, ...]:
        return read_lora_params(self.lora, f"{KEY}.lora")

    @property
    def scheduler_overrides(self) -> dict[str, Any]:
        return scheduler_overrides(self.scheduler)

    @property
    def cache_options(self) -> dict[str, Any]:
        return {**CACHE_DEFAULTS, **(self.cache or {})}

    def require_own_loop_for_savings(self, profile: Profile) -> None:
        """Raises UserError where memory is to be saved in the pipeline's own loop, which can't."""
        _require(
            profile.own_loop or not (self.text_first or self.offload_modulation),
            "profile",
            f"{profile.name}, the default without a GPU or chosen, runs the pipeline as it is: text_first and "
            "offload_modulation need another",
        )

    def memory_needed(self, component_bytes: dict[str, int]) -> int:
        """Bytes of GPU memory at the peak, given the size of each component of the pipeline."""
        sizes = dict(component_bytes)
        transformer, text_encoder = sizes.pop("transformer", 0), sizes.pop("text_encoder", 0)
        together = max(transformer, text_encoder) if self.text_first else transformer + text_encoder
        return sum(sizes.values()) + together + WORKSPACE


def _require(condition: bool, parameter: str, problem: str) -> None:
    if not condition:
        raise UserError(f"'{KEY}.{parameter}': {problem}")
