"""Qwen-Image-2.1 and its Turbo, in a profile from the reference to the fastest."""

from __future__ import annotations

import inspect
from contextlib import suppress
from typing import Any

from slurm_bench.checkpoints.folder import ModelFolder, read_json
from slurm_bench.editors.qwen.base_editor import MODEL_KEY, BaseEditor
from slurm_bench.editors.qwen.base_settings import KEY
from slurm_bench.editors.qwen.profiles import Profile
from slurm_bench.editors.qwen21.session import Session
from slurm_bench.editors.qwen21.settings import Settings
from slurm_bench.errors import UserError


class QwenImage21Editor(BaseEditor):
    """`model_name` is a folder or a hub id.

    profile              stock, exact or fp8; unset, exact on CUDA and stock elsewhere
    num_inference_steps  unset, those of the model's own schedule (Turbo has one of 8), else 40
    max_pixels           area of the edited image, whose aspect is the source's (the last one's), and of each source as
                         the model sees it, as in the pipeline
    true_cfg_scale       guidance runs above 1, which doubles the forwards; the model is meant to go without
    transparency         keep: the edited image is RGBA, and sources go in with their alpha. flatten: both are laid on
                         white
    lora                 a safetensors file, {path, scale}, or a list of these
    scheduler            `turbo`: Turbo's schedule, for a LoRA of it; `even`: evenly spaced whatever the model says; or
                         fields of the scheduler's configuration
    batched              samples of a batch (batch_size) whose edited images are of one size are denoised together; off,
                         since each then comes out as alone but for rounding. In exact and w8a16
    text_first           encode all samples' prompts before the transformer is loaded, then drop the text encoder:
                         17 GB less at the peak
    stream_blocks        so many of the transformer's blocks wait in the host's pinned memory, and are copied to the GPU
                         each time they run, under the computation of those before them
    keep_bf16            in fp8, linears of the blocks that stay in bfloat16, by the ends of their names
    """

    __signature__ = inspect.signature(Settings, eval_str=True)
    settings_class = Settings
    session_class = Session

    def _steps(self, folder: ModelFolder, profile: Profile) -> int:
        if profile.own_loop and read_json(folder.path / "transformer" / "config.json").get("causal_condition") is False:
            raise UserError(
                f"'{MODEL_KEY}': {self.settings.model_name} has causal_condition=false, so nothing of its text and "
                f"sources can be kept from step to step; set {KEY}.profile=stock"
            )
        return len(self.settings.sigmas(_own_sigmas(folder)))

    def planned_steps(self) -> int | None:
        settings = self.settings
        if settings.num_inference_steps is not None:
            return settings.num_inference_steps
        if settings.scheduler in ("turbo", "even"):
            return len(settings.sigmas(None))
        with suppress(UserError):
            return None if (folder := self._find()) is None else len(settings.sigmas(_own_sigmas(folder)))
        return None


def _own_sigmas(folder: ModelFolder) -> Any:
    return read_json(folder.path / "model_index.json").get("sample_sigmas")
