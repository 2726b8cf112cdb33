"""The reference: the diffusers pipeline's own call, measured from outside."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from PIL import Image

from slurm_bench.editors.qwen.images import Size, canvas
from slurm_bench.editors.qwen.settings import Sampling
from slurm_bench.errors import SampleError


@dataclass(frozen=True)
class Outcome:
    """`seconds` by part: text (all that conditions: prompts and sources encoded), denoise, decode."""

    image: Image.Image
    size: Size
    forwards: int
    seconds: dict[str, float]
    cache: dict[str, int] | None = None


class StockRunner:
    """Runs `pipeline(...)`; counts and times by hooks, which change no number."""

    def __init__(self, pipeline: Any, sampling: Sampling) -> None:
        self.pipeline = pipeline
        self.sampling = sampling

    def run(self, images: list[Image.Image], prompt: str, seed: int) -> Outcome:
        import torch

        size = canvas(self.sampling.pixels, images[-1])
        starts: list[float] = []
        ends: list[float] = []

        def started(module: Any, args: Any) -> None:
            if not starts:
                synchronize(self.pipeline.device)
            starts.append(time.perf_counter())

        def stepped(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if step == self.sampling.steps - 1:
                require_finite(tensors["latents"])
                synchronize(pipeline.device)
                ends.append(time.perf_counter())
            return tensors

        begin = time.perf_counter()
        hook = self.pipeline.transformer.register_forward_pre_hook(started)
        try:
            edited = self.pipeline(
                image=images if len(images) > 1 else images[0],
                prompt=prompt,
                negative_prompt=self.sampling.negative_prompt,
                true_cfg_scale=self.sampling.scale,
                num_inference_steps=self.sampling.steps,
                width=size.width,
                height=size.height,
                generator=torch.Generator().manual_seed(seed),
                callback_on_step_end=stepped,
            ).images[0]
        finally:
            hook.remove()
        seconds = {
            "text": starts[0] - begin,
            "denoise": ends[0] - starts[0],
            "decode": time.perf_counter() - ends[0],
        }
        return Outcome(edited, Size(*edited.size), len(starts), seconds)


def synchronize(device: Any) -> None:
    """Wait for the GPU, so that a part's seconds are its own: three times an image, which costs nothing."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def require_finite(latents: Any) -> None:
    """Raises SampleError: what isn't a number would become an image without a word."""
    if not latents.isfinite().all():
        raise SampleError("the model gave infinite or undefined values")
