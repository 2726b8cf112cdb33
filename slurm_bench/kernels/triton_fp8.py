"""The GPU kernels of `fp8`, most of them one program a token. Shapes as there."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from slurm_bench.kernels.triton_ops import warps


@triton.jit
def _gelu(value, FAST: tl.constexpr):
    """`FAST` is by NVIDIA's own tanh, off by 2^-11 where 8 bits are by 2^-4: one slow instruction, not three."""
    inner = 0.7978845608028654 * (value + 0.044715 * value * value * value)
    if FAST:
        tanh = tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [inner], dtype=tl.float32, is_pure=True, pack=1
        )
        return 0.5 * value * (1 + tanh)
    return value * tl.sigmoid(2 * inner)


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
    FAST: tl.constexpr,
    OUTLIERS: tl.constexpr,
    OUTLIERS_BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    inside = channel < WIDTH
    value = tl.load(x + token * WIDTH + channel, mask=inside, other=0.0).to(tl.float32)
    if GELU:
        value = _gelu(value, FAST)
    if OUTLIERS:
        value = tl.where(tl.load(is_outlier + channel, mask=inside, other=0) == 0, value, 0.0)
        place = tl.arange(0, OUTLIERS_BLOCK)
        is_one = place < OUTLIERS
        at = tl.load(channels + place, mask=is_one, other=0)
        outlier = tl.load(x + token * WIDTH + at, mask=is_one, other=0.0).to(tl.float32)
        if GELU:
            outlier = _gelu(outlier, FAST)
        tl.store(outliers + token * OUTLIERS + place, outlier.to(outliers.dtype.element_ty), mask=is_one)
    largest = tl.maximum(tl.max(tl.abs(value), axis=0), 1e-12)
    tl.store(scales + token, largest / 448.0)
    tl.store(values + token * WIDTH + channel, (value * (448.0 / largest)).to(values.dtype.element_ty), mask=inside)


@triton.jit
def _widen(weight, scale, out, WIDTH, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < WIDTH
    byte = tl.load(weight + row * WIDTH + channel, mask=inside, other=0).to(tl.uint16)
    half = (((byte & 0x7F) << 7) | ((byte & 0x80) << 8)).to(tl.float16, bitcast=True)
    value = half.to(tl.float32) * 256.0 * tl.load(scale + row)
    tl.store(out + row * WIDTH + channel, value.to(out.dtype.element_ty), mask=inside)


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
        FAST=x.is_cuda and x.element_size() == 2 and torch.version.hip is None,
        OUTLIERS=count,
        OUTLIERS_BLOCK=triton.next_power_of_2(max(1, count)),
        num_warps=min(8, warps(width)),  # at 12288 channels 16 take twice as long
    )
    return values, scales, outliers


def widen(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """`weight` [N, C], float8, times `scale` [1, N]. By its bits, for GPUs without such a type: behind its sign they
    are those of a float16 of which the last seven are missing, but for an exponent that is 8 too small."""
    rows, width = weight.shape
    out = weight.new_empty((rows, width), dtype=dtype)
    block = min(4096, triton.next_power_of_2(width))
    _widen[(rows, triton.cdiv(width, block))](
        weight.contiguous().view(torch.uint8), scale, out, width, BLOCK=block, num_warps=8
    )
    return out
