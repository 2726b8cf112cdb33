"""What a difference costs and what it is held against, in sentences: the distance of the images, and of two seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from slurm_bench.report.number import number


def cost_in_words(row: Mapping[str, Any]) -> list[str]:
    """What one comparison costs; [] where neither images were looked at nor any run has several seeds."""
    lines = list(_images("images", row["images"])) if "images" in row else []
    if lines and row["images"]["furthest"]:
        lines.append(f"images furthest apart: {', '.join(row['images']['furthest'])}")
    for seeds in row["seeds"]:
        lines.append(
            f"two seeds of {seeds['run']} differ by {number(seeds['difference'])} on average over these samples, by at "
            f"most {number(seeds['largest'])} (pairs of {seeds['seeds']} seeds: {seeds['pairs']}); a difference no "
            "larger may be the seeds' alone"
        )
        if "images" in seeds:
            lines += _images(f"images of two seeds of {seeds['run']}", seeds["images"])
    return lines


def _images(what: str, images: Mapping[str, Any]) -> Iterator[str]:
    line = f"{what}: {images['identical']} of {images['edited_by_both']} identical"
    if images["psnr"]["n"]:
        psnr, ssim = (number(images[name]["mean"]) for name in ("psnr", "ssim"))
        lpips = f", LPIPS {number(images['lpips']['mean'])}" if images["lpips"]["n"] else ""
        line += f"; of the others PSNR {psnr} dB, SSIM {ssim}{lpips} on average"
    yield line
    beside = [
        f"{images[key]} {why}" for key, why in (("other_size", "of another size"), ("lost", "lost")) if images[key]
    ]
    if beside:
        yield f"{what} left out: {', '.join(beside)}"
