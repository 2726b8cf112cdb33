"""Tiny random pipelines, and the folders that `from_pretrained` loads them from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from slurm_bench.bench.random_pix2pix import random_pix2pix
from slurm_bench.editors.base import EditRequest
from slurm_bench.editors.qwen import QwenImageEditor
from slurm_bench.editors.qwen.random_weights import random_pipeline

SMALL = 96 * 96


def shrink_megapixel(monkeypatch: Any, pixels: int = 128 * 128) -> None:
    """What the pipelines and the editor call a megapixel, made small for both: their sources are seen at it."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as edit
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as plus

    from slurm_bench.editors.qwen import denoise

    dimensions = edit.calculate_dimensions
    monkeypatch.setattr(edit, "calculate_dimensions", lambda area, ratio: dimensions(pixels, ratio))
    monkeypatch.setattr(plus, "VAE_IMAGE_SIZE", pixels)
    monkeypatch.setattr(denoise, "MEGAPIXEL", pixels)


def noise_image(width: int = 60, height: int = 44, mode: str = "RGB", seed: int = 0) -> Image.Image:
    bands = len(mode)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.fromarray(pixels, mode)


def request(
    instruction: str = "make it red",
    seed: int = 7,
    images: tuple[Image.Image, ...] | None = None,
    id: str = "a",
) -> EditRequest:
    return EditRequest(id, instruction, images or (noise_image(),), seed)


def save_tiny_qwen_edit(folder: Path, **options: Any) -> Path:
    """A tiny Qwen-Image-Edit (`plus=True`: Edit-Plus) as a checkpoint of 2 MB."""
    random_pipeline("tiny", **options).save_pretrained(folder)
    return folder


def tiny_editor(pipeline: Any = None, **params: Any) -> QwenImageEditor:
    """An editor over a tiny pipeline, two steps at 96² pixels."""
    defaults = {"dtype": "float32", "num_inference_steps": 2, "max_pixels": SMALL, "profile": "exact"}
    editor = QwenImageEditor("tiny", **{**defaults, **params})
    editor.load(pipeline or random_pipeline("tiny"))
    return editor


def save_tiny_instruct_pix2pix(folder: Path) -> Path:
    random_pix2pix("tiny").save_pretrained(folder)
    return folder
