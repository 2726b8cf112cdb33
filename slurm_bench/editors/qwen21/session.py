"""Qwen-Image-2.1 at work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from PIL import Image

from slurm_bench.editors.base import EditRequest
from slurm_bench.editors.qwen.base_session import BaseSession
from slurm_bench.editors.qwen.images import to_rgb
from slurm_bench.editors.qwen.stock import EditResult, StockRunner
from slurm_bench.editors.qwen.waiting import Waiting
from slurm_bench.editors.qwen21.settings import Sampling


class Session(BaseSession):
    @property
    def sampling(self) -> Sampling:
        return self.settings.sampling_with(self.pipeline.config.get("sample_sigmas"))

    @property
    def flatten(self) -> bool:
        return self.settings.transparency == "flatten"

    def sources(self, request: EditRequest) -> list[Image.Image]:
        """With alpha, as the VAE takes them."""
        images = [to_rgb(image) if self.flatten else image for image in request.images]
        return [image.convert("RGBA") for image in images]

    def shown_pixels(self) -> float:
        return self.sampling.pixels

    def encode(self, images: list[Image.Image], instruction: str) -> Any:
        from slurm_bench.editors.qwen21.denoise import encode_prompts

        return encode_prompts(self.pipeline, images, instruction, self.sampling)

    def _finish(self, result: EditResult) -> EditResult:
        return replace(result, image=to_rgb(result.image)) if self.flatten else result

    def _stock_runner(self) -> StockRunner:
        return Stock21Runner(self.pipeline, self.sampling)

    def _exact_runner(self, waiting: Waiting) -> Any:
        from slurm_bench.editors.qwen.host_blocks import stream_blocks
        from slurm_bench.editors.qwen.vae import see_one_frame
        from slurm_bench.editors.qwen21.denoise import ExactRunner
        from slurm_bench.editors.qwen21.transformer import ExactTransformer

        see_one_frame(self.pipeline.vae)
        exact = ExactTransformer(self.pipeline.transformer)
        stream_blocks(exact.transformer_blocks, waiting, self.device)
        return ExactRunner(self.pipeline, exact, self.sampling)

    def _lean_text_encoder(self, text_encoder: Any) -> None:
        from slurm_bench.editors.qwen.text import leave_out_logits

        leave_out_logits(text_encoder)


class Stock21Runner(StockRunner):
    sampling: Any

    def further_arguments(self) -> dict[str, Any]:
        return {"sigmas": list(self.sampling.sigmas), "output_resolution": self.sampling.resolution}
