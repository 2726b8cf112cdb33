"""How far two runs' images of the same samples are from each other: what a faster profile costs, or another seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from slurm_bench.report.statistics import mean_of

if TYPE_CHECKING:
    from slurm_bench.run.layout import RunDir
    from slurm_bench.run.records import Record

SMALLEST = 11  # pixels a side, of SSIM's window
FURTHEST = 5
NET = "alex"  # as the authors of LPIPS compare images by


def picture_cost(first: RunDir, other: RunDir, edits: Sequence[tuple[Record | None, Record | None]]) -> dict[str, Any]:
    """`edits` has both records of each sample, None where it has no image. PSNR in dB of the RGB values and SSIM of the
    luma, and LPIPS (AlexNet) where its weights are here, over the images that differ: equal ones have no PSNR, and are
    counted apart. Transparent images are laid on white. `no_lpips` says why there is none."""
    from slurm_bench.data.images import open_image
    from slurm_bench.run.images import read_recorded
    from slurm_bench.scorers.metrics import lpips
    from slurm_bench.scorers.metrics.reference import on_white

    no_lpips = lpips.missing(NET)
    distance = None if no_lpips else lpips.between(NET)
    identical = other_size = lost = 0
    psnrs: dict[str, float] = {}
    ssims: list[float] = []
    distances: list[float] = []
    both = [(a, b) for a, b in edits if a is not None and b is not None]
    for one, two in both:
        if one["sha256"] == two["sha256"]:
            identical += 1
            continue
        files = [read_recorded(folder, record) for folder, record in ((first, one), (other, two))]
        if any(problem for _, problem in files):
            lost += 1
            continue
        a, b = (on_white(open_image(data)) for data, _ in files)
        if a.size != b.size:
            other_size += 1
        elif (found := _psnr(a, b)) is None:
            identical += 1
        else:
            psnrs[one["id"]] = found
            if min(a.size) >= SMALLEST:
                ssims.append(_ssim(a, b))
            if distance and min(a.size) >= lpips.SMALLEST:
                distances.append(distance(a, b))
    return {
        "edited_by_both": len(both),
        "identical": identical,
        "other_size": other_size,
        "lost": lost,
        "psnr": asdict(mean_of(list(psnrs.values()), 0)),
        "ssim": asdict(mean_of(ssims, -1, 1)),
        "lpips": asdict(mean_of(distances, 0)),
        "no_lpips": no_lpips,
        "furthest": sorted(psnrs, key=psnrs.__getitem__)[:FURTHEST],
    }


def _psnr(a: Any, b: Any) -> float | None:
    """None for equal images."""
    from slurm_bench.scorers.metrics.reference import psnr

    error = float(((_pixels(a) - _pixels(b)) ** 2).mean())
    return psnr(error) if error else None


def _ssim(a: Any, b: Any) -> float:
    from slurm_bench.scorers.metrics.reference import ssim

    return ssim(_pixels(a.convert("L")), _pixels(b.convert("L")))


def _pixels(image: Any) -> Any:
    import numpy as np

    return np.asarray(image, dtype=np.float64)
