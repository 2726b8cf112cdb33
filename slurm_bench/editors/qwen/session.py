"""A loaded model at work: its parts on the device, patched for a profile, and the runner that edits with them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from PIL import Image

from slurm_bench import marks
from slurm_bench.editors.base import EditRequest
from slurm_bench.editors.qwen import loading
from slurm_bench.editors.qwen.images import to_rgb
from slurm_bench.editors.qwen.profiles import Profile
from slurm_bench.editors.qwen.schedule import override_scheduler
from slurm_bench.editors.qwen.settings import Settings
from slurm_bench.editors.qwen.stock import EditResult, StockRunner
from slurm_bench.editors.qwen.token_types import pass_token_types
from slurm_bench.errors import SampleError
from slurm_bench.machine import free_memory


class Session:
    """`pipeline` may lack its transformer, which `source` then provides once the prompts are encoded."""

    def __init__(
        self,
        pipeline: Any,
        plus: bool,
        profile: Profile,
        settings: Settings,
        device: str,
        source: loading.Source | None,
    ) -> None:
        self.pipeline = pipeline
        self.plus = plus
        self.profile = profile
        self.settings = settings
        self.device = device
        self.source = source
        self.runner: Any = None
        self._encoded: dict[str, Any] = {}  # by sample id: PromptEmbeds on the host, or the exception that it met
        self._offloaded_text_encoder: Any = None
        self._edited_before = False
        override_scheduler(pipeline, settings.scheduler_overrides, settings.num_inference_steps)
        if profile.own_loop:
            from slurm_bench.editors.qwen.text import patch_image_processor

            patch_image_processor(pipeline.processor.image_processor, pipeline.vae.device)
        self._patch_text_encoder()
        if pipeline.transformer is not None:
            self._make_runner()

    def _patch_text_encoder(self) -> None:
        pass_token_types(self.pipeline.text_encoder)
        if self.profile.own_loop:
            from slurm_bench.editors.qwen.text import patch_text_encoder

            patch_text_encoder(self.pipeline.text_encoder)

    def _make_runner(self) -> None:
        """Once the transformer is loaded: applies the LoRAs and the profile to it."""
        settings, sampling = self.settings, self.settings.sampling
        loading.apply_loras(self.pipeline, settings.loras, fuse=self.profile.own_loop)
        if not self.profile.own_loop:
            self.runner = StockRunner(self.pipeline, sampling)
            return
        from slurm_bench.editors.qwen.cache import StepCache
        from slurm_bench.editors.qwen.denoise import ExactRunner
        from slurm_bench.editors.qwen.transformer import ExactTransformer
        from slurm_bench.editors.qwen.vae import flatten_convolutions

        flatten_convolutions(self.pipeline.vae)
        if self.profile.fp8:
            loading.to_fp8(self.pipeline.transformer, settings.keep_bf16)
        exact = ExactTransformer(self.pipeline.transformer, settings.offload_modulation, uniform=self.profile.cache)
        cache = None
        if self.profile.cache:
            cache = StepCache(exact, sampling.steps, sampling.guidance, settings.cache_options)
        self.runner = ExactRunner(self.pipeline, exact, sampling, self.plus, cache)

    def change_settings(self, **params: Any) -> None:
        """Other parameters of sampling or scheduler from here on, with the same weights: the bench measures several
        schedules."""
        self.settings = replace(self.settings, **params)
        override_scheduler(self.pipeline, self.settings.scheduler_overrides, self.settings.num_inference_steps)
        self.runner.sampling = self.settings.sampling

    def encode_ahead(self, requests: Iterable[EditRequest]) -> None:
        """With `text_first`: encodes every prompt, then drops the text encoder and loads the transformer. A prompt
        that fails is remembered with its exception, which `edit` raises for that sample."""
        if not self.settings.text_first:
            return
        for request in requests:
            try:
                self._encoded[request.id] = self._encode(request)
            except Exception as error:
                self._encoded[request.id] = error.with_traceback(None)  # its frames hold activations
        self._offload_text_encoder()
        self._load_missing_transformer()

    def edit(self, request: EditRequest) -> EditResult:
        result = self._edit(request)
        if not self._edited_before:
            self._edited_before = True
            marks.passed_in_turn({f"first {part}": seconds for part, seconds in result.seconds.items()})
        return result

    def _edit(self, request: EditRequest) -> EditResult:
        images = self._sources(request)
        if not self.settings.text_first:
            return self.runner.edit(images, request.instruction, request.seed)
        encoded = self._encoded.get(request.id) or self._encode_late(request)
        if isinstance(encoded, Exception):
            raise encoded
        self._load_missing_transformer()
        result = self.runner.edit_with_embeds(images, request.seed, encoded.to(self.device))
        self._encoded.pop(request.id, None)
        return result

    def _sources(self, request: EditRequest) -> list[Image.Image]:
        if len(request.images) > 1 and not self.plus:
            raise SampleError(
                f"{len(request.images)} source images, but Qwen-Image-Edit takes one; Edit-Plus takes several"
            )
        return [to_rgb(image) for image in request.images]

    def _encode(self, request: EditRequest) -> Any:
        from slurm_bench.editors.qwen.denoise import encode_prompts

        start, images = time.perf_counter(), self._sources(request)
        embeds = encode_prompts(self.pipeline, images, request.instruction, self.settings.sampling, self.plus)
        return replace(embeds.to("cpu"), seconds=time.perf_counter() - start)

    def _encode_late(self, request: EditRequest) -> Any:
        """For a sample that `encode_ahead` wasn't given: the text encoder is loaded once more."""
        if self.pipeline.text_encoder is None:
            self._reload_text_encoder()
        try:
            return self._encode(request)
        finally:
            self._offload_text_encoder()

    def _reload_text_encoder(self) -> None:
        if self.source is None:
            self.pipeline.text_encoder = self._offloaded_text_encoder.to(self.device)
        else:
            self.pipeline.text_encoder = loading.load_components(self.source, ["text_encoder"])["text_encoder"]
            self._patch_text_encoder()

    def _offload_text_encoder(self) -> None:
        """Drops it where it can be loaded again, else moves it to the host."""
        if self.source is None:
            self._offloaded_text_encoder = self.pipeline.text_encoder.to("cpu")
        self.pipeline.text_encoder = None
        free_memory()

    def _load_missing_transformer(self) -> None:
        if self.runner is None:
            assert self.source is not None
            self.pipeline.transformer = loading.load_components(self.source, ["transformer"])["transformer"]
            self._make_runner()
