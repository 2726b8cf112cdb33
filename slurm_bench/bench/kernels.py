"""Where a forward's milliseconds go, by kind of kernel."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

GROUPS = (
    ("attention", re.compile(r"sdpa|flash|fmha|attention", re.IGNORECASE)),
    ("matmul", re.compile(r"gemm|nvjet|cutlass|matmul|addmm|::mm", re.IGNORECASE)),
)


def group_of(kernel: str) -> str:
    return next((name for name, pattern in GROUPS if pattern.search(kernel)), "other")


def kernel_groups(work: Callable[[], Any], device: str) -> dict[str, float]:
    """Milliseconds of one call of `work`; `idle` is when the GPU waited between its kernels. Empty on a CPU."""
    if device != "cuda":
        return {}
    work()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        work()
        torch.cuda.synchronize()
    events = [event for event in seen.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    found = dict.fromkeys(("attention", "matmul", "other"), 0.0)
    for event in events:
        found[group_of(event.name)] += event.time_range.elapsed_us() / 1000
    span = max(event.time_range.end for event in events) - min(event.time_range.start for event in events)
    found["idle"] = max(0.0, span / 1000 - sum(found.values()))
    return {name: round(value, 1) for name, value in found.items()}
