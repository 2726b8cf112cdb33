"""Without any model: how near the edited image is to a reference, and how much of the source it changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from PIL import Image

from slurm_bench.errors import SampleError, UserError
from slurm_bench.scorers.base import Score, ScoreRequest

if TYPE_CHECKING:
    import numpy as np

PSNR_OF_EQUAL_IMAGES = 100.0

_RADIUS, _SIGMA = 5, 1.5


class ReferenceMetrics:
    """Against the sample's reference, where there is one (the edited image resized to it, bicubic):

    - `similarity`: mean SSIM of the luma, -1 … 1, equal images 1 (Wang et al. 2004: Gaussian window of 11×11
      pixels with sigma 1.5, K1 = 0.01, K2 = 0.03, no padding); what lies below 0 is given as 0
    - `psnr`: peak signal-to-noise ratio in dB over the RGB values, at most 100, which is what equal images get
    - `l1`: mean absolute difference of the RGB values, 0 (equal) … 1

    And always `changed`: the share of the first source's pixels, 0 … 1, of which a channel changed by more than
    `threshold` of 255, of which neither more nor less is better. Transparent images are judged on white.
    """

    scores: ClassVar[Mapping[str, Score]] = {
        "similarity": Score(0, 1),
        "psnr": Score(0, PSNR_OF_EQUAL_IMAGES, high_is="equal images"),
        "l1": Score(0, 1, higher_is_better=False),
        "changed": Score(0, 1, higher_is_better=None),
    }

    def __init__(self, threshold: int = 16) -> None:
        if isinstance(threshold, bool) or not isinstance(threshold, int) or not 0 <= threshold <= 254:
            raise UserError(f"'params.threshold' is {threshold!r}; it is a whole number from 0 to 254")
        self.threshold = threshold

    def score(self, batch: Sequence[ScoreRequest]) -> list[dict[str, float] | Exception]:
        return [self._one(request) for request in batch]

    def _one(self, request: ScoreRequest) -> dict[str, float] | Exception:
        edited = on_white(request.edited)
        scores = {"changed": changed(on_white(request.source), edited, self.threshold)}
        if request.reference is None:
            return scores
        reference = on_white(request.reference)
        if min(reference.size) <= 2 * _RADIUS:
            return SampleError(f"the reference is {reference.width}×{reference.height}; SSIM needs at least 11×11")
        edited = fitted(edited, reference.size)
        error = _pixels(edited) - _pixels(reference)
        return {
            "similarity": max(0.0, ssim(_pixels(edited.convert("L")), _pixels(reference.convert("L")))),
            "psnr": psnr(float((error**2).mean())),
            "l1": float(abs(error).mean()) / 255,
            **scores,
        }


def on_white(image: Image.Image) -> Image.Image:
    """RGB, with what is transparent laid on white."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def changed(source: Image.Image, edited: Image.Image, threshold: int) -> float:
    difference = abs(_pixels(fitted(edited, source.size)) - _pixels(source)).max(axis=2)
    return float((difference > threshold).mean())


def psnr(mean_squared_error: float) -> float:
    if mean_squared_error == 0:
        return PSNR_OF_EQUAL_IMAGES
    return min(PSNR_OF_EQUAL_IMAGES, 10 * math.log10(255**2 / mean_squared_error))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean structural similarity of two luma planes, (height, width), 0 … 255, each side at least 11."""
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a, variance_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))).mean())


def _blur(plane: np.ndarray) -> np.ndarray:
    """The Gaussian window's mean wherever the window lies wholly within the plane."""
    import numpy as np

    weights = np.exp(-(np.arange(-_RADIUS, _RADIUS + 1) ** 2) / (2 * _SIGMA**2))
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(plane, len(weights), axis=axis)
        plane = windows @ (weights / weights.sum())
    return plane


def fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def _pixels(image: Image.Image) -> np.ndarray:
    import numpy as np

    return np.asarray(image, dtype=np.float64)
