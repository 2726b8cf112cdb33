"""What editors of every family have in common: the checks before a launch, loading, a record of each edit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from importlib.metadata import version
from typing import Any, ClassVar

from slurm_bench import marks
from slurm_bench.checkpoints.folder import ModelFolder, check_pipeline_folder, read_json, weight_files
from slurm_bench.checkpoints.hub import download_pipeline, locate
from slurm_bench.checkpoints.lora import fit_lora, read_lora
from slurm_bench.checkpoints.stream import quick_to_read
from slurm_bench.editors.base import Edited, EditRequest
from slurm_bench.editors.qwen.base_session import BaseSession
from slurm_bench.editors.qwen.base_settings import KEY
from slurm_bench.editors.qwen.family import EDITORS
from slurm_bench.editors.qwen.fit import Fit, choose_fit
from slurm_bench.editors.qwen.loading import LORA_KEY, Source, load_pipeline
from slurm_bench.editors.qwen.profiles import Profile, check_capability, check_extras, check_fp8
from slurm_bench.editors.qwen.schedule import check_scheduler
from slurm_bench.editors.qwen.stock import EditResult
from slurm_bench.errors import SampleError, UserError
from slurm_bench.logs import log
from slurm_bench.machine import (
    GIB,
    Gpu,
    check_device,
    choose_device,
    free_memory,
    gpu_at,
    lasting,
    visible_gpu,
)

MODEL_KEY = "editor.params.model_name"


class BaseEditor:
    """The samples of a batch are edited one by one: at a megapixel a forward is bound by arithmetic, so that two take
    twice as long as one, and no image can depend on its neighbours. A family that is meant for small sizes too may have
    a parameter `batched`."""

    settings_class: ClassVar[type[Any]]
    session_class: ClassVar[type[BaseSession]]

    def __init__(self, *args: Any, **params: Any) -> None:
        self.settings = self.settings_class(*args, **params)
        self.family = self.settings.family
        self.device = self.settings.device
        self._session: Any = None
        self._class_name: str | None = None
        self._commit: str | None = None
        self._load_seconds: float | None = None

    def check(self) -> None:
        """All that can be known without a GPU; with one in sight, its kind and memory too. Raises UserError."""
        check_diffusers(self.family.diffusers)
        settings = self.settings
        on_cpu = settings.device == "cpu"
        profile = settings.profile_on(cuda=not on_cpu)
        check_extras(profile)
        check_device(settings.device, f"{KEY}.device")
        if on_cpu:
            check_fp8(profile, "cpu")
            settings.check_profile(profile)
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
            str(scheduler.get("_class_name")), scheduler, settings.scheduler_overrides, self._steps(folder, profile)
        )
        fit = choose_fit(folder, settings, profile, gpu)
        if fit.settings.savings != settings.savings:
            assert gpu is not None
            spared, needed = " and ".join(fit.settings.savings), fit.needed / GIB
            log.info("on %s, profile=%s runs with %s, and needs %.0f GiB", gpu.name, profile.name, spared, needed)

    def _steps(self, folder: ModelFolder, profile: Profile) -> int:
        """How many an edit has. Raises UserError for a model in this folder that doesn't go with the parameters."""
        return self.settings.num_inference_steps

    def planned_steps(self) -> int | None:
        """How many an edit will have, for a forecast. None where only the model says, and it isn't here."""
        return self.settings.num_inference_steps

    def _find(self) -> ModelFolder | None:
        path = locate(self.settings.model_name, self.settings.revision, MODEL_KEY)
        folder = check_pipeline_folder(path) if path else None
        if folder:
            self._check_class(folder.class_name)
            for component in self.family.classes:
                if component not in folder.tensors:
                    raise UserError(f"{folder.path / 'model_index.json'}: names no {component}; download it again")
            self._class_name, self._commit = folder.class_name, folder.commit
        return folder

    def _check_class(self, class_name: str) -> None:
        if class_name not in self.family.pipelines:
            raise UserError(
                f"'{MODEL_KEY}': {self.settings.model_name} is a {class_name}, not a "
                f"{' or '.join(self.family.pipelines)}; set editor.class_path="
                f"{EDITORS.get(class_name, 'slurm_bench.editors.diffusers_pipeline.DiffusersEditor')}"
            )

    def load(self, pipeline: Any = None, gpu: Gpu | None = None) -> None:
        """`pipeline`: one already built, with random weights say, instead of `model_name`'s. `gpu`: what to fit into,
        instead of all of the device."""
        check_diffusers(self.family.diffusers)
        start = time.perf_counter()
        with marks.part("import torch"), lasting():
            self.device = str(pipeline.vae.device) if pipeline else choose_device(self.settings.device, f"{KEY}.device")
        profile = self.settings.profile_on(cuda=self.device.startswith("cuda"))
        check_extras(profile)
        if not self.device.startswith("cuda"):
            check_fp8(profile, self.device)
        self.settings.check_profile(profile)
        settings, source = self.settings, None
        if pipeline is None:
            folder = self._folder()
            fit = choose_fit(folder, settings, profile, gpu or gpu_at(self.device))
            settings, on_host = fit.settings, ("transformer",) if fit.from_host else ()
            source = Source(self.family, folder.path, settings.dtype, self.device, on_host)
            pipeline = load_pipeline(source, profile, settings.text_first)
        self._class_name = type(pipeline).__name__
        self._check_class(self._class_name)
        with marks.part("apply the profile"):
            check_fp8(profile, self.device)  # its kernels were built while the weights were on their way
            self._session = self.session_class(pipeline, profile, settings, self.device, source)
        self._load_seconds = time.perf_counter() - start

    def _folder(self) -> ModelFolder:
        """What was in the cache was checked before the launch; what is downloaded now, here."""
        settings = self.settings
        return self._find() or check_pipeline_folder(download_pipeline(settings.model_name, settings.revision))

    def streams(self) -> bool:
        """Whether `load` would find its weights where many readers at once are quick, and so needs no turn. A
        transformer that is brought layer by layer passes through the host's memory as a whole."""
        path, fit = locate(self.settings.model_name, self.settings.revision, MODEL_KEY), self._foreseen
        if path is None or fit is None or fit.from_host:
            return False
        return quick_to_read([file for name in self.family.classes for file in weight_files(path / name)])

    @property
    def takes_over(self) -> bool:
        """With `text_first`, asked for or picked, a prompt that wasn't encoded ahead costs a load of the text encoder
        and of the transformer."""
        fit = self._foreseen
        return not (fit.settings if fit else self.settings).text_first

    @cached_property
    def _foreseen(self) -> Fit | None:
        """What `load` is going to pick. None of a model that isn't there yet, or is refused: a task that is left
        nothing never loads it."""
        with suppress(UserError):
            if folder := self._find():
                gpu = None if self.settings.device == "cpu" else visible_gpu()
                return choose_fit(folder, self.settings, self.settings.profile_on(cuda=gpu is not None), gpu)
        return None

    def prepare(self, requests: Iterable[EditRequest]) -> None:
        self._session.encode_ahead(requests)

    def edit(self, batch: Sequence[EditRequest]) -> list[Edited | Exception]:
        results: dict[int, Edited | Exception] = {}
        self._session.encode_ahead(batch)
        for places in self._session.together(dict(enumerate(batch))):
            results |= zip(places, self._edit([batch[place] for place in places]), strict=True)
        return [results[place] for place in range(len(batch))]

    def _edit(self, requests: Sequence[EditRequest]) -> list[Edited | Exception]:
        """In one batch, or one by one where that fails for a sample's sake."""
        try:
            results = self._session.edit_together(requests)
        except SampleError as error:
            return [error] if len(requests) == 1 else [each for request in requests for each in self._edit([request])]
        return [self._edited(result, len(results)) for result in results]

    def _edited(self, result: EditResult, count: int) -> Edited:
        seconds = {part: round(value, 4) for part, value in result.seconds.items()}
        if self._load_seconds is not None:
            seconds["load"], self._load_seconds = round(self._load_seconds, 2), None
        info = {
            "profile": self._session.profile.name,
            "attention": self._session.runner.attention,
            "steps": self._session.sampling.steps,
            "forwards": result.forwards,
            "guidance": self._session.sampling.guidance,
            "width": result.size.width,
            "height": result.size.height,
            "seconds": seconds,
        }
        if count > 1:
            info["batch"] = count
        if savings := self._session.settings.savings:
            info["savings"] = list(savings)
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


def check_diffusers(needed: tuple[int, int]) -> None:
    """Raises UserError for an older release than the `needed` one."""
    installed = version("diffusers")
    if tuple(map(int, installed.split(".")[:2])) < needed:
        least = ".".join(map(str, needed))
        raise UserError(
            f"'editor.class_path': this editor needs diffusers {least}, and {installed} is installed: "
            f"pip install 'diffusers>={least}'"
        )
