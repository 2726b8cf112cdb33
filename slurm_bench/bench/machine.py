"""The machine, and what its matrix products reach: the ceiling that every other figure is held against."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from slurm_bench.kernels.attention import select_kernel
from slurm_bench.machine import GIB, free_memory, held_by_others, package_versions

SUSTAINED_SECONDS = 3.0


def describe_machine(device: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"device": platform.processor() or platform.machine(), "memory_gib": None}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts = {"device": properties.name, "memory_gib": round(properties.total_memory / GIB, 1)}
        facts["attention"] = select_kernel(torch.device(device), torch.bfloat16).name
        if others := held_by_others(device):
            facts["held_by_others_gib"] = round(others / GIB, 1)
    return {**facts, **package_versions()}


@dataclass(frozen=True)
class Ceilings:
    """FLOP/s of a matrix product by type: bf16 (float32 on a CPU), and fp8 where there is the hardware. `cool` is
    what a GPU at rest reaches for some milliseconds, `sustained` what its power limit leaves after some seconds."""

    cool: dict[str, float]
    sustained: dict[str, float]


def matmul_ceilings(device: str, side: int) -> Ceilings:
    """Of a `side`³ product of random data: zeros are faster than the truth."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    products, flops = _products(device, a, b), 2.0 * side**3
    cool = {name: flops / seconds_of(product, device) for name, product in products.items()}
    if device != "cuda":
        return Ceilings(cool, cool)
    return Ceilings(cool, {name: flops / _sustained(product, device) for name, product in products.items()})


def _sustained(product: Callable[[], Tensor], device: str) -> float:
    until = time.monotonic() + SUSTAINED_SECONDS
    while True:
        seconds = seconds_of(product, device, repeat=50)
        if time.monotonic() > until:
            return seconds


def _products(device: str, a: Tensor, b: Tensor) -> dict[str, Callable[[], Tensor]]:
    from slurm_bench.kernels.fp8 import why_unsupported

    products: dict[str, Callable[[], Tensor]] = {"bf16": lambda: a @ b}
    if device == "cuda" and why_unsupported(torch.device(device)) is None:
        products["fp8"] = _fp8_product(a, b)
    return products


def _fp8_product(a: Tensor, b: Tensor) -> Callable[[], Tensor]:
    from slurm_bench.kernels.fp8 import Fp8Linear, quantize

    layer = torch.nn.Linear(b.shape[1], b.shape[0], bias=False, device=b.device, dtype=b.dtype)
    layer.weight.data = b
    fp8, rows = Fp8Linear.of(layer), quantize(a)
    return lambda: fp8(rows)


def reset_peak() -> None:
    free_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float | None:
    """The most that tensors took on the GPU since `reset_peak`."""
    return round(torch.cuda.max_memory_allocated() / GIB, 1) if torch.cuda.is_available() else None


def seconds_of(work: Callable[[], Any], device: str, repeat: int = 20) -> float:
    """The median of `repeat` calls, after three to warm up."""
    for _ in range(3):
        work()
    if device != "cuda":
        return statistics.median(_wall(work) for _ in range(min(repeat, 5)))
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeat)]
    for begin, end in marks:
        begin.record()
        work()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in marks) / 1000


def _wall(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
