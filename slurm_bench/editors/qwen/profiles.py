"""Named bundles of options. What each may change of the image is the whole difference between them."""

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
    """`own_loop`: our denoising loop instead of the pipeline's; `fp8`: 8-bit linears where they are safe;
    `cache`: steps whose first blocks hardly changed reuse the rest (cache-dit)."""

    name: str
    own_loop: bool = False
    fp8: bool = False
    cache: bool = False


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("stock"),
        Profile("exact", own_loop=True),
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

# Of cache-dit's names, but for `mask_policy`: slow, medium, fast or ultra fixes beforehand which steps are skipped
# (of 50, `fast` computes 20), whatever the picture; with null the residual's threshold decides in each step.
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

# A block's linears, which may be in 8 bits.
LINEARS = (
    *(f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
    *(f"attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
    *(f"{stream}_mlp.net.{name}" for stream in ("img", "txt") for name in ("0.proj", "2")),
)
_OF_A_BLOCK = re.compile(r"transformer_blocks\.\d+\.(.*)")

# Its inputs have outliers, which are computed in bf16 whatever the rest of it is computed in.
WITH_OUTLIERS = "img_mlp.net.2"

# One matrix product each, so of one kind.
_TOGETHER = (("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj"))


def in_fp8(module_name: str, keep_bf16: Sequence[str] = ()) -> bool:
    """Whether a linear of the transformer, by its name there, computes in fp8: those of the blocks' attention and
    MLPs whose name (for a query, key or value any of the three) doesn't end like one in `keep_bf16`. Modulation,
    embedders, `norm_out` and `proj_out` are small and steer everything: never."""
    parent, _, child = module_name.rpartition(".")
    together = next((names for names in _TOGETHER if child in names), (child,))
    kept = any(f"{parent}.{name}".endswith(tuple(keep_bf16)) for name in together)
    of_a_block = _OF_A_BLOCK.fullmatch(module_name)
    return of_a_block is not None and of_a_block[1] in LINEARS and not kept


def check_keep_bf16(names: Any) -> tuple[str, ...]:
    """Raises UserError where a name is the end of no linear's: it would keep nothing, without a word."""
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
    """`None` is `exact` on CUDA and `stock` elsewhere. Raises UserError for an unknown name."""
    name = name or ("exact" if cuda else "stock")
    if name not in PROFILES:
        raise UserError(f"'editor.params.profile': no profile '{name}'; there are {', '.join(PROFILES)}")
    return PROFILES[name]


def check_extras(profile: Profile) -> None:
    """Raises UserError if the profile needs a library that isn't installed."""
    if profile.cache and find_spec("cache_dit") is None:
        raise UserError(f"'editor.params.profile': {profile.name} needs cache-dit: pip install cache-dit")


def check_capability(profile: Profile, gpu: Gpu | None) -> None:
    """Raises UserError if a GPU can be seen here and has no fast fp8 matrix product."""
    if profile.fp8 and gpu is not None and gpu.capability < (9, 0):
        raise UserError(
            f"'editor.params.profile': {profile.name} needs a Hopper-class GPU (compute capability 9.0), "
            f"{gpu.name} has {gpu.capability[0]}.{gpu.capability[1]}; use profile=exact"
        )


def scheduler_overrides(scheduler: str | dict[str, Any] | None) -> dict[str, Any]:
    """`lightning`, or fields of the scheduler's configuration. Raises UserError."""
    if scheduler is None:
        return {}
    if scheduler == "lightning":
        return LIGHTNING_SCHEDULER
    if isinstance(scheduler, str):
        raise UserError(f"'editor.params.scheduler': '{scheduler}' is neither 'lightning' nor fields with values")
    return dict(scheduler)
