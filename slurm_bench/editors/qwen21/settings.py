"""`editor.params` of QwenImage21Editor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from slurm_bench.editors.qwen.base_settings import KEY, BaseSettings, require
from slurm_bench.editors.qwen.family import Family
from slurm_bench.editors.qwen.profiles import Profile
from slurm_bench.editors.qwen.schedule import even_sigmas
from slurm_bench.editors.qwen21.family import QWEN_IMAGE_21, TURBO_SIGMAS
from slurm_bench.errors import UserError

STEPS = 40  # the pipeline's default, where neither the model nor the user says how many
TRANSPARENCY = ("keep", "flatten")


@dataclass(frozen=True)
class Sampling:
    """What an edit depends on besides the sample and the weights. `sigmas` are a schedule without its last, zero;
    without `negative_prompt` there is no guidance."""

    sigmas: tuple[float, ...]
    scale: float
    negative_prompt: str | None
    resolution: float  # the side of a square with the area of the edited image, and of each source as it is seen

    @property
    def steps(self) -> int:
        return len(self.sigmas)

    @property
    def pixels(self) -> float:
        return self.resolution * self.resolution

    @property
    def guidance(self) -> bool:
        return self.negative_prompt is not None


@dataclass(frozen=True)
class Settings(BaseSettings):
    family: ClassVar[Family] = QWEN_IMAGE_21

    true_cfg_scale: float = 1.0
    num_inference_steps: int | None = None
    transparency: str = "keep"
    batched: bool = False

    def __post_init__(self) -> None:
        steps = self.num_inference_steps
        require(steps is None or steps >= 1, "num_inference_steps", f"{steps} is less than 1")
        named = ", ".join(TRANSPARENCY)
        require(self.transparency in TRANSPARENCY, "transparency", f"'{self.transparency}' is none of {named}")
        require(isinstance(self.batched, bool), "batched", f"{self.batched!r} is neither true nor false")
        super().__post_init__()
        self.sigmas(None)

    def check_profile(self, profile: Profile) -> None:
        """A batch would choose its outliers in 8 bits for all its samples together."""
        super().check_profile(profile)
        require(
            not self.batched or (profile.own_loop and not profile.fp8),
            "batched",
            f"profile={profile.name} edits samples one by one; set {KEY}.profile=exact, or leave batched out",
        )

    def sigmas(self, own: Any) -> tuple[float, ...]:
        """The schedule, given what the model's `model_index.json` says of its own, or None. Raises UserError for a
        number of steps beside a schedule that is fixed."""
        fixed = {"turbo": TURBO_SIGMAS, "even": None}.get(str(self.scheduler), own)
        if fixed is None:
            return tuple(even_sigmas(self.num_inference_steps or STEPS).tolist())
        if not _fall_from_one(fixed):
            raise UserError(f"{self.model_name}/model_index.json: sample_sigmas are no numbers that fall from 1 to 0")
        if self.num_inference_steps not in (None, len(fixed)):
            whose = "scheduler=turbo" if self.scheduler == "turbo" else f"{self.model_name}'s own schedule"
            raise UserError(
                f"'{KEY}.num_inference_steps': {self.num_inference_steps}, but {whose} has {len(fixed)} steps; "
                f"leave it out, or set {KEY}.scheduler=even"
            )
        return tuple(map(float, fixed))

    def sampling_with(self, own: Any) -> Sampling:
        return Sampling(
            self.sigmas(own), float(self.true_cfg_scale), self.guided_by, resolution=math.sqrt(self.max_pixels)
        )


def _fall_from_one(sigmas: Any) -> bool:
    if not isinstance(sigmas, list | tuple) or not sigmas or not all(type(sigma) in (int, float) for sigma in sigmas):
        return False
    return sigmas[0] <= 1 and sigmas[-1] > 0 and all(one > other for one, other in pairwise(sigmas))
