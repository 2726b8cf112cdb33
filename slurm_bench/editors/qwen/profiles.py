"""Profiles: how far from the diffusers pipeline's own call an edit may go, for speed. A new one is an entry in
PROFILES; bench and tests walk over that table. Qwen-Image-2.1 has those that skip no steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from slurm_bench.errors import UserError
from slurm_bench.kernels.fp8_support import check_device_has_fp8, check_gpu_has_fp8
from slurm_bench.machine import Gpu

_PROFILE_KEY = "editor.params.profile"


@dataclass(frozen=True)
class Profile:
    """`own_loop`: our denoising loop instead of the pipeline's; `fp8`: 8-bit linears where they are safe;
    `narrow_weights`: of these the weights alone in 8 bits; `cache`: cache-dit skips steps; `default_on`: the device
    ("cuda" or "cpu") whose default it is."""

    name: str
    own_loop: bool = False
    fp8: bool = False
    narrow_weights: bool = False
    cache: bool = False
    default_on: str = ""

    @property
    def approximate(self) -> bool:
        """Whether it computes something else than the pipeline, beyond rounding."""
        return self.fp8 or self.narrow_weights or self.cache


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("stock", default_on="cpu"),
        Profile("exact", own_loop=True, default_on="cuda"),
        Profile("w8a16", own_loop=True, narrow_weights=True),
        Profile("fp8", own_loop=True, fp8=True),
        Profile("fast", own_loop=True, fp8=True, cache=True),
    )
}

WITHOUT_SKIPS = {name: profile for name, profile in PROFILES.items() if not profile.cache}

# As cache-dit calls them, except `mask_policy`: slow, medium, fast or ultra fix beforehand which steps are skipped (of
# 50, `fast` computes 20), whatever the picture; with null the residual's threshold decides in each step.
CACHE_DEFAULTS: dict[str, Any] = {
    "mask_policy": "fast",
    "Fn_compute_blocks": 1,
    "Bn_compute_blocks": 0,
    "residual_diff_threshold": 0.12,
    "max_warmup_steps": 4,
    "max_continuous_cached_steps": 4,
    "taylorseer_order": 1,
}


MASK_POLICIES = ("slow", "medium", "fast", "ultra", None)


def profile_named(name: str | None, cuda: bool, among: Mapping[str, Profile] = PROFILES) -> Profile:
    """`None` is the device's default. Raises UserError for an unknown name."""
    if name is None:
        return next(p for p in among.values() if p.default_on == ("cuda" if cuda else "cpu"))
    if name not in among:
        raise UserError(f"'{_PROFILE_KEY}': no profile '{name}'; there are {', '.join(among)}")
    return among[name]


def check_extras(profile: Profile) -> None:
    """Raises UserError if the profile needs a library that isn't installed."""
    if profile.cache and find_spec("cache_dit") is None:
        raise UserError(f"'{_PROFILE_KEY}': {profile.name} needs cache-dit: pip install cache-dit")


def check_capability(profile: Profile, gpu: Gpu | None) -> None:
    """Raises UserError if a GPU can be seen here that hasn't what the profile computes in."""
    if profile.fp8:
        check_gpu_has_fp8(gpu, _PROFILE_KEY, profile.name)


def check_fp8(profile: Profile, device: str) -> None:
    """Once the device is chosen: raises UserError if it can't run the fp8 products of the profile."""
    if profile.fp8:
        check_device_has_fp8(device, _PROFILE_KEY, profile.name)
