"""The part of `editor.params` that every family of models has, checked: what is wrong here is said before any GPU is
asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from slurm_bench.checkpoints.lora import Lora, read_lora_params
from slurm_bench.data.images import MAX_PIXELS
from slurm_bench.editors.qwen.family import Family
from slurm_bench.editors.qwen.images import MEGAPIXEL
from slurm_bench.editors.qwen.profiles import Profile, profile_named
from slurm_bench.editors.qwen.schedule import scheduler_overrides
from slurm_bench.editors.qwen.waiting import OUTLIERS, Waiting, spread
from slurm_bench.errors import UserError

KEY = "editor.params"
DTYPES = ("bfloat16", "float32")


@dataclass(frozen=True)
class BaseSettings:
    """The parameters as they were typed, and their defaults; the editors say what each means. Raises UserError that
    names the parameter."""

    family: ClassVar[Family]

    model_name: str
    revision: str | None = None
    dtype: str = "bfloat16"
    true_cfg_scale: float = 4.0
    negative_prompt: str | None = " "
    max_pixels: int = MEGAPIXEL
    lora: str | dict[str, Any] | list[str | dict[str, Any]] | None = None
    scheduler: str | dict[str, Any] | None = None
    profile: str | None = None
    text_first: bool = False
    stream_blocks: int = 0
    keep_bf16: list[str] | tuple[str, ...] = ()
    device: str | None = None

    def __post_init__(self) -> None:
        scale = self.true_cfg_scale
        require(self.dtype in DTYPES, "dtype", f"'{self.dtype}' is none of {', '.join(DTYPES)}")
        require(self.max_pixels >= 64 * 64, "max_pixels", f"{self.max_pixels} is less than {64 * 64}")
        require(self.max_pixels <= MAX_PIXELS, "max_pixels", f"no image of more than {MAX_PIXELS} is scored")
        require(self.stream_blocks >= 0, "stream_blocks", f"{self.stream_blocks} is less than 0")
        require(1 <= scale < math.inf, "true_cfg_scale", f"{scale} is no number of 1 or more; 1 is no guidance")
        require(
            scale == 1 or self.negative_prompt is not None,
            "negative_prompt",
            f"true_cfg_scale={scale} does nothing without one: the pipeline would silently leave guidance off; "
            "set negative_prompt=' ' or true_cfg_scale=1",
        )
        profile = self.profile_on(cuda=True)
        require(
            not profile.fp8 or self.dtype == "bfloat16",
            "dtype",
            f"profile={profile.name} computes in bfloat16 beside its fp8",
        )
        self.check_profile(profile)
        self.family.narrowable.check_keep(self.keep_bf16)
        scheduler_overrides(self.scheduler, self.family.schedulers)
        read_lora_params(self.lora, f"{KEY}.lora")

    def profile_on(self, cuda: bool) -> Profile:
        """Raises UserError for a name that the family doesn't have."""
        return profile_named(self.profile, cuda, self.family.profiles)

    @property
    def savings(self) -> tuple[str, ...]:
        """Parameters that save memory, of those that are set."""
        switches = (name for name in ("text_first", "offload_modulation") if getattr(self, name, False))
        return (*switches, *((f"stream_blocks={self.stream_blocks}",) if self.stream_blocks else ()))

    def waiting(self, blocks: int, from_host: bool) -> Waiting:
        """What of a transformer with so many blocks waits on the host, `from_host` if it was built there. Raises
        UserError for more blocks than there are."""
        modulation = frozenset(self.family.modulation)
        parts = modulation if "offload_modulation" in self.savings else frozenset()
        outliers = frozenset({OUTLIERS})
        return Waiting(
            parts=parts | outliers if from_host else parts,
            blocks=spread(self.stream_blocks, blocks),
            apart=modulation | outliers,
        )

    def check_profile(self, profile: Profile) -> None:
        """Raises UserError for one that can't do what is asked: the pipeline's own loop saves no memory."""
        require(
            profile.own_loop or not self.savings,
            "profile",
            f"{profile.name}, the default without a GPU or chosen, runs the pipeline as it is: "
            f"{' and '.join(self.savings)} can't be with it",
        )

    @property
    def guided_by(self) -> str | None:
        """The negative prompt where guidance runs."""
        return self.negative_prompt if self.true_cfg_scale > 1 else None

    @property
    def loras(self) -> tuple[Lora, ...]:
        return read_lora_params(self.lora, f"{KEY}.lora")

    @property
    def scheduler_overrides(self) -> dict[str, Any]:
        return scheduler_overrides(self.scheduler, self.family.schedulers)


def require(condition: bool, parameter: str, problem: str) -> None:
    if not condition:
        raise UserError(f"'{KEY}.{parameter}': {problem}")
