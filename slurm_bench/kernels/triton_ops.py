"""The GPU kernels of `ops`: one program a token, shapes as there. Each reads and writes its data once, so memory
bandwidth bounds its time."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize=["last_kind", "boundary"])
def _norm_modulate(
    x,
    y,
    table,
    gates,
    summed,
    normed,
    scales,
    last_kind,
    boundary,
    table_stride,
    gates_stride,
    eps,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ADD: tl.constexpr,
    NORM: tl.constexpr,
    FP8: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    inside = channel < WIDTH
    kind = tl.where(token >= boundary, last_kind, 0)
    value = tl.load(x + token * WIDTH + channel, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        other = tl.load(y + token * WIDTH + channel, mask=inside, other=0.0).to(tl.float32)
        weight = tl.load(gates + kind * gates_stride + channel, mask=inside, other=0.0).to(tl.float32)
        rounded = (value + weight * other).to(summed.dtype.element_ty)
        tl.store(summed + token * WIDTH + channel, rounded, mask=inside)
        value = rounded.to(tl.float32)
    if NORM:
        mean = tl.sum(value, axis=0) / WIDTH
        centred = tl.where(inside, value - mean, 0.0)
        inverse = tl.rsqrt(tl.sum(centred * centred, axis=0) / WIDTH + eps)
        shift_at = table + kind * table_stride + channel
        shift = tl.load(shift_at, mask=inside, other=0.0).to(tl.float32)
        scale = tl.load(shift_at + WIDTH, mask=inside, other=0.0).to(tl.float32)
        result = centred * inverse * (1 + scale) + shift
        if FP8:
            largest = tl.maximum(tl.max(tl.where(inside, tl.abs(result), 0.0), axis=0), 1e-12)
            tl.store(scales + token, largest / 448.0)
            result = result * (448.0 / largest)
        tl.store(normed + token * WIDTH + channel, result.to(normed.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["first", "last_kind"])
def _rotate(
    x,
    cos,
    sin,
    weights,
    first,
    last_kind,
    stride,
    table_stride,
    eps,
    HEADS: tl.constexpr,
    HEADS_BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    PAIRS_BLOCK: tl.constexpr,
    GROUPS: tl.constexpr,
    INTERLEAVED: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEADS_BLOCK)[:, None]
    pair = tl.arange(0, PAIRS_BLOCK)[None, :]
    here = pair < WIDTH // 2
    inside = (head < HEADS) & here
    base = x + token * stride + head * WIDTH
    if INTERLEAVED:
        both = tl.arange(0, 2 * PAIRS_BLOCK)[None, :]
        loaded = tl.load(base + both, mask=(head < HEADS) & (both < WIDTH), other=0.0).to(tl.float32)
        a, b = tl.split(tl.reshape(loaded, [HEADS_BLOCK, PAIRS_BLOCK, 2]))
        a_at, b_at = 2 * pair, 2 * pair + 1
    else:
        a_at, b_at = pair, pair + WIDTH // 2
        a = tl.load(base + a_at, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(base + b_at, mask=inside, other=0.0).to(tl.float32)
    if GROUPS:
        inverse = tl.rsqrt((tl.sum(a * a, axis=1) + tl.sum(b * b, axis=1)) / WIDTH + eps)[:, None]
        weight = weights + tl.where(token < first, 0, last_kind) * GROUPS * WIDTH
        weight_a = tl.load(weight + a_at, mask=here, other=0.0)
        weight_b = tl.load(weight + b_at, mask=here, other=0.0)
        for group in tl.static_range(1, GROUPS):
            mine = head >= group * (HEADS // GROUPS)
            weight_a = tl.where(mine, tl.load(weight + group * WIDTH + a_at, mask=here, other=0.0), weight_a)
            weight_b = tl.where(mine, tl.load(weight + group * WIDTH + b_at, mask=here, other=0.0), weight_b)
        a = a * inverse * weight_a.to(tl.float32)
        b = b * inverse * weight_b.to(tl.float32)
    c = tl.load(cos + token * table_stride + pair, mask=here, other=0.0).to(tl.float32)
    s = tl.load(sin + token * table_stride + pair, mask=here, other=0.0).to(tl.float32)
    rotated_a = a * c - b * s
    rotated_b = a * s + b * c
    kind = x.dtype.element_ty
    if INTERLEAVED:
        both = tl.arange(0, 2 * PAIRS_BLOCK)[None, :]
        joined = tl.reshape(tl.join(rotated_a, rotated_b), [HEADS_BLOCK, 2 * PAIRS_BLOCK])
        tl.store(base + both, joined.to(kind), mask=(head < HEADS) & (both < WIDTH))
    else:
        tl.store(base + a_at, rotated_a.to(kind), mask=inside)
        tl.store(base + b_at, rotated_b.to(kind), mask=inside)


@triton.jit
def _norm(
    x,
    y,
    weight,
    bias,
    summed,
    normed,
    eps,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ADD: tl.constexpr,
    LAYER: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    inside = channel < WIDTH
    value = tl.load(x + token * WIDTH + channel, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        rounded = (value + tl.load(y + token * WIDTH + channel, mask=inside, other=0.0).to(tl.float32)).to(
            summed.dtype.element_ty
        )
        tl.store(summed + token * WIDTH + channel, rounded, mask=inside)
        value = rounded.to(tl.float32)
    if LAYER:
        value = tl.where(inside, value - tl.sum(value, axis=0) / WIDTH, 0.0)
    inverse = tl.rsqrt(tl.sum(value * value, axis=0) / WIDTH + eps)
    result = value * inverse * tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    if LAYER:
        result += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + token * WIDTH + channel, result.to(normed.dtype.element_ty), mask=inside)


@triton.jit
def _silu_mul(gate, up, out, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    value = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    value = value * tl.sigmoid(value) * tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


def norm_modulate(
    x: Tensor, table: Tensor, boundary: int, eps: float, fp8: bool, y: Tensor | None, gates: Tensor | None
) -> tuple[Tensor, ...]:
    """(sum, normed), and with `fp8` the scales of `normed`."""
    x = x.contiguous()
    summed = x if y is None else torch.empty_like(x)
    normed = torch.empty_like(x, dtype=torch.float8_e4m3fn if fp8 else x.dtype)
    scales = x.new_empty((len(x), 1), dtype=torch.float32) if fp8 else x
    _launch_norm_modulate(x, y, table, gates, summed, normed, scales, boundary, eps, norm=True, fp8=fp8)
    return (summed, normed, scales) if fp8 else (summed, normed)


def add_gated(x: Tensor, y: Tensor, gates: Tensor, boundary: int) -> Tensor:
    x = x.contiguous()
    summed = torch.empty_like(x)
    _launch_norm_modulate(x, y, gates, gates, summed, x, x, boundary, 0.0, norm=False, fp8=False)
    return summed


def _launch_norm_modulate(
    x: Tensor,
    y: Tensor | None,
    table: Tensor,
    gates: Tensor | None,
    summed: Tensor,
    normed: Tensor,
    scales: Tensor,
    boundary: int,
    eps: float,
    norm: bool,
    fp8: bool,
) -> None:
    tokens, width = x.shape
    gates = table if gates is None else gates
    assert table.stride(-1) == gates.stride(-1) == 1
    assert len(table) == len(gates)
    assert not norm or table.stride(1) == width
    _norm_modulate[(tokens,)](
        x,
        x if y is None else y.contiguous(),
        table,
        gates,
        summed,
        normed,
        scales,
        len(table) - 1,
        boundary,
        table.stride(0),
        gates.stride(0),
        eps,
        WIDTH=width,
        BLOCK=triton.next_power_of_2(width),
        ADD=y is not None,
        NORM=norm,
        FP8=fp8,
        num_warps=warps(width),
    )


def rotate_(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    interleaved: bool,
    weights: Tensor | None,
    first: int,
    eps: float,
) -> None:
    tokens, heads, width = x.shape
    assert x.stride()[1:] == (width, 1)
    assert cos.stride() == sin.stride()
    assert cos.stride(1) == 1
    _rotate[(tokens,)](
        x,
        cos,
        sin,
        cos if weights is None else weights.contiguous(),
        first,
        0 if weights is None else len(weights) - 1,
        x.stride(0),
        cos.stride(0),
        eps,
        HEADS=heads,
        HEADS_BLOCK=triton.next_power_of_2(heads),
        WIDTH=width,
        PAIRS_BLOCK=triton.next_power_of_2(width // 2),
        GROUPS=0 if weights is None else weights.shape[1],
        INTERLEAVED=interleaved,
        num_warps=4 if heads <= 32 else 8,
    )


def norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """(sum, normed): RMSNorm, or LayerNorm with a `bias`."""
    tokens, width = x.shape
    x = x.contiguous()
    summed = x if y is None else torch.empty_like(x)
    normed = torch.empty_like(x)
    _norm[(tokens,)](
        x,
        x if y is None else y.contiguous(),
        weight,
        weight if bias is None else bias,
        summed,
        normed,
        eps,
        WIDTH=width,
        BLOCK=triton.next_power_of_2(width),
        ADD=y is not None,
        LAYER=bias is not None,
        num_warps=warps(width),
    )
    return summed, normed


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    gate, up = gate.contiguous(), up.contiguous()
    out = torch.empty_like(gate)
    _silu_mul[(triton.cdiv(gate.numel(), 4096),)](gate, up, out, gate.numel(), BLOCK=4096, num_warps=8)
    return out


def warps(width: int) -> int:
    """About 16 elements a thread."""
    return max(1, min(16, triton.next_power_of_2(width) // 512))
