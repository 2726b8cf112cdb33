"""Any diffusers pipeline that edits an image by an instruction, by its class name and call arguments."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from slurm_bench.checkpoints.folder import ModelFolder, check_pipeline_folder, read_json
from slurm_bench.checkpoints.hub import locate
from slurm_bench.checkpoints.lora import read_lora
from slurm_bench.editors.base import Edited, EditRequest
from slurm_bench.editors.diffusers_pipeline.call import (
    chance,
    images_argument,
    prompt_of,
    resized,
    seeded,
    size_like,
)
from slurm_bench.editors.diffusers_pipeline.checks import check_class, check_loras, check_scheduler, check_settings
from slurm_bench.editors.diffusers_pipeline.guidance import check_guidance, guides
from slurm_bench.editors.diffusers_pipeline.loading import load_pipeline
from slurm_bench.editors.diffusers_pipeline.output import edited_image, edited_images
from slurm_bench.editors.diffusers_pipeline.settings import KEY, LORA_KEY, Parameters, settings
from slurm_bench.editors.diffusers_pipeline.signature import ClassSource
from slurm_bench.editors.diffusers_pipeline.watch import Clock, PromptWatch
from slurm_bench.editors.qwen.images import to_rgb
from slurm_bench.errors import SampleError
from slurm_bench.machine import GIB, check_gpu_memory, choose_device, free_memory, visible_gpu

WORKSPACE = 4 * GIB


@dataclass(frozen=True)
class _Sample:
    """What goes into a pipeline's call."""

    images: list[Image.Image]
    size: dict[str, int]
    prompt: str
    seed: int


