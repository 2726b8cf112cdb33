"""What the bench asks of a model that edits; `editing` measures any by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from slurm_bench.editors.base import EditRequest
from slurm_bench.editors.qwen.flops import ForwardFlops
from slurm_bench.editors.qwen.profiles import Profile


@dataclass(frozen=True)
class Schedule:
    steps: int
    scale: float
    scheduler: str | None = None


@dataclass(frozen=True)
class Model:
    """`session` is (size, device, dtype, profile) → a session over random weights. `inputs` are one forward's, by the
    names that diffusers' transformer gives them; `velocity` computes the noise's of them, as the session's profile
    does it. `flops` are an image's forwards, each with how often it runs."""

    schedules: Mapping[str, tuple[Schedule, ...]]  # by size; the first is the longest
    session: Callable[[str, str, str, Profile], Any]
    inputs: Callable[[Any, EditRequest], dict[str, Any]]
    velocity: Callable[[Any, dict[str, Any]], Tensor]
    noise: Callable[[Tensor, dict[str, Any]], Tensor]  # of a whole forward's velocity
    flops: Callable[[Any, EditRequest, int], Sequence[tuple[int, ForwardFlops]]]
