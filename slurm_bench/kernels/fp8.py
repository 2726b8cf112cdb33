"""Matrix products in 8 bits, with a scale for each token of what comes in and for each output row of the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
OUTLIERS = 256  # input channels that an `OutlierLinear` keeps in bf16


@dataclass(frozen=True)
class Fp8Rows:
    """Tokens in 8 bits: `values` [tokens, channels] times `scale` [tokens, 1], float32."""

    values: Tensor
    scale: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, some: slice) -> Fp8Rows:
        return Fp8Rows(self.values[some], self.scale[some])


class Fp8Linear(nn.Module):
    """`weight` [out, in] in 8 bits, times `scale` [1, out]; what comes in has a scale for each token."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    @classmethod
    def of(cls, linear: nn.Linear) -> Fp8Linear:
        rows = quantize(linear.weight.detach())
        bias = None if linear.bias is None else linear.bias.detach()
        return cls(rows.values, rows.scale.t().contiguous(), bias)

    def forward(self, rows: Fp8Rows, out: Tensor | None = None) -> Tensor:
        if not rows.values.is_cuda:
            product = (rows.values.float() * rows.scale) @ (self.weight.float().t() * self.scale)
            product = product if self.bias is None else product + self.bias
            return product if out is None else out.copy_(product)
        dtype = torch.bfloat16
        out = rows.values.new_empty((len(rows.values), len(self.weight)), dtype=dtype) if out is None else out
        return torch._scaled_mm(
            rows.values,
            self.weight.t(),
            scale_a=rows.scale,
            scale_b=self.scale,
            bias=self.bias,
            out_dtype=dtype,
            use_fast_accum=True,
            out=out,
        )


class OutlierLinear(nn.Module):
    """An 8-bit linear behind a GELU, but for the input channels with the largest values: these are multiplied in the
    weights' own precision. In 8 bits an outlier is off by up to a sixteenth of itself, which drowns the others' sum.

    Which channels these are is seen in the first tokens that come after `forget`.
    """

    def __init__(self, linear: nn.Linear, outliers: int = OUTLIERS) -> None:
        super().__init__()
        self.exact = linear
        self.fp8 = Fp8Linear.of(linear)
        self.outliers = min(outliers, linear.in_features // 4)
        self._channels: Tensor | None = None

    def forget(self) -> None:
        self._channels = None

    def forward(self, x: Tensor) -> Tensor:
        """Of gelu(x), `x` being [tokens, channels]."""
        if self._channels is None:
            # GELU grows with what is above 0, and is at most 0.17 from it below.
            order = x.amax(dim=0).sort(descending=True, stable=True).indices
            self._channels = order[: self.outliers].sort().values
            self._apart = torch.zeros(x.shape[1], dtype=torch.int8, device=x.device)
            self._apart[self._channels] = 1
            self._weight = self.exact.weight.detach()[:, self._channels].t().contiguous()
        rows, outliers = quantize_apart(x, self._channels, self._apart)
        return self.fp8(rows).addmm_(outliers, self._weight)


def quantize(x: Tensor, gelu: bool = False) -> Fp8Rows:
    """To 8 bits, each row by its largest magnitude; `gelu` is applied before."""
    if x.is_cuda:
        from slurm_bench.kernels import triton_fp8

        return Fp8Rows(*triton_fp8.quantize(x, gelu))
    return _to_8_bits(functional.gelu(x.float(), approximate="tanh") if gelu else x.float())


def quantize_apart(x: Tensor, channels: Tensor, apart: Tensor) -> tuple[Fp8Rows, Tensor]:
    """gelu(x) without some channels in 8 bits, and these [tokens, channels] in x's own type. `channels` are their
    places in order, `apart` is 1 there and else 0."""
    if x.is_cuda:
        from slurm_bench.kernels import triton_fp8

        values, scale, outliers = triton_fp8.quantize_apart(x, channels, apart)
        return Fp8Rows(values, scale), outliers
    value = functional.gelu(x.float(), approximate="tanh")
    return _to_8_bits(value * (apart == 0)), value[:, channels].to(x.dtype)


def _to_8_bits(values: Tensor) -> Fp8Rows:
    scale = values.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / FP8_MAX
    return Fp8Rows((values / scale).to(FP8), scale)


def stacked(*layers: Any) -> Any:
    """One layer with the outputs of several, all nn.Linear or all Fp8Linear with a bias, side by side. They go on to
    work, as views of its memory."""
    weight, bias = (torch.cat([getattr(layer, name).detach() for layer in layers]) for name in ("weight", "bias"))
    rows = [len(layer.weight) for layer in layers]
    if isinstance(layers[0], Fp8Linear):
        joined: Any = Fp8Linear(weight, torch.cat([layer.scale for layer in layers], dim=1), bias)
        for layer, part in zip(layers, weight.split(rows), strict=True):
            layer.weight = part
        return joined
    joined = nn.Linear(weight.shape[1], len(weight), device="meta")
    joined.weight, joined.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
    for layer, part in zip(layers, weight.split(rows), strict=True):
        layer.weight.data = part
    return joined
