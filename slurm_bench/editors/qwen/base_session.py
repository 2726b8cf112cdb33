"""A loaded model at work: its parts on the device, patched for a profile, and the runner that edits with them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from PIL import Image

from slurm_bench import marks
from slurm_bench.editors.base import EditRequest
from slurm_bench.editors.qwen import loading
from slurm_bench.editors.qwen.images import check_shown, target_size
from slurm_bench.editors.qwen.profiles import Profile
from slurm_bench.editors.qwen.schedule import overridden
from slurm_bench.editors.qwen.stock import EditResult
from slurm_bench.editors.qwen.token_types import pass_token_types
from slurm_bench.editors.qwen.waiting import Waiting
from slurm_bench.errors import FinalError, SampleError
from slurm_bench.machine import free_memory

# What stands in a prompt for a source, or a video: more of them than there are sources end in an error.
PLACES = ("<|image_pad|>", "<|video_pad|>")


class BaseSession(ABC):
    """`pipeline` may lack its transformer, which `source` then provides once the prompts are encoded. A family says
    how its sources are prepared and its prompts encoded, and which runners it has."""

    def __init__(
        self, pipeline: Any, profile: Profile, settings: Any, device: str, source: loading.Source | None
    ) -> None:
        self.pipeline = pipeline
        self.profile = profile
        self.settings = settings
        self.device = device
        self.source = source
        self.runner: Any = None
        self._encoded: dict[str, Any] = {}  # by sample id: prompts' embeddings on the host, or the exception met
        self._offloaded_text_encoder: Any = None
        self._edited_before = False
        self._own_scheduler = pipeline.scheduler
        self._set_scheduler()
        if profile.own_loop:
            from slurm_bench.editors.qwen.text import patch_image_processor

            patch_image_processor(pipeline.processor.image_processor, pipeline.vae.device)
        self._patch_text_encoder()
        if pipeline.transformer is not None:
            self._make_runner()

    @property
    def sampling(self) -> Any:
        """With what only a loaded model tells."""
        return self.settings.sampling

    @abstractmethod
    def sources(self, request: EditRequest) -> list[Image.Image]:
        """As the model takes them. Raises SampleError for those that it can't take."""

    @abstractmethod
    def shown_pixels(self) -> float:
        """The area that the text encoder sees a source at."""

    @abstractmethod
    def encode(self, images: list[Image.Image], instruction: str) -> Any:
        """The prompts' embeddings: a dataclass with `seconds` and `to(device)`."""

    @abstractmethod
    def _stock_runner(self) -> Any:
        """Of the pipeline as it is."""

    @abstractmethod
    def _exact_runner(self, waiting: Waiting) -> Any:
        """Of a transformer whose LoRAs and 8 bits are in, and of which this waits on the host."""

    @abstractmethod
    def _lean_text_encoder(self, text_encoder: Any) -> None:
        """Leave out of it what an edit doesn't need, for our own loop."""

    def _patch_text_encoder(self) -> None:
        pass_token_types(self.pipeline.text_encoder)
        if self.profile.own_loop:
            self._lean_text_encoder(self.pipeline.text_encoder)

    def _make_runner(self) -> None:
        """Once the transformer is loaded: applies the LoRAs and the profile to it."""
        loading.apply_loras(self.pipeline, self.settings.loras, fuse=self.profile.own_loop)
        if not self.profile.own_loop:
            self.runner = self._stock_runner()
            return
        from slurm_bench.editors.qwen.narrow import bring, narrow

        transformer, settings, family = self.pipeline.transformer, self.settings, self.settings.family
        from_host = self.source is not None and "transformer" in self.source.on_host
        waiting = settings.waiting(len(transformer.transformer_blocks), from_host)
        if self.profile.fp8 or self.profile.narrow_weights:
            narrow(transformer, family.narrowable, self.profile, settings.keep_bf16, self.device, waiting)
        bring(transformer, self.device, waiting)
        self.runner = self._exact_runner(waiting)

    def change_settings(self, **params: Any) -> None:
        """Other parameters of sampling or scheduler from here on, with the same weights: the bench measures several
        schedules."""
        self.settings = replace(self.settings, **params)
        self._set_scheduler()
        self.runner.sampling = self.sampling

    def _set_scheduler(self) -> None:
        self.pipeline.scheduler = overridden(
            self._own_scheduler, self.settings.scheduler_overrides, self.sampling.steps
        )

    def encode_ahead(self, requests: Iterable[EditRequest]) -> None:
        """With `text_first`: encodes every prompt that isn't yet, then drops the text encoder and loads the
        transformer, which goes first where it is there. A prompt that fails is remembered with its exception, which
        `edit` raises for that sample."""
        if not self.settings.text_first:
            return
        for request in requests:
            if request.id in self._encoded:
                continue
            self._bring_text_encoder()
            try:
                self._encoded[request.id] = self._encode(request)
            except Exception as error:
                self._encoded[request.id] = error.with_traceback(None)  # its frames hold activations
        self._offload_text_encoder()
        self._load_missing_transformer()

    def edit(self, request: EditRequest) -> EditResult:
        (result,) = self.edit_together([request])
        return result

    def together(self, requests: Mapping[int, EditRequest]) -> list[list[int]]:
        """By place, which are edited in one batch: those whose edited images are of one size."""
        batched = getattr(self.settings, "batched", False)
        groups: dict[Any, list[int]] = {}
        for place, request in requests.items():
            try:
                size: Any = target_size(self.sampling.pixels, request.images[-1]) if batched else place
            except SampleError:
                size = place
            groups.setdefault(size, []).append(place)
        return list(groups.values())

    def edit_together(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        """Several only of one size. Raises SampleError for the fault of any."""
        self.encode_ahead(requests)
        wishes = [self._wish(request) for request in requests]
        results: list[EditResult] = [self._finish(result) for result in self.runner.edit(wishes)]
        for request in requests:
            self._encoded.pop(request.id, None)
        if not self._edited_before:
            self._edited_before = True
            marks.passed_in_turn({f"first {part}": seconds for part, seconds in results[0].seconds.items()})
        return results

    def _finish(self, result: EditResult) -> EditResult:
        """As the editor hands it on."""
        return result

    def _wish(self, request: EditRequest) -> Any:
        images = self._given(request)
        wish = partial(self.runner.wish, images, request.instruction, request.seed)
        if not self.settings.text_first:
            return wish(partial(self.encode, images, request.instruction))
        encoded = self._encoded[request.id]
        if isinstance(encoded, Exception):
            import torch

            if isinstance(encoded, torch.OutOfMemoryError):  # another time there may be room
                del self._encoded[request.id]
            raise encoded
        return wish(partial(encoded.to, self.device))

    def _given(self, request: EditRequest) -> list[Image.Image]:
        """The sources. Raises SampleError for what the text encoder can't take."""
        if token := next((token for token in PLACES if token in request.instruction), None):
            raise FinalError(f"its instruction has {token} in it, which to the text encoder is a place for an image")
        images = self.sources(request)
        for image in images:
            check_shown(self.shown_pixels(), image)
        return images

    def _encode(self, request: EditRequest) -> Any:
        start = time.perf_counter()
        embeds = self.encode(self._given(request), request.instruction)
        return replace(embeds.to("cpu"), seconds=time.perf_counter() - start)

    def _bring_text_encoder(self) -> None:
        """Back for a prompt that came late: another task's, or one whose source was made just now. The transformer goes
        where it can be loaded again, as the GPU may not hold both."""
        if self.pipeline.text_encoder is not None:
            return
        if self.source is None:
            self.pipeline.text_encoder = self._offloaded_text_encoder.to(self.device)
            return
        self.runner = self.pipeline.transformer = None
        free_memory()
        self.pipeline.text_encoder = loading.load_component(self.source, "text_encoder")
        self._patch_text_encoder()

    def _offload_text_encoder(self) -> None:
        """Drops it where it can be loaded again, else moves it to the host."""
        if self.pipeline.text_encoder is None:
            return
        if self.source is None:
            self._offloaded_text_encoder = self.pipeline.text_encoder.to("cpu")
        self.pipeline.text_encoder = None
        free_memory()

    def _load_missing_transformer(self) -> None:
        if self.runner is None:
            assert self.source is not None
            self.pipeline.transformer = loading.load_component(self.source, "transformer")
            self._make_runner()