@dataclass
class DiffusersEditor(Parameters):
    """For InstructPix2Pix, FLUX Kontext and the like:

        class_path: slurm_bench.editors.diffusers_pipeline.DiffusersEditor
        params:
          pipeline: FluxKontextPipeline
          model_name: owner/name or a folder
          call: {num_inference_steps: 28, guidance_scale: 2.5}

    `call` goes to the pipeline as it is; image, prompt, size and a generator of the sample's seed are added.
    Samples run one by one, so that none can depend on another; with `batched`, those of one size in one call.
    """

    def __post_init__(self) -> None:
        self._chosen = settings(self)
        self._commit: str | None = None
        self._pipeline: Any = None
        self._load_seconds: float | None = None
        self._batched = self._chosen.batched

    def check(self) -> None:
        """The class, its call's arguments, the model's files and, with a GPU in sight, its memory."""
        cls = check_settings(self._chosen)
        folder = self._find()
        check_guidance(cls, self._chosen.call, folder.path if folder else None, f"{KEY}.call")
        if folder is None:
            return
        check_class(self._chosen, folder.class_name, str(folder.path))
        check_scheduler(self._chosen, folder.path)
        check_loras(self._chosen, folder)
        check_gpu_memory(
            self._weights(folder) + WORKSPACE,
            None if self._chosen.device == "cpu" else visible_gpu(),
            f"'{KEY}.model_name': {self.model_name}",
            "take a larger GPU" if self._chosen.offload else f"take a larger GPU, or {KEY}.offload=model",
        )

    def _find(self) -> ModelFolder | None:
        path = locate(self._chosen.model_name, self.revision, f"{KEY}.model_name")
        folder = check_pipeline_folder(path) if path else None
        self._commit = folder.commit if folder else None
        return folder

    def _weights(self, folder: ModelFolder) -> int:
        """Bytes on the GPU at once."""
        sizes = folder.bytes_in(self.dtype).values()
        return {None: sum(sizes), "model": max(sizes, default=0), "group": 0}[self._chosen.offload]

    def load(self) -> None:
        begin = time.perf_counter()
        chosen = self._chosen
        cls, folder = check_settings(chosen), self._find()
        index = folder.path / "model_index.json" if folder else self._download_index()
        check_class(chosen, str(read_json(index).get("_class_name")), chosen.model_name)
        self._device = choose_device(chosen.device, f"{KEY}.device")
        self._pipeline = load_pipeline(chosen, str(folder.path) if folder else chosen.model_name, self._device)
        self._hold(cls)
        self._load_seconds = time.perf_counter() - begin

    def _download_index(self) -> Path:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(self._chosen.model_name, "model_index.json", revision=self.revision))

    def _hold(self, cls: ClassSource) -> None:
        """What is the same for every sample."""
        chosen = self._chosen
        self._call = {name: cls.check_value(name, value, f"{KEY}.call.{name}") for name, value in chosen.call.items()}
        if "output_type" in cls.call:
            self._call["output_type"] = "pil"
        self._guides = guides(cls, chosen.call)
        self._sized = chosen.size == "source"
        self._takes_size = {"width", "height"} <= set(cls.call)
        self._prompts = PromptWatch(self._pipeline, [v for k, v in chosen.call.items() if "prompt" in k])

    def edit(self, batch: Sequence[EditRequest]) -> list[Edited | Exception]:
        results: dict[int, Edited | Exception] = {}
        samples: dict[int, _Sample] = {}
        for place, request in enumerate(batch):
            try:
                samples[place] = self._prepare(request)
            except SampleError as error:
                results[place] = error
        for places in self._together(samples):
            results |= zip(places, self._edit([samples[place] for place in places]), strict=True)
        return [results[place] for place in range(len(batch))]

    def _together(self, samples: dict[int, _Sample]) -> list[list[int]]:
        """Which are edited in one call: with `batched`, those whose sources and outputs are of one size."""
        groups: dict[Any, list[int]] = {}
        for place, sample in samples.items():
            alike = (sample.images[0].size, str(sample.size)) if self._batched else place
            groups.setdefault(alike, []).append(place)
        return list(groups.values())

    def _edit(self, samples: list[_Sample]) -> list[Edited | Exception]:
        """In one call, or one by one where that call fails for a sample's sake, or where what a sample becomes would
        depend on the others."""
        try:
            results: list[Edited | Exception] = list(self._call_once(samples))
        except SampleError as error:
            self._pipeline.maybe_free_model_hooks()  # what an offloaded pipeline does at a call's end
            if len(samples) > 1:
                return [result for sample in samples for result in self._edit([sample])]
            return [error]
        return results

    def _prepare(self, request: EditRequest) -> _Sample:
        chosen, family = self._chosen, self._chosen.family
        if len(request.images) > 1 and not family.several:
            raise SampleError(f"{chosen.pipeline} takes one source image a sample, this one has {len(request.images)}")
        images, size = self._sizes([to_rgb(image) for image in request.images])
        prompt = prompt_of(request.instruction, len(images), chosen.prompt_template, family)
        return _Sample(images, size, prompt, request.seed)

    def _call_once(self, samples: list[_Sample]) -> list[Edited]:
        """One call of the pipeline for all of them, which are alike in size."""
        import torch

        chosen, count, first = self._chosen, len(samples), samples[0]
        given: dict[str, Any] = {
            chosen.image_arg: images_argument(first.images, chosen.family),
            chosen.prompt_arg: first.prompt,
        }
        self._prompts.start(count)
        with (
            seeded(first.seed, self._device) as generator,
            Clock(self._pipeline, self._device.startswith("cuda")) as clock,
        ):
            if count > 1:
                given = {
                    chosen.image_arg: [sample.images[0] for sample in samples],
                    chosen.prompt_arg: [sample.prompt for sample in samples],
                }
                generator = [torch.Generator().manual_seed(sample.seed) for sample in samples]
                before = chance(self._device)
            output = self._pipeline(**self._call, **first.size, **given, generator=generator)
            if count > 1 and chance(self._device) != before:
                self._batched = False
                raise SampleError("the pipeline draws from generators that the samples of a batch would share")
        images = [edited_image(output)] if count == 1 else edited_images(output, count)
        seconds = {part: round(value / count, 4) for part, value in clock.seconds().items()}
        edits = []
        for place, image in enumerate(images):
            info = {"forwards": clock.forwards, "width": image.width, "height": image.height, "seconds": {**seconds}}
            edits.append(Edited(image, {**info, **({"batch": count} if count > 1 else {}), **self._said(place)}))
        if self._load_seconds is not None:
            edits[0].info["seconds"]["load"], self._load_seconds = round(self._load_seconds, 2), None
        return edits

    def _sizes(self, images: list[Image.Image]) -> tuple[list[Image.Image], dict[str, int]]:
        """The sources as the pipeline shall see them, and the arguments of the output's size."""
        if not self._sized:
            return images, {}
        chosen, area = self._chosen, images[0].width * images[0].height
        multiple = chosen.multiple or _multiple(self._pipeline)
        width, height = size_like(*images[0].size, chosen.min_pixels, chosen.max_pixels, multiple)
        if self._takes_size:
            extra = {chosen.family.area: width * height} if chosen.family.area else {}
            return images, {"width": width, "height": height, **extra}
        if chosen.min_pixels <= area <= chosen.max_pixels and chosen.multiple is None:
            return images, {}  # such a pipeline edits at its image's size, and rounds it itself
        return [resized(image, (width, height)) for image in images], {}

    def _said(self, place: int) -> dict[str, Any]:
        """What else the record tells, where it can be known: whether guidance ran, what was cut from the prompt."""
        guided = getattr(self._pipeline, "do_classifier_free_guidance", self._guides)
        transformer = getattr(self._pipeline, "transformer", None)
        if not guided and getattr(getattr(transformer, "config", None), "guidance_embeds", False):
            guided = None  # distilled: the scale is an input of the model, and no second forward shows it
        cut = self._prompts.cut(place)
        return {**({} if guided is None else {"guidance": bool(guided)}), **({"prompt_cut": cut} if cut else {})}

    def provenance(self) -> dict[str, Any]:
        """What the run's images came from; the commit where it is known."""
        said = {"model": self._chosen.model_name, "revision": self._commit or self.revision, "class": self.pipeline}
        return {**said, "lora": [read_lora(lora.path, LORA_KEY).facts(lora.scale) for lora in self._chosen.loras]}

    def close(self) -> None:
        self._pipeline = None
        free_memory()


def _multiple(pipeline: Any) -> int:
    """What the pipeline's own image processor rounds to, so that it doesn't round again."""
    processor = getattr(pipeline, "image_processor", None)
    return int(getattr(getattr(processor, "config", None), "vae_scale_factor", 16))
