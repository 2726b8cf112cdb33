"""PSNR, SSIM and LPIPS of two images of one size: over the whole, and inside and outside a mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slurm_bench.errors import SampleError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

WINDOW = 11  # pixels a side, of SSIM
SIDES = ("inside", "outside")
_PLAIN = 0.95  # the share of a mask's pixels that must be nearly black or white: JPEG blurs the edges


@dataclass(frozen=True)
class Pair:
    """Both RGB and of one size. `mask` is True where an edit was wanted, (height, width)."""

    edited: Image.Image
    target: Image.Image
    mask: np.ndarray | None = None


def mask_of(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Where an edit was wanted, (height, width) of `size`: what is transparent, or in a picture of which nothing is,
    whether it has an alpha channel or not, what is white. Raises SampleError where it is neither."""
    import numpy as np
    from PIL import Image

    fitted = image if image.size == size else image.resize(size, Image.Resampling.NEAREST)
    if fitted.mode == "RGBA" and (clear := np.asarray(fitted)[..., 3] < 128).any():
        return clear
    grey = np.asarray(fitted.convert("L"))
    if ((grey < 32) | (grey > 223)).mean() < _PLAIN:
        raise SampleError("the mask is neither transparent where an edit is wanted, nor black and white")
    return grey >= 128


def measured(pairs: Sequence[Pair], metrics: Sequence[str], lpips: Any, device: str) -> list[dict[str, float]]:
    """The metrics of pairs of one size. `psnr` is in dB of the RGB values, and absent where the pixels are equal
    (`identical` is 1 then): it would be infinite. `ssim` is of each of R, G and B with a Gaussian window of 11×11
    pixels (sigma 1.5, the edges reflected), averaged over the channels. Of a side of the mask, PSNR and SSIM are over
    its pixels, and LPIPS is of the edited image with the target's pixels on the other side."""
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    edited, target = (tensor_of([getattr(pair, side) for pair in pairs], device) for side in ("edited", "target"))
    found: list[dict[str, float]] = [{} for _ in pairs]
    with torch.inference_mode():
        maps = None
        if "ssim" in metrics:
            _, maps = structural_similarity_index_measure(
                edited, target, data_range=1.0, reduction="none", return_full_image=True
            )
        for n, pair in enumerate(pairs):
            for name, region in _regions(pair, device):
                a, b = edited[n][:, region], target[n][:, region]
                if "psnr" in metrics:
                    found[n] |= _psnr(a, b, name)
                if maps is not None:
                    found[n][f"ssim{name}"] = float(maps[n][:, region].mean().clamp(-1, 1))
        if "lpips" in metrics:
            for name in ("", *(f"_{side}" for side in SIDES)):
                regions = {n: dict(_regions(pair, device)).get(name) for n, pair in enumerate(pairs)}
                there = {n: region for n, region in regions.items() if region is not None}
                if there:
                    seen = torch.stack([torch.where(region, edited[n], target[n]) for n, region in there.items()])
                    distances = lpips(seen, target[[*there]], normalize=True).flatten()
                    for n, distance in zip(there, distances.tolist(), strict=True):
                        found[n][f"lpips{name}"] = distance
    return found


def _psnr(a: torch.Tensor, b: torch.Tensor, name: str) -> dict[str, float]:
    import torch
    from torchmetrics.functional.image import peak_signal_noise_ratio

    if torch.equal(a, b):
        return {f"identical{name}": 1.0}
    return {f"identical{name}": 0.0, f"psnr{name}": float(peak_signal_noise_ratio(a, b, data_range=1.0))}


def _regions(pair: Pair, device: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The region of each ending of a score's name ("", "_inside", "_outside"). A side without a pixel has none."""
    import torch

    yield "", torch.ones((pair.edited.height, pair.edited.width), dtype=torch.bool, device=device)
    if pair.mask is not None:
        mask = torch.from_numpy(pair.mask.copy()).to(device)
        for side, region in zip(SIDES, (mask, ~mask), strict=True):
            if bool(region.any()):
                yield f"_{side}", region


def tensor_of(images: Sequence[Image.Image], device: str) -> torch.Tensor:
    """(images, 3, height, width), 0 to 1."""
    import numpy as np
    import torch

    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).to(device)
    return pixels.permute(0, 3, 1, 2).float() / 255
