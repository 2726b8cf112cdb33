"""Any diffusers pipeline that edits an image by an instruction, by its class name and call arguments."""

from __future__ import annotations

import difflib
import inspect
import time
from collections.abc import Iterable, Sequence
from typing import Any

from slurm_bench.checkpoints.folder import ModelFolder, check_pipeline_folder
from slurm_bench.checkpoints.hub import locate
from slurm_bench.editors.base import Edited, EditRequest
from slurm_bench.editors.qwen.images import to_rgb
from slurm_bench.errors import SampleError, UserError
from slurm_bench.machine import GIB, check_gpu_memory, visible_gpu

KEY = "editor.params"
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
WORKSPACE = 4 * GIB


class DiffusersEditor:
    """For InstructPix2Pix, FLUX Kontext and the like:

        class_path: slurm_bench.editors.diffusers_pipeline.DiffusersEditor
        params:
          pipeline: FluxKontextPipeline
          model_name: owner/name or a folder
          call: {num_inference_steps: 28, guidance_scale: 2.5}

    `call` goes to the pipeline as it is; image, prompt and a generator of the sample's seed are added.
    `image_arg` and `prompt_arg` are the pipeline's names for them. With several source images the pipeline gets
    them as a list. Samples run one by one, so that none can depend on another.
    """

    def __init__(
        self,
        pipeline: str,
        model_name: str,
        revision: str | None = None,
        dtype: str = "bfloat16",
        call: dict[str, Any] | None = None,
        image_arg: str = "image",
        prompt_arg: str = "prompt",
        device: str | None = None,
    ) -> None:
        if dtype not in BYTES:
            raise UserError(f"'{KEY}.dtype': '{dtype}' is none of {', '.join(BYTES)}")
        given = {image_arg, prompt_arg, "generator"} & set(call or {})
        if given:
            raise UserError(f"'{KEY}.call': '{sorted(given)[0]}' comes from the sample; leave it out")
        self.pipeline_name = pipeline
        self.model_name = str(model_name)
        self.revision = revision
        self.dtype = dtype
        self.call = dict(call or {})
        self.image_arg = image_arg
        self.prompt_arg = prompt_arg
        self.device = device
        self._commit: str | None = None
        self._pipeline: Any = None
        self._load_seconds: float | None = None

    def check(self) -> None:
        """The class, its call's arguments, the model's files and, with a GPU in sight, its memory."""
        parameters = inspect.signature(self._class().__call__).parameters
        for name in (self.image_arg, self.prompt_arg, *self.call):
            if name not in parameters:
                raise UserError(
                    f"'{KEY}.call': {self.pipeline_name} has no argument '{name}'; {_nearest(name, parameters)}"
                )
        folder = self._find()
        if folder is not None:
            check_gpu_memory(
                sum(folder.parameters.values()) * BYTES[self.dtype] + WORKSPACE,
                None if self.device == "cpu" else visible_gpu(),
                f"'{KEY}.model_name': {self.model_name}",
                "take a larger GPU",
            )

    def _class(self) -> Any:
        """The pipeline's class. Raises UserError with the nearest name."""
        import diffusers

        names = [name for name in dir(diffusers) if name.endswith("Pipeline")]
        if self.pipeline_name not in names:
            raise UserError(
                f"'{KEY}.pipeline': diffusers {diffusers.__version__} has no '{self.pipeline_name}'; "
                f"{_nearest(self.pipeline_name, names)}"
            )
        return getattr(diffusers, self.pipeline_name)

    def _find(self) -> ModelFolder | None:
        path = locate(self.model_name, self.revision, f"{KEY}.model_name")
        folder = check_pipeline_folder(path) if path else None
        self._commit = folder.commit if folder else None
        return folder

    def load(self) -> None:
        import torch

        begin = time.perf_counter()
        cls, folder = self._class(), self._find()
        self.device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._pipeline = cls.from_pretrained(
            str(folder.path) if folder else self.model_name,
            revision=None if folder else self.revision,
            torch_dtype=getattr(torch, self.dtype),
            use_safetensors=True,
            **({"device_map": self.device} if self.device.startswith("cuda") else {}),
        )
        self._pipeline.set_progress_bar_config(disable=True)
        self._load_seconds = time.perf_counter() - begin

    def edit(self, batch: Sequence[EditRequest]) -> list[Edited | Exception]:
        return [self._edit_one(request) for request in batch]

    def _edit_one(self, request: EditRequest) -> Edited | Exception:
        import torch

        images = [to_rgb(image) for image in request.images]
        names = {
            self.image_arg: images if len(images) > 1 else images[0],
            self.prompt_arg: request.instruction,
        }
        with _Clock(self._pipeline) as clock:
            output = self._pipeline(**self.call, **names, generator=torch.Generator().manual_seed(request.seed))
        seconds = clock.seconds()
        if any(getattr(output, "nsfw_content_detected", None) or ()):
            return SampleError("the pipeline's safety checker withheld the image")
        if self._load_seconds is not None:
            seconds["load"], self._load_seconds = round(self._load_seconds, 2), None
        image = output.images[0]
        guidance = getattr(self._pipeline, "do_classifier_free_guidance", None)
        info = {"forwards": clock.forwards, "width": image.width, "height": image.height, "seconds": seconds}
        return Edited(image, info if guidance is None else {**info, "guidance": bool(guidance)})

    def provenance(self) -> dict[str, Any]:
        """What the run's images came from; the commit where it is known."""
        return {
            "model": self.model_name,
            "revision": self._commit or self.revision,
            "class": self.pipeline_name,
        }

    def close(self) -> None:
        self._pipeline = None


class _Clock:
    """Counts a call's denoiser forwards and splits its seconds at the first and the last of them, without
    making the GPU wait in between. Guidance in one batch is one forward."""

    def __init__(self, pipeline: Any) -> None:
        self.forwards = 0
        self._denoiser = getattr(pipeline, "transformer", None) or pipeline.unet
        self._cuda = pipeline.device.type == "cuda"

    def __enter__(self) -> _Clock:
        self._hooks = (
            self._denoiser.register_forward_pre_hook(self._before),
            self._denoiser.register_forward_hook(self._after),
        )
        self._begin = time.perf_counter()
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    def _before(self, *_: Any) -> None:
        if self.forwards == 0:
            self._first = self._now()
        self.forwards += 1

    def _after(self, *_: Any) -> None:
        self._last = self._now()

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self) -> dict[str, float]:
        """By part: text (all that conditions), denoise, decode."""
        end = self._now()
        if self._cuda:
            end.synchronize()
        whole = time.perf_counter() - self._begin
        decode, denoise = self._between(self._last, end), self._between(self._first, self._last)
        parts = {"text": whole - denoise - decode, "denoise": denoise, "decode": decode}
        return {part: round(value, 4) for part, value in parts.items()}

    def _between(self, start: Any, stop: Any) -> float:
        return start.elapsed_time(stop) / 1000 if self._cuda else stop - start


def _nearest(word: str, names: Iterable[str]) -> str:
    return f"the nearest is '{difflib.get_close_matches(word, list(names), n=1, cutoff=0)[0]}'"
