"""`editor.params` of QwenImageEditor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from slurm_bench.editors.qwen.base_settings import BaseSettings, require
from slurm_bench.editors.qwen.family import QWEN_IMAGE_EDIT, Family
from slurm_bench.editors.qwen.images import MEGAPIXEL
from slurm_bench.editors.qwen.profiles import CACHE_DEFAULTS, MASK_POLICIES
from slurm_bench.editors.qwen.schedule import same_kind


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
class Settings(BaseSettings):
    family: ClassVar[Family] = QWEN_IMAGE_EDIT

    num_inference_steps: int = 50
    offload_modulation: bool = False
    cache: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        require(self.num_inference_steps >= 1, "num_inference_steps", f"{self.num_inference_steps} is less than 1")
        super().__post_init__()
        self._check_cache()

    def _check_cache(self) -> None:
        for option, value in (self.cache or {}).items():
            require(option in CACHE_DEFAULTS, "cache", f"no option '{option}'; there are {', '.join(CACHE_DEFAULTS)}")
            fits = option == "mask_policy" or same_kind(value, CACHE_DEFAULTS[option])
            require(fits, f"cache.{option}", f"{value!r} should be a number like {CACHE_DEFAULTS[option]}")
        policy = self.cache_options["mask_policy"]
        policies = ", ".join(map(str, MASK_POLICIES))
        require(policy in MASK_POLICIES, "cache.mask_policy", f"'{policy}' is none of {policies}")

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.num_inference_steps, float(self.true_cfg_scale), self.guided_by, self.max_pixels)

    @property
    def cache_options(self) -> dict[str, Any]:
        return {**CACHE_DEFAULTS, **(self.cache or {})}
