"""Qwen-Image-Edit and Edit-Plus at work."""

from __future__ import annotations

from typing import Any

from PIL import Image

from slurm_bench.editors.base import EditRequest
from slurm_bench.editors.qwen.base_session import BaseSession
from slurm_bench.editors.qwen.images import to_rgb
from slurm_bench.editors.qwen.stock import StockRunner
from slurm_bench.editors.qwen.waiting import Waiting
from slurm_bench.errors import FinalError


class Session(BaseSession):
    @property
    def plus(self) -> bool:
        """Edit-Plus, which takes several images and shows them smaller to its text encoder."""
        return "Plus" in type(self.pipeline).__name__

    def sources(self, request: EditRequest) -> list[Image.Image]:
        if len(request.images) > 1 and not self.plus:
            raise FinalError(
                f"{len(request.images)} source images, but Qwen-Image-Edit takes one; Edit-Plus takes several"
            )
        return [to_rgb(image) for image in request.images]

    def shown_pixels(self) -> float:
        from slurm_bench.editors.qwen.denoise import shown_pixels

        return shown_pixels(self.plus)

    def encode(self, images: list[Image.Image], instruction: str) -> Any:
        from slurm_bench.editors.qwen.denoise import encode_prompts

        return encode_prompts(self.pipeline, images, instruction, self.sampling, self.plus)

    def _stock_runner(self) -> StockRunner:
        return StockRunner(self.pipeline, self.sampling)

    def _exact_runner(self, waiting: Waiting) -> Any:
        from slurm_bench.editors.qwen.cache import StepCache
        from slurm_bench.editors.qwen.denoise import ExactRunner
        from slurm_bench.editors.qwen.host_blocks import stream_blocks
        from slurm_bench.editors.qwen.transformer import ExactTransformer
        from slurm_bench.editors.qwen.vae import see_one_frame

        settings, sampling = self.settings, self.sampling
        see_one_frame(self.pipeline.vae)
        exact = ExactTransformer(self.pipeline.transformer, settings.offload_modulation, uniform=self.profile.cache)
        stream_blocks(exact.transformer_blocks, waiting, self.device)
        cache = None
        if self.profile.cache:
            cache = StepCache(exact, sampling.steps, sampling.guidance, settings.cache_options)
        return ExactRunner(self.pipeline, exact, sampling, self.plus, cache)

    def _lean_text_encoder(self, text_encoder: Any) -> None:
        from slurm_bench.editors.qwen.text import attend_in_windows, leave_out_logits

        leave_out_logits(text_encoder)
        attend_in_windows(text_encoder)
