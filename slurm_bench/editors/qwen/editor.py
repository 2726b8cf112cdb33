"""Qwen-Image-Edit and the Edit-Plus family (2509, 2511), in a profile from the reference to the fastest."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from slurm_bench.checkpoints.folder import ModelFolder, check_pipeline_folder, locate
from slurm_bench.editors.base import Edited, EditRequest
from slurm_bench.editors.qwen.images import MEGAPIXEL
from slurm_bench.editors.qwen.loading import Source, check_lora
from slurm_bench.editors.qwen.profiles import check_capability, check_extras, profile_named
from slurm_bench.editors.qwen.settings import settings
from slurm_bench.errors import SampleError, UserError
from slurm_bench.machine import check_gpu_memory, free_memory, visible_gpu

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
    offload_modulation   another 13.6 GB wait on the host, seconds for each new picture size
    keep_bf16            in fp8 and fast, linears of the blocks that stay in bfloat16, by the ends of their names
    cache                cache-dit's options for the profile fast

    A batch is worked through one by one: at a megapixel a forward is bound by arithmetic (two take twice as
    long as one), and a sample's image can't depend on its neighbours.
    """

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        dtype: str = "bfloat16",
        num_inference_steps: int = 50,
        true_cfg_scale: float = 4.0,
        negative_prompt: str | None = " ",
        max_pixels: int = MEGAPIXEL,
        lora: Any = None,
        scheduler: str | dict[str, Any] | None = None,
        profile: str | None = None,
        text_first: bool = False,
        offload_modulation: bool = False,
        keep_bf16: Sequence[str] = (),
        cache: dict[str, Any] | None = None,
        device: str | None = None,
    ) -> None:
        self.model_name = str(model_name)
        self.revision = revision
        self.device = device
        self.settings = settings(
            dtype=dtype,
            num_inference_steps=num_inference_steps,
            true_cfg_scale=true_cfg_scale,
            negative_prompt=negative_prompt,
            max_pixels=max_pixels,
            lora=lora,
            scheduler=scheduler,
            profile=profile,
            text_first=text_first,
            offload_modulation=offload_modulation,
            cache=cache,
            keep_bf16=keep_bf16,
        )
        self._session: Any = None
        self._class_name: str | None = None
        self._commit: str | None = None
        self._load_seconds: float | None = None

    def check(self) -> None:
        """All that can be known without a GPU; with one in sight, its kind and memory too. Raises UserError."""
        profile = profile_named(self.settings.profile, cuda=True)
        check_extras(profile)
        for lora in self.settings.loras:
            check_lora(lora)
        folder = self._find()
        gpu = None if self.device == "cpu" else visible_gpu()
        check_capability(profile, gpu)
        if folder is not None:
            check_gpu_memory(
                self.settings.memory_needed(folder.parameters),
                gpu,
                f"'{MODEL_KEY}': {self.model_name} with profile={profile.name}",
                "set editor.params.text_first=true, or take a larger GPU",
            )

    def _find(self) -> ModelFolder | None:
        path = locate(self.model_name, self.revision, MODEL_KEY)
        folder = check_pipeline_folder(path) if path else None
        if folder:
            self._is_plus(folder.class_name)
            self._class_name, self._commit = folder.class_name, folder.commit
        return folder

    def _is_plus(self, class_name: str) -> bool:
        if class_name not in PIPELINES:
            raise UserError(
                f"'{MODEL_KEY}': {self.model_name} is a {class_name}, not a {' or '.join(PIPELINES)}; other "
                "pipelines run with slurm_bench.editors.diffusers_pipeline.DiffusersEditor"
            )
        return PIPELINES[class_name]

    def load(self, pipeline: Any = None) -> None:
        """`pipeline`: one already built, with random weights say, instead of `model_name`'s."""
        import torch

        from slurm_bench.editors.qwen.session import Session

        begin = time.perf_counter()
        if pipeline is not None:
            self.device = str(pipeline.vae.device)
        self.device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        cuda = self.device.startswith("cuda")
        profile = profile_named(self.settings.profile, cuda)
        check_extras(profile)
        check_capability(profile, visible_gpu())
        if profile.fp8 and not cuda:
            raise UserError(f"'editor.params.profile': {profile.name} needs a Hopper-class GPU, and there is none here")
        self.settings.require_own_loop_for_savings(profile.own_loop)
        source = None
        if pipeline is None:
            source = self._source()
            pipeline = self._load_parts(source)
        self._class_name = type(pipeline).__name__
        plus = self._is_plus(self._class_name)
        self._session = Session(pipeline, plus, profile, self.settings, self.device, source)
        self._load_seconds = time.perf_counter() - begin

    def _source(self) -> Source:
        folder = self._find()
        assert self.device is not None
        if folder is None:
            return Source(self.model_name, self.revision, self.settings.dtype, self.device)
        return Source(str(folder.path), None, self.settings.dtype, self.device)

    def _load_parts(self, source: Source) -> Any:
        from slurm_bench.editors.qwen.loading import load_pipeline, load_text_encoder, load_transformer

        text_encoder = load_text_encoder(source)
        return load_pipeline(source, text_encoder, None if self.settings.text_first else load_transformer(source))

    def prepare(self, requests: Iterable[EditRequest]) -> None:
        self._session.prepare(requests)

    def edit(self, batch: Sequence[EditRequest]) -> list[Edited | Exception]:
        return [self._edit_one(request) for request in batch]

    def _edit_one(self, request: EditRequest) -> Edited | Exception:
        try:
            outcome = self._session.edit(request)
        except SampleError as error:
            return error
        seconds = {part: round(value, 4) for part, value in outcome.seconds.items()}
        if self._load_seconds is not None:
            seconds["load"], self._load_seconds = round(self._load_seconds, 2), None
        info = {
            "profile": self._session.profile.name,
            "attention": self._session.attention,
            "steps": self.settings.sampling.steps,
            "forwards": outcome.forwards,
            "guidance": self.settings.sampling.guidance,
            "width": outcome.size.width,
            "height": outcome.size.height,
            "seconds": seconds,
        }
        if outcome.cache is not None:
            info["cache_skips"] = outcome.cache
        return Edited(outcome.image, info)

    def provenance(self) -> dict[str, Any]:
        """What the run's images came from; the commit where it is known."""
        return {
            "model": self.model_name,
            "revision": self._commit or self.revision,
            "class": self._class_name,
            "lora": [{"path": str(lora.path), "scale": lora.scale} for lora in self.settings.loras],
        }

    def close(self) -> None:
        self._session = None
        free_memory()
