"""Profiles: how far from the diffusers pipeline's own call an edit may go, for speed. A new one is an entry in
PROFILES; bench and tests walk over that table."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from slurm_bench.errors import UserError
from slurm_bench.machine import Gpu


@dataclass(frozen=True)
class Profile:
    """`own_loop`: our denoising loop instead of the pipeline's; `fp8`: 8-bit linears where they are safe; `cache`:
    cache-dit skips steps; `default_on`: the device ("cuda" or "cpu") whose default it is."""

    name: str
    own_loop: bool = False
    fp8: bool = False
    cache: bool = False
    default_on: str = ""

    @property
    def approximate(self) -> bool:
        """Whether it computes something else than the pipeline, beyond rounding."""
        return self.fp8 or self.cache


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("stock", default_on="cpu"),
        Profile("exact", own_loop=True, default_on="cuda"),
        Profile("fp8", own_loop=True, fp8=True),
        Profile("fast", own_loop=True, fp8=True, cache=True),
    )
}

# The four- and eight-step Lightning checkpoints were distilled with one fixed shift of 3.
LIGHTNING_SCHEDULER: dict[str, Any] = {
    "base_shift": math.log(3),
    "max_shift": math.log(3),
    "shift_terminal": None,
}

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
FP8_CAPABILITY = (8, 9)

MASK_POLICIES = ("slow", "medium", "fast", "ultra", None)

# The linear layers of a block. They may be in 8 bits.
LINEARS = (
    *(f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
    *(f"attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
    *(f"{stream}_mlp.net.{name}" for stream in ("img", "txt") for name in ("0.proj", "2")),
)
_IN_A_BLOCK = re.compile(r"transformer_blocks\.\d+\.(.*)")

# The inputs of this layer have outliers, which are multiplied in bf16 even where the rest is in 8 bits.
WITH_OUTLIERS = "img_mlp.net.2"

# Layers that are one matrix product, and so are in 8 bits together or not at all.
_STACKED = (("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj"))


def in_fp8(module_name: str, keep_bf16: Sequence[str] = ()) -> bool:
    """Whether a linear layer of the transformer, by its name there, computes in fp8: those of LINEARS whose name ends
    like none in `keep_bf16`; of query, key and value, naming one keeps all three. Modulation, embedders, `norm_out`
    and `proj_out` never do: they are small and steer everything."""
    parent, _, child = module_name.rpartition(".")
    stacked = next((names for names in _STACKED if child in names), (child,))
    kept = any(f"{parent}.{name}".endswith(tuple(keep_bf16)) for name in stacked)
    in_block = _IN_A_BLOCK.fullmatch(module_name)
    return in_block is not None and in_block[1] in LINEARS and not kept


def check_keep_bf16(names: Any) -> tuple[str, ...]:
    """Raises UserError for a name in which no linear layer's ends, and which would keep nothing in bf16."""
    if not isinstance(names, list | tuple):
        raise UserError(f"'editor.params.keep_bf16': {names!r} is no list; write one, like [img_mlp.net.2]")
    for name in names:
        end = re.sub(r"^(transformer_blocks\.)?\d+\.", "", str(name))
        if not end or not any(linear.endswith(end) for linear in LINEARS):
            raise UserError(
                f"'editor.params.keep_bf16': no linear of a block ends in '{name}'; there are {', '.join(LINEARS)}"
            )
    return tuple(map(str, names))


def profile_named(name: str | None, cuda: bool) -> Profile:
    """`None` is the device's default. Raises UserError for an unknown name."""
    if name is None:
        return next(p for p in PROFILES.values() if p.default_on == ("cuda" if cuda else "cpu"))
    if name not in PROFILES:
        raise UserError(f"'editor.params.profile': no profile '{name}'; there are {', '.join(PROFILES)}")
    return PROFILES[name]


def check_extras(profile: Profile) -> None:
    """Raises UserError if the profile needs a library that isn't installed."""
    if profile.cache and find_spec("cache_dit") is None:
        raise UserError(f"'editor.params.profile': {profile.name} needs cache-dit: pip install cache-dit")


def check_capability(profile: Profile, gpu: Gpu | None) -> None:
    """Raises UserError if a GPU of NVIDIA's can be seen here and has no fp8 matrix products. (0, 0) is one whose
    capability isn't told."""
    if profile.fp8 and gpu is not None and (0, 0) < gpu.capability < FP8_CAPABILITY:
        raise UserError(
            f"'editor.params.profile': {profile.name} needs a GPU with fp8 matrix products (Ada, Hopper or later: "
            f"compute capability 8.9), {gpu.name} has {gpu.capability[0]}.{gpu.capability[1]}; use profile=exact"
        )


def check_fp8(profile: Profile, device: str) -> None:
    """Once the device is chosen: raises UserError if it can't run the fp8 products of the profile."""
    if not profile.fp8:
        return
    if not device.startswith("cuda"):
        raise UserError(f"'editor.params.profile': {profile.name} needs a GPU with fp8 matrix products, not {device}")
    import torch

    from slurm_bench.kernels.fp8 import why_unsupported

    if reason := why_unsupported(torch.device(device)):
        raise UserError(
            f"'editor.params.profile': {profile.name} can't run on {torch.cuda.get_device_name(device)} with torch "
            f"{torch.__version__} ({reason}); use profile=exact"
        )
