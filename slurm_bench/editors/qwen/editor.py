"""Qwen-Image-Edit and the Edit-Plus family (2509, 2511), in a profile from the reference to the fastest."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterable, Sequence
from typing import Any

from slurm_bench import marks
from slurm_bench.checkpoints.folder import ModelFolder, check_pipeline_folder, read_json, weight_files
from slurm_bench.checkpoints.hub import download_pipeline, locate
from slurm_bench.checkpoints.lora import fit_lora, read_lora
from slurm_bench.checkpoints.stream import quick_to_read
from slurm_bench.editors.base import Edited, EditRequest
from slurm_bench.editors.qwen.loading import COMPONENTS, LORA_KEY, Source, load_pipeline
from slurm_bench.editors.qwen.profiles import check_capability, check_extras, check_fp8, profile_named
from slurm_bench.editors.qwen.schedule import check_scheduler
from slurm_bench.editors.qwen.settings import KEY, Settings
from slurm_bench.errors import SampleError, UserError
from slurm_bench.machine import check_device, check_gpu_memory, choose_device, free_memory, visible_gpu

PIPELINES = {
    "QwenImageEditPipeline": False,
    "QwenImageEditPlusPipeline": True,
}  # by class: takes several images
MODEL_KEY = "editor.params.model_name"


class QwenImageEditor:
    """`model_name` is a folder or a hub id; which pipeline it is, its `model_index.json` tells.

    profile              stock, exact, fp8 or fast; unset, exact on CUDA and stock elsewhere
    max_pixels           the edited image's area. Its aspect is the source's (the last one's); sources are seen
                         at a megapixel whatever this is, as in the pipeline
    true_cfg_scale       guidance runs above 1, which doubles the forwards
    lora                 a safetensors file, {path, scale}, or a list of these
    scheduler            `lightning`, or fields of the scheduler's configuration. A few-step LoRA wants
                         num_inference_steps 4 or 8, true_cfg_scale 1 and scheduler=lightning, in any profile
    text_first           encode all samples' prompts before the transformer is loaded, then drop the text encoder:
                         16.6 GB less at the peak for 20 MB of host memory a sample
    offload_modulation   keep another 13.6 GB of weights on the host; takes seconds for each new picture size
    keep_bf16            in fp8 and fast, linears of the blocks that stay in bfloat16, by the ends of their names
    cache                cache-dit's options for the profile fast

    The samples of a batch are edited one by one: at a megapixel a forward is bound by arithmetic, so that two take
    twice as long as one, and no image can depend on its neighbours.
    """

    __signature__ = inspect.signature(Settings, eval_str=True)

    def __init__(self, *args: Any, **params: Any) -> None:
        self.settings = Settings(*args, **params)
        self.device = self.settings.device
        self._session: Any = None
        self._class_name: str | None = None
        self._commit: str | None = None
        self._load_seconds: float | None = None

    def check(self) -> None:
        """All that can be known without a GPU; with one in sight, its kind and memory too. Raises UserError."""
        settings = self.settings
        on_cpu = settings.device == "cpu"
        profile = profile_named(settings.profile, cuda=not on_cpu)
        check_extras(profile)
        check_device(settings.device, f"{KEY}.device")
        if on_cpu:
            check_fp8(profile, "cpu")
            settings.require_own_loop_for_savings(profile)
        loras = [read_lora(lora.path, LORA_KEY) for lora in settings.loras]
        gpu = None if on_cpu else visible_gpu()
        check_capability(profile, gpu)
        folder = self._find()
        if folder is None:
            return
        for lora in loras:
            fit_lora(lora, folder.tensors["transformer"], LORA_KEY)
        scheduler = read_json(folder.path / "scheduler" / "scheduler_config.json")
        check_scheduler(
            str(scheduler.get("_class_name")), scheduler, settings.scheduler_overrides, settings.num_inference_steps
        )
        mend = "set editor.params.text_first=true, or take a larger GPU"
        check_gpu_memory(
            settings.memory_needed(folder.bytes_in(settings.dtype)),
            gpu,
            f"'{MODEL_KEY}': {settings.model_name} with profile={profile.name}",
            mend if profile.own_loop and not settings.text_first else "take a larger GPU",
        )

    def _find(self) -> ModelFolder | None:
        path = locate(self.settings.model_name, self.settings.revision, MODEL_KEY)
        folder = check_pipeline_folder(path) if path else None
        if folder:
            self._is_plus(folder.class_name)
            for component in ("transformer", "text_encoder", "vae"):
                if component not in folder.tensors:
                    raise UserError(f"{folder.path / 'model_index.json'}: names no {component}; download it again")
            self._class_name, self._commit = folder.class_name, folder.commit
        return folder

    def _is_plus(self, class_name: str) -> bool:
        if class_name not in PIPELINES:
            raise UserError(
                f"'{MODEL_KEY}': {self.settings.model_name} is a {class_name}, not a {' or '.join(PIPELINES)}; other "
                "pipelines run with slurm_bench.editors.diffusers_pipeline.DiffusersEditor"
            )
        return PIPELINES[class_name]

    def load(self, pipeline: Any = None) -> None:
        """`pipeline`: one already built, with random weights say, instead of `model_name`'s."""
        from slurm_bench.editors.qwen.session import Session

        start = time.perf_counter()
        with marks.part("import torch"):
            self.device = str(pipeline.vae.device) if pipeline else choose_device(self.settings.device, f"{KEY}.device")
        profile = profile_named(self.settings.profile, cuda=self.device.startswith("cuda"))
        check_extras(profile)
        if not self.device.startswith("cuda"):
            check_fp8(profile, self.device)
        self.settings.require_own_loop_for_savings(profile)
        source = None
        if pipeline is None:
            source = self._source()
            pipeline = load_pipeline(source, profile, self.settings.text_first)
        self._class_name = type(pipeline).__name__
        plus = self._is_plus(self._class_name)
        with marks.part("apply the profile"):
            check_fp8(profile, self.device)  # its kernels were built while the weights were on their way
            self._session = Session(pipeline, plus, profile, self.settings, self.device, source)
        self._load_seconds = time.perf_counter() - start

    def _source(self) -> Source:
        folder, settings = self._find(), self.settings
        assert self.device is not None
        path = folder.path if folder else download_pipeline(settings.model_name, settings.revision)
        if folder is None:
            check_pipeline_folder(path)  # what was in the cache was checked before the launch
        return Source(path, settings.dtype, self.device)

    def streams(self) -> bool:
        """Whether `load` would find its weights where many readers at once are quick, and so needs no turn."""
        path = locate(self.settings.model_name, self.settings.revision, MODEL_KEY)
        return path is not None and quick_to_read([file for name in COMPONENTS for file in weight_files(path / name)])

    def prepare(self, requests: Iterable[EditRequest]) -> None:
        self._session.encode_ahead(requests)

    def edit(self, batch: Sequence[EditRequest]) -> list[Edited | Exception]:
        return [self._edit_one(request) for request in batch]

    def _edit_one(self, request: EditRequest) -> Edited | Exception:
        try:
            result = self._session.edit(request)
        except SampleError as error:
            return error
        seconds = {part: round(value, 4) for part, value in result.seconds.items()}
        if self._load_seconds is not None:
            seconds["load"], self._load_seconds = round(self._load_seconds, 2), None
        info = {
            "profile": self._session.profile.name,
            "attention": self._session.runner.attention,
            "steps": self.settings.sampling.steps,
            "forwards": result.forwards,
            "guidance": self.settings.sampling.guidance,
            "width": result.size.width,
            "height": result.size.height,
            "seconds": seconds,
        }
        if result.cache_skips is not None:
            info["cache_skips"] = result.cache_skips
        return Edited(result.image, info)

    def provenance(self) -> dict[str, Any]:
        """What the run's images came from; the commit where it is known."""
        return {
            "model": self.settings.model_name,
            "revision": self._commit or self.settings.revision,
            "class": self._class_name,
            "lora": [read_lora(lora.path, LORA_KEY).facts(lora.scale) for lora in self.settings.loras],
        }

    def close(self) -> None:
        self._session = None
        free_memory()
