"""A loaded model at work: its parts on the device, dressed for a profile, and who runs a sample."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from slurm_bench.editors.base import EditRequest
from slurm_bench.editors.qwen import loading
from slurm_bench.editors.qwen.images import to_rgb
from slurm_bench.editors.qwen.profiles import Profile
from slurm_bench.editors.qwen.settings import Sampling, Settings
from slurm_bench.editors.qwen.stock import Outcome, StockRunner
from slurm_bench.editors.qwen.token_types import pass_token_types
from slurm_bench.errors import SampleError
from slurm_bench.machine import free_memory


@dataclass(frozen=True)
class Encoded:
    """A sample's conditions (see `denoise`) in the host's memory, and how long encoding them took."""

    conditions: Any
    seconds: float


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
        self.attention = "diffusers"
        self.runner: Any = None
        self._conditions: dict[str, Encoded] = {}
        self._parked: Any = None
        loading.override_scheduler(pipeline, settings.scheduler)
        loading.check_schedule(pipeline.scheduler, settings.sampling.steps)
        if profile.own_loop:
            from slurm_bench.editors.qwen.text import make_lean_images
            from slurm_bench.kernels.attention import kernel_at_hand

            make_lean_images(pipeline.processor.image_processor, pipeline.vae.device)
            self.attention = kernel_at_hand(pipeline.vae.device, pipeline.vae.dtype)
        self._dress(pipeline.text_encoder)
        if pipeline.transformer is not None:
            self._start()

    def _dress(self, text_encoder: Any) -> None:
        pass_token_types(text_encoder)
        if self.profile.own_loop:
            from slurm_bench.editors.qwen.text import make_lean

            make_lean(text_encoder)

    def _start(self) -> None:
        """The transformer is there: its LoRAs, its precision, its runner."""
        settings = self.settings
        loading.apply_loras(self.pipeline, settings.loras, fuse=self.profile.own_loop)
        if not self.profile.own_loop:
            self.runner = StockRunner(self.pipeline, settings.sampling)
            return
        from slurm_bench.editors.qwen.cache import StepCache
        from slurm_bench.editors.qwen.denoise import ExactRunner
        from slurm_bench.editors.qwen.transformer import ExactTransformer
        from slurm_bench.editors.qwen.vae import flatten_convolutions

        flatten_convolutions(self.pipeline.vae)
        if self.profile.fp8:
            loading.to_fp8(self.pipeline.transformer, settings.keep_bf16)
        exact = ExactTransformer(self.pipeline.transformer, settings.offload_modulation, uniform=self.profile.cache)
        sampling, cache = settings.sampling, None
        if self.profile.cache:
            cache = StepCache(exact, sampling.steps, sampling.guidance, settings.cache)
        self.runner = ExactRunner(self.pipeline, exact, sampling, self.plus, cache)

    def sample_by(self, sampling: Sampling, scheduler: dict[str, Any] | None = None) -> None:
        """Other steps or guidance from here on, with the same weights; the bench measures several schedules."""
        loading.override_scheduler(self.pipeline, scheduler or {})
        self.settings = replace(self.settings, sampling=sampling)
        self.runner.sampling = sampling

    def prepare(self, requests: Iterable[EditRequest]) -> None:
        """With `text_first`: every prompt encoded, then the text encoder makes room for the transformer."""
        if not self.settings.text_first:
            return
        for request in requests:
            try:
                self._conditions[request.id] = self._encode(request)
            except SampleError:
                continue  # `edit` meets it again and puts it into the sample's record
        self._send_away()

    def edit(self, request: EditRequest) -> Outcome:
        images = self._sources(request)
        if not self.settings.text_first:
            return self.runner.run(images, request.instruction, request.seed)
        encoded = self._conditions.get(request.id) or self._encode_late(request)
        begin = time.perf_counter() - encoded.seconds
        outcome = self.runner.finish(images, request.seed, encoded.conditions.on(self.device), begin)
        self._conditions.pop(request.id, None)
        return outcome

    def _sources(self, request: EditRequest) -> list[Image.Image]:
        if len(request.images) > 1 and not self.plus:
            raise SampleError(
                f"{len(request.images)} source images, but Qwen-Image-Edit takes one; Edit-Plus takes several"
            )
        return [to_rgb(image) for image in request.images]

    def _encode(self, request: EditRequest) -> Encoded:
        from slurm_bench.editors.qwen.denoise import encode_prompts

        begin, sampling = time.perf_counter(), self.settings.sampling
        conditions = encode_prompts(self.pipeline, self._sources(request), request.instruction, sampling, self.plus).on(
            "cpu"
        )
        return Encoded(conditions, time.perf_counter() - begin)

    def _encode_late(self, request: EditRequest) -> Encoded:
        """A sample that `prepare` didn't see: the text encoder comes back for it."""
        if self.pipeline.text_encoder is None:
            self._fetch()
        encoded = self._encode(request)
        self._send_away()
        return encoded

    def _fetch(self) -> None:
        if self.source is None:
            self.pipeline.text_encoder = self._parked.to(self.device)
        else:
            self.pipeline.text_encoder = loading.load_text_encoder(self.source)
            self._dress(self.pipeline.text_encoder)

    def _send_away(self) -> None:
        """Gone, where it can be loaded again; to the host's memory otherwise."""
        if self.source is None:
            self._parked = self.pipeline.text_encoder.to("cpu")
        self.pipeline.text_encoder = None
        free_memory()
        if self.runner is None:
            assert self.source is not None
            self.pipeline.transformer = loading.load_transformer(self.source)
            self._start()
