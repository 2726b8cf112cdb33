"""The reference: the diffusers pipeline's own call, with hooks that count and time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from slurm_bench.editors.qwen.images import Size, target_size
from slurm_bench.errors import SampleError


@dataclass(frozen=True)
class EditResult:
    """`seconds` by part: text (prompts and sources encoded), denoise, decode. `cache_skips` counts the forwards that
    reused the cache, by prompt."""

    image: Image.Image
    size: Size
    forwards: int
    seconds: dict[str, float]
    cache_skips: dict[str, int] | None = None


class StockRunner:
    """Edits with `pipeline(...)`."""

    attention = "diffusers"

    def __init__(self, pipeline: Any, sampling: Any) -> None:
        self.pipeline = pipeline
        self.sampling = sampling

    def wish(
        self, images: list[Image.Image], instruction: str, seed: int, encode: Any
    ) -> tuple[list[Image.Image], str, int]:
        """The pipeline encodes its prompts itself."""
        return images, instruction, seed

    def edit(self, wishes: Sequence[tuple[list[Image.Image], str, int]]) -> list[EditResult]:
        """Of one wish."""
        import torch

        ((images, instruction, seed),) = wishes

        size = target_size(self.sampling.pixels, images[-1])
        starts: list[float] = []
        ends: list[float] = []

        def before_forward(module: Any, args: Any) -> None:
            if not starts:
                synchronize(self.pipeline.device)
            starts.append(time.perf_counter())

        def after_step(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if step == self.sampling.steps - 1:
                require_finite(tensors["latents"])
                synchronize(pipeline.device)
                ends.append(time.perf_counter())
            return tensors

        start = time.perf_counter()
        hook = self.pipeline.transformer.register_forward_pre_hook(before_forward)
        try:
            edited = self.pipeline(
                image=images if len(images) > 1 else images[0],
                prompt=instruction,
                negative_prompt=self.sampling.negative_prompt,
                true_cfg_scale=self.sampling.scale,
                num_inference_steps=self.sampling.steps,
                width=size.width,
                height=size.height,
                generator=torch.Generator().manual_seed(seed),
                callback_on_step_end=after_step,
                **self.further_arguments(),
            ).images[0]
        finally:
            hook.remove()
        seconds = {
            "text": starts[0] - start,
            "denoise": ends[0] - starts[0],
            "decode": time.perf_counter() - ends[0],
        }
        return [EditResult(edited, Size(*edited.size), len(starts), seconds)]

    def further_arguments(self) -> dict[str, Any]:
        """Of the call, those that not every family's pipeline has."""
        return {}


def synchronize(device: Any) -> None:
    """Wait for the GPU, so that the time of each part is its own. Three waits an image cost nothing."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def to_picture(pipeline: Any, decoded: Any) -> Image.Image:
    """Of the VAE's output [1, bands, Y, X], rounded as the pipeline does it. Raises SampleError for NaN or infinity,
    which would be black and white."""
    require_finite(decoded)
    shades = pipeline.image_processor.postprocess(decoded, output_type="pt")[0].float()
    return Image.fromarray((shades * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def require_finite(latents: Any) -> None:
    """Raises SampleError for NaN or infinity, which would be made into an image."""
    if not latents.isfinite().all():
        raise SampleError("the model gave infinite or undefined values")
