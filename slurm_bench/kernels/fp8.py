"""Matrix products in 8 bits (E4M3, https://arxiv.org/abs/2209.05433), with a scale for each token of the input and
for each output row of the weights.

Shapes: T tokens, C input channels, N output channels, K outlier channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from typing_extensions import Self

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
OUTLIERS = 256  # K: input channels that an `OutlierLinear` multiplies in bf16


@dataclass(frozen=True)
class Fp8Rows:
    """Tokens in 8 bits: `values` [T, C], float8, times `scale` [T, 1], float32."""

    values: Tensor
    scale: Tensor

    def __len__(self) -> int:
        return len(self.values)


class EightBitLinear(nn.Module):
    """A linear layer with `weight` [N, C] in 8 bits, times `scale` [1, N]; subclasses say how it multiplies."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    @classmethod
    def of(cls, linear: nn.Linear) -> Self:
        rows = cls._to_8_bits(linear.weight.detach())
        bias = None if linear.bias is None else linear.bias.detach()
        return cls(rows.values, rows.scale.t().contiguous(), bias)

    @staticmethod
    def _to_8_bits(weight: Tensor) -> Fp8Rows:
        return quantize(weight)


class Fp8Linear(EightBitLinear):
    """Multiplies in 8 bits."""

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
    """linear(x), or with `gelu` linear(gelu(x)), in 8 bits, except for the K input channels with the largest values,
    which are multiplied in bf16: 8 bits are off by up to a sixteenth of a value, and a sixteenth of an outlier exceeds
    the sum of the others (https://arxiv.org/abs/2208.07339 found such channels in language models).

    The first tokens after `reset` decide which channels these are.
    """

    def __init__(self, linear: nn.Linear, outliers: int = OUTLIERS, gelu: bool = True) -> None:
        super().__init__()
        self.exact = linear
        self.gelu = gelu
        self.fp8 = Fp8Linear.of(linear)
        self.outliers = min(outliers, linear.in_features // 4)
        self._channels: Tensor | None = None

    def reset(self) -> None:
        self._channels = None

    def keep_exact_on_host(self) -> None:
        """Once a sample its outliers' channels are fetched from there, which side by side are quick to gather."""
        channels = self.exact.weight.detach().t().contiguous().cpu()
        self.exact.weight = nn.Parameter(channels.t(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """`x` is [T, C], with `gelu` before GELU."""
        if self._channels is None:
            # GELU grows with positive values, and stays within 0.17 of zero for negative ones.
            largest = x.amax(dim=0) if self.gelu else x.abs().amax(dim=0)
            order = largest.sort(descending=True, stable=True).indices
            self._channels = order[: self.outliers].sort().values
            self._is_outlier = torch.zeros(x.shape[1], dtype=torch.int8, device=x.device)
            self._is_outlier.index_fill_(0, self._channels, 1)
            by_channel = self.exact.weight.detach().t()
            self._weight = by_channel[self._channels.to(by_channel.device)].contiguous().to(x.device)
        rows, outliers = quantize_without_outliers(x, self._channels, self._is_outlier, self.gelu)
        return self.fp8(rows).addmm_(outliers, self._weight)


class WidenedLinear(EightBitLinear):
    """Widens its weight for each product: half the memory, on a GPU without products in 8 bits too."""

    @staticmethod
    def _to_8_bits(weight: Tensor) -> Fp8Rows:
        return _to_8_bits(weight.float())  # Triton has no such type on older GPUs

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """`x` is [T, C]."""
        weight = self.widened(x.dtype).t()
        return torch.mm(x, weight, out=out) if self.bias is None else torch.addmm(self.bias, x, weight, out=out)

    def widened(self, dtype: torch.dtype) -> Tensor:
        """The weight [N, C]."""
        if self.weight.is_cuda:
            from slurm_bench.kernels import triton_fp8

            return triton_fp8.widen(self.weight, self.scale, dtype)
        return (self.weight.float() * self.scale.t()).to(dtype)


def why_unsupported(device: torch.device) -> str | None:
    """Why the GPU (or torch on it) can't run these products; None if it can. One small product is the proof: what a
    compute capability means differs between makers and releases of torch."""
    x = torch.ones((16, 64), dtype=torch.bfloat16, device=device)
    try:
        layer = Fp8Linear.of(nn.Linear(64, 16, device=device, dtype=torch.bfloat16))
        product = layer(quantize(x))
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return None if product.isfinite().all() else "its products aren't finite"


def quantize(x: Tensor, gelu: bool = False) -> Fp8Rows:
    """`x` [T, C], or with `gelu` its GELU, in 8 bits; a token's scale is its largest magnitude / 448."""
    if x.is_cuda:
        from slurm_bench.kernels import triton_fp8

        return Fp8Rows(*triton_fp8.quantize(x, gelu))
    return _to_8_bits(functional.gelu(x.float(), approximate="tanh") if gelu else x.float())


def quantize_without_outliers(
    x: Tensor, channels: Tensor, is_outlier: Tensor, gelu: bool = True
) -> tuple[Fp8Rows, Tensor]:
    """x, or with `gelu` its GELU, in 8 bits with zeros in the outlier channels, and those channels [T, K] in x's own
    dtype.

    `channels` [K] are their sorted indices; `is_outlier` [C] is 1 for them and 0 for the others.
    """
    if x.is_cuda:
        from slurm_bench.kernels import triton_fp8

        values, scale, outliers = triton_fp8.quantize_without_outliers(x, channels, is_outlier, gelu)
        return Fp8Rows(values, scale), outliers
    value = functional.gelu(x.float(), approximate="tanh") if gelu else x.float()
    return _to_8_bits(value * (is_outlier == 0)), value[:, channels].to(x.dtype)


def _to_8_bits(values: Tensor) -> Fp8Rows:
    scale = values.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / FP8_MAX
    return Fp8Rows((values / scale).to(FP8), scale)


def stack_linears(*layers: Any) -> Any:
    """One layer that computes the outputs of several side by side: all nn.Linear, all Fp8Linear or all WidenedLinear,
    with biases or without. The layers stay usable: their weights become views of its memory."""
    weight = torch.cat([layer.weight.detach() for layer in layers])
    bias = None if layers[0].bias is None else torch.cat([layer.bias.detach() for layer in layers])
    views = weight.split([len(layer.weight) for layer in layers])
    if isinstance(layers[0], EightBitLinear):
        for layer, view in zip(layers, views, strict=True):
            layer.weight = view
        return type(layers[0])(weight, torch.cat([layer.scale for layer in layers], dim=1), bias)
    for layer, view in zip(layers, views, strict=True):
        layer.weight.data = view
    stacked = nn.Linear(weight.shape[1], len(weight), bias=bias is not None, device="meta")
    stacked.weight = nn.Parameter(weight, False)
    if bias is not None:
        stacked.bias = nn.Parameter(bias, False)
    return stacked
