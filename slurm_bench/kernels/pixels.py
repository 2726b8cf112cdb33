"""Operations on pictures, as a VAE needs them. All arithmetic is in float32, rounded once at the end.

Shapes: B pictures, C channels, Y rows, X columns. Pictures are [B, C, Y, X] in channels-last memory, in and out.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def rms_norm_silu(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """silu(s / ‖s‖ · √C · weight), where s = x + bias and the norm is a pixel's; `weight` and `bias` are [C]. Pixels of
    zeros stay zeros."""
    if x.is_cuda:
        from slurm_bench.kernels import triton_pixels

        return triton_pixels.rms_norm_silu(x, weight, bias)
    value = x.float() if bias is None else x.float() + _by_channel(bias)
    value = functional.normalize(value, dim=1) * (x.shape[1] ** 0.5 * _by_channel(weight))
    return functional.silu(value).to(x.dtype)


def add_(x: Tensor, bias: Tensor, y: Tensor | None = None) -> Tensor:
    """x + bias + y in place; `bias` is [C], `y` like `x`."""
    if x.is_cuda:
        from slurm_bench.kernels import triton_pixels

        return triton_pixels.add_(x, bias, y)
    value = x.float() + _by_channel(bias)
    return x.copy_(value if y is None else value + y.float())


def enlarge(x: Tensor, side: int, channels: Tensor | None = None, onto: Tensor | None = None) -> Tensor:
    """Each pixel as a square of `side` pixels, [B, C, Y · side, X · side]. With `channels` [side, side, D] each pixel
    of a square takes D channels of its own. With `onto`, of the result's shape, it is added to that in place."""
    if x.is_cuda:
        from slurm_bench.kernels import triton_pixels

        return triton_pixels.enlarge(x, side, channels, onto)
    if channels is None:
        large = functional.interpolate(x, scale_factor=float(side), mode="nearest")
    else:
        batch, _, rows, columns = x.shape
        picked = x.permute(0, 2, 3, 1)[..., channels]  # [B, Y, X, side, side, D]
        large = picked.transpose(2, 3).reshape(batch, rows * side, columns * side, -1).permute(0, 3, 1, 2)
    return large if onto is None else onto.copy_(onto.float() + large.float())


def _by_channel(values: Tensor) -> Tensor:
    return values.float()[:, None, None]
