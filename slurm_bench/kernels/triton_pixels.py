"""The GPU kernels of `pixels`, shapes as there. Memory bandwidth bounds their time. Widths aren't compiled in, so that
one kernel does for all layers of a VAE, and a first start doesn't wait for many."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS = 64  # that a program works on, as many channels of them at a time
CHANNELS = 64
BLOCK = 2048


@triton.jit(do_not_specialize=["pixels"])
def _rms_norm_silu(
    x, weight, bias, out, pixels, width, PIXELS: tl.constexpr, CHANNELS: tl.constexpr, BIAS: tl.constexpr
):
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)[:, None]
    squares = tl.zeros([PIXELS], dtype=tl.float32)
    for begin in range(0, width, CHANNELS):
        channel = begin + tl.arange(0, CHANNELS)[None, :]
        value = tl.load(x + pixel * width + channel, mask=(pixel < pixels) & (channel < width), other=0.0).to(
            tl.float32
        )
        if BIAS:
            value += tl.load(bias + channel, mask=channel < width, other=0.0).to(tl.float32)
        squares += tl.sum(value * value, axis=1)
    inverse = tl.rsqrt(tl.maximum(squares, 1e-24) / width)[:, None]
    for begin in range(0, width, CHANNELS):
        channel = begin + tl.arange(0, CHANNELS)[None, :]
        inside = (pixel < pixels) & (channel < width)
        value = tl.load(x + pixel * width + channel, mask=inside, other=0.0).to(tl.float32)
        if BIAS:
            value += tl.load(bias + channel, mask=channel < width, other=0.0).to(tl.float32)
        value *= inverse * tl.load(weight + channel, mask=channel < width, other=0.0).to(tl.float32)
        tl.store(out + pixel * width + channel, (value * tl.sigmoid(value)).to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["size", "width"])
def _add(x, bias, y, size, width, BLOCK: tl.constexpr, ADD: tl.constexpr):
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    at = tl.arange(0, BLOCK)
    inside = begin + at < size
    channel = ((begin % width).to(tl.int32) + at) % width
    value = tl.load(x + begin + at, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        value += tl.load(y + begin + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(x + begin + at, value.to(x.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["pixels", "rows", "columns", "side"])
def _enlarge(
    x,
    channels,
    out,
    pixels,
    rows,
    columns,
    side,
    inputs,
    outputs,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PICK: tl.constexpr,
    ADD: tl.constexpr,
):
    """`rows` and `columns` are the result's, and `pixels` how many it has in all pictures."""
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)[:, None]
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    inside = (pixel < pixels) & (channel < outputs)
    line, column = pixel // columns, pixel % columns
    picture, row = line // rows, line % rows
    source = (picture * (rows // side) + row // side) * (columns // side) + column // side
    from_channel = channel
    if PICK:
        place = (row % side) * side + column % side
        from_channel = tl.load(channels + place * outputs + channel, mask=inside, other=0)
    value = tl.load(x + source * inputs + from_channel, mask=inside, other=0.0)
    at = out + pixel * outputs + channel
    if ADD:
        total = value.to(tl.float32) + tl.load(at, mask=inside, other=0.0).to(tl.float32)
        value = total.to(out.dtype.element_ty)
    tl.store(at, value, mask=inside)


def rms_norm_silu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    x = _channels_last(x)
    out, pixels, width = torch.empty_like(x), x.numel() // x.shape[1], x.shape[1]
    _rms_norm_silu[(triton.cdiv(pixels, PIXELS),)](
        x,
        weight,
        weight if bias is None else bias,
        out,
        pixels,
        width,
        PIXELS=PIXELS,
        CHANNELS=CHANNELS,
        BIAS=bias is not None,
        num_warps=4,
    )
    return out


def add_(x: Tensor, bias: Tensor, y: Tensor | None) -> Tensor:
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert y is None or y.shape == x.shape
    _add[(triton.cdiv(x.numel(), BLOCK),)](
        x,
        bias,
        x if y is None else _channels_last(y),
        x.numel(),
        x.shape[1],
        BLOCK=BLOCK,
        ADD=y is not None,
        num_warps=4,
    )
    return x


def enlarge(x: Tensor, side: int, channels: Tensor | None, onto: Tensor | None) -> Tensor:
    x = _channels_last(x)
    batch, inputs, rows, columns = x.shape
    outputs = inputs if channels is None else channels.shape[-1]
    shape = batch, outputs, rows * side, columns * side
    if onto is None:
        onto = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        add = False
    else:
        assert onto.shape == shape
        assert onto.is_contiguous(memory_format=torch.channels_last)
        add = True
    pixels = batch * rows * columns * side**2
    _enlarge[(triton.cdiv(pixels, PIXELS), triton.cdiv(outputs, CHANNELS))](
        x,
        x if channels is None else channels.contiguous(),
        onto,
        pixels,
        rows * side,
        columns * side,
        side,
        inputs,
        outputs,
        PIXELS=PIXELS,
        CHANNELS=CHANNELS,
        PICK=channels is not None,
        ADD=add,
        num_warps=4,
    )
    return onto


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
