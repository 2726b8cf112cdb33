"""Operations on rows of tokens. All arithmetic is in float32, rounded once at the end.

Shapes: T tokens, C channels, H heads, K kinds of tokens. Image and text tokens of a diffusion transformer may be of
two kinds (noise and source, say), which stand one after the other: tokens before `boundary` are of the first kind, the
others of the last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from slurm_bench.kernels.fp8 import Fp8Linear, Fp8Rows, OutlierLinear, WidenedLinear, quantize

Rows = Tensor | Fp8Rows


def linear(layer: Any, x: Rows, out: Tensor | None = None) -> Tensor:
    """`layer`, an nn.Linear or one of `fp8`, on `x` [T, C]; the result is written to `out` where that is given."""
    if isinstance(layer, Fp8Linear):
        return layer(x if isinstance(x, Fp8Rows) else quantize(x), out)
    assert isinstance(x, Tensor)
    if isinstance(layer, WidenedLinear):
        return layer(x, out)
    if layer.bias is None:
        return torch.mm(x, layer.weight.t(), out=out)
    return torch.addmm(layer.bias, x, layer.weight.t(), out=out)


def rows_for(layer: Any, x: Tensor) -> Rows:
    """`x` [T, C] as `layer` multiplies it, for several layers of one input: it is brought into 8 bits once."""
    return quantize(x) if isinstance(layer, Fp8Linear) else x


def feed_forward(first: Any, last: Any, x: Rows) -> Tensor:
    """`last(gelu(first(x)))` with the tanh form of GELU. In bf16 on a GPU, GELU is the first product's epilogue."""
    if isinstance(last, OutlierLinear):
        return last(linear(first, x))
    if isinstance(first, nn.Linear | WidenedLinear) and isinstance(x, Tensor) and x.is_cuda and first.bias is not None:
        weight = first.widened(x.dtype) if isinstance(first, WidenedLinear) else first.weight
        return linear(last, torch._addmm_activation(first.bias, x, weight.t(), use_gelu=True))
    hidden = linear(first, x)
    if isinstance(last, Fp8Linear):
        return last(quantize(hidden, gelu=True))
    return linear(last, functional.gelu(hidden, approximate="tanh"))


def swiglu(gate: Any, up: Any, last: Any, x: Rows) -> Tensor:
    """`last(silu(gate(x)) · up(x))` (https://arxiv.org/abs/2002.05202)."""
    hidden = silu_mul(linear(gate, x), linear(up, x))
    return last(hidden) if isinstance(last, OutlierLinear) else linear(last, hidden)


def norm_modulate(
    x: Tensor,
    table: Tensor,
    boundary: int,
    eps: float,
    fp8: bool,
    y: Tensor | None = None,
    gates: Tensor | None = None,
) -> tuple[Tensor, Rows]:
    """(s, LayerNorm(s) · (1 + scale) + shift), where s = x + gate · y, or x without `y`.

    This is adaLN (https://arxiv.org/abs/2212.09748). `x` and `y` are [T, C], `table` is [K, 2, C], a shift and a scale,
    `gates` is [K, C].
    """
    if x.is_cuda:
        from slurm_bench.kernels import triton_ops

        x, *parts = triton_ops.norm_modulate(x, table, boundary, eps, fp8, y, gates)
        return x, Fp8Rows(*parts) if fp8 else parts[0]
    if y is not None and gates is not None:
        x = add_gated(x, y, gates, boundary)
    shift, scale = (_by_token(part, boundary, len(x)).float() for part in table.unbind(1))
    normed = functional.layer_norm(x.float(), x.shape[-1:], eps=eps) * (1 + scale) + shift
    return x, quantize(normed) if fp8 else normed.to(x.dtype)


def add_gated(x: Tensor, y: Tensor, gates: Tensor, boundary: int) -> Tensor:
    """x + gate · y; see `norm_modulate`."""
    if x.is_cuda:
        from slurm_bench.kernels import triton_ops

        return triton_ops.add_gated(x, y, gates, boundary)
    return torch.addcmul(x, _by_token(gates, boundary, len(x)), y)


def rotate_(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    interleaved: bool,
    weights: Tensor | None = None,
    first: int = 0,
    eps: float = 1e-6,
) -> Tensor:
    """RoPE (https://arxiv.org/abs/2104.09864) in place on `x` [T, H, C], whose last two dimensions are contiguous.

    `cos` and `sin` are [T, C / 2]. The two channels of a pair are neighbours where `interleaved`, else i and i + C / 2.
    With `weights` [K, G, C] each head is RMS-normalized first: G groups of neighbouring heads (queries and keys, say)
    have a weight each, and the first `first` tokens are of the first kind. Raises ValueError for a table of another
    length, beyond whose end a GPU would read without a word.
    """
    if not cos.shape == sin.shape == (len(x), x.shape[2] // 2):
        raise ValueError(f"RoPE tables of {tuple(cos.shape)} and {tuple(sin.shape)} for {tuple(x.shape)}")
    if x.is_cuda:
        from slurm_bench.kernels import triton_ops

        triton_ops.rotate_(x, cos, sin, interleaved, weights, first, eps)
        return x
    value = x.float()
    if weights is not None:
        value = value * torch.rsqrt(value.pow(2).mean(-1, keepdim=True) + eps)
        by_head = weights.float().repeat_interleave(x.shape[1] // weights.shape[1], dim=1)
        value = torch.cat([value[:first] * by_head[0], value[first:] * by_head[-1]])
    pairs = value.unflatten(-1, (-1, 2)) if interleaved else value.unflatten(-1, (2, -1)).transpose(-1, -2)
    a, b = pairs.unbind(-1)
    cos, sin = cos.float()[:, None], sin.float()[:, None]
    rotated = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1)
    return x.copy_((rotated if interleaved else rotated.transpose(-1, -2)).flatten(-2))


def rms_norm(x: Tensor, weight: Tensor, eps: float, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(s, RMSNorm(s) · weight), where s = x + y, or x without `y`; all [T, C]."""
    if x.is_cuda:
        from slurm_bench.kernels import triton_ops

        return triton_ops.norm(x, weight, None, eps, y)
    x = x if y is None else x + y
    value = x.float()
    return x, (value * torch.rsqrt(value.pow(2).mean(-1, keepdim=True) + eps) * weight.float()).to(x.dtype)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(s, LayerNorm(s) · weight + bias), where s = x + y, or x without `y`; all [T, C]."""
    if x.is_cuda:
        from slurm_bench.kernels import triton_ops

        return triton_ops.norm(x, weight, bias, eps, y)
    x = x if y is None else x + y
    normed = functional.layer_norm(x.float(), x.shape[-1:], weight.float(), bias.float(), eps)
    return x, normed.to(x.dtype)


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up, the middle of a SwiGLU (https://arxiv.org/abs/2002.05202); both [T, C]."""
    if gate.is_cuda:
        from slurm_bench.kernels import triton_ops

        return triton_ops.silu_mul(gate, up)
    return (functional.silu(gate.float()) * up.float()).to(gate.dtype)


def _by_token(kinds: Tensor, boundary: int, tokens: int) -> Tensor:
    """[K, C] → [T, C], or [1, C] where all tokens are of one kind."""
    if len(kinds) == 1:
        return kinds
    boundary = min(boundary, tokens)
    return torch.cat([kinds[0].expand(boundary, -1), kinds[-1].expand(tokens - boundary, -1)])
