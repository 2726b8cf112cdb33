"""The GPU kernels of `fp8`: one program a token. Shapes as there."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from slurm_bench.kernels.triton_ops import warps


@triton.jit
def _gelu(value):
    return value * tl.sigmoid(1.5957691216057308 * (value + 0.044715 * value * value * value))


@triton.jit
def _quantize(
    x,
    values,
    scales,
    is_outlier,
    channels,
    outliers,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    GELU: tl.constexpr,
    OUTLIERS: tl.constexpr,
    OUTLIERS_BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    inside = channel < WIDTH
    value = tl.load(x + token * WIDTH + channel, mask=inside, other=0.0).to(tl.float32)
    if GELU:
        value = _gelu(value)
    if OUTLIERS:
        value = tl.where(tl.load(is_outlier + channel, mask=inside, other=0) == 0, value, 0.0)
        place = tl.arange(0, OUTLIERS_BLOCK)
        is_one = place < OUTLIERS
        at = tl.load(channels + place, mask=is_one, other=0)
        outlier = tl.load(x + token * WIDTH + at, mask=is_one, other=0.0).to(tl.float32)
        if GELU:
            outlier = _gelu(outlier)
        tl.store(outliers + token * OUTLIERS + place, outlier.to(outliers.dtype.element_ty), mask=is_one)
    largest = tl.maximum(tl.max(tl.abs(value), axis=0), 1e-12)
    tl.store(scales + token, largest / 448.0)
    tl.store(values + token * WIDTH + channel, (value * (448.0 / largest)).to(values.dtype.element_ty), mask=inside)


def quantize(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    values, scales, _ = _launch_quantize(x, None, None, gelu)
    return values, scales


def quantize_without_outliers(
    x: Tensor, channels: Tensor, is_outlier: Tensor, gelu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return _launch_quantize(x, channels, is_outlier, gelu)


def _launch_quantize(
    x: Tensor, channels: Tensor | None, is_outlier: Tensor | None, gelu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    tokens, width = x.shape
    x = x.contiguous()
    values = torch.empty_like(x, dtype=torch.float8_e4m3fn)
    scales = x.new_empty((tokens, 1), dtype=torch.float32)
    count = 0 if channels is None else len(channels)
    outliers = x.new_empty((tokens, count))
    _quantize[(tokens,)](
        x,
        values,
        scales,
        x if is_outlier is None else is_outlier,
        x if channels is None else channels,
        outliers,
        WIDTH=width,
        BLOCK=triton.next_power_of_2(width),
        GELU=gelu,
        OUTLIERS=count,
        OUTLIERS_BLOCK=triton.next_power_of_2(max(1, count)),
        num_warps=warps(width),
    )
    return values, scales, outliers
