"""What tells one family of models from another, as data: everything else that editors share asks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from slurm_bench.editors.qwen.narrow import Narrowable
from slurm_bench.editors.qwen.profiles import PROFILES, Profile
from slurm_bench.editors.qwen.schedule import LIGHTNING_SCHEDULER
from slurm_bench.editors.qwen.warm_up import run_once
from slurm_bench.machine import GIB


@dataclass(frozen=True)
class Family:
    """`pipelines` are diffusers' classes. `classes` are those of the components with weights, each as library and
    class, in the order in which they are loaded. `workspace` is what an edit takes beside the weights, in bytes:
    activations at a megapixel, the CUDA context, the allocator's slack; `text_workspace`, what prompts take that are
    encoded first. `run_once(device, fp8)` calls each kernel of a step once. `schedulers` are fields of a scheduler's
    configuration by a name."""

    pipelines: tuple[str, ...]
    classes: Mapping[str, tuple[str, str]]
    narrowable: Narrowable
    workspace: int
    text_workspace: int
    run_once: Callable[[str, bool], None]
    profiles: Mapping[str, Profile]
    schedulers: Mapping[str, Mapping[str, Any]]
    modulation: tuple[str, ...] = ()  # a block's parts that are used once a schedule, and can wait on the host
    diffusers: tuple[int, int] = (0, 0)  # the first release that has the pipelines, where setup.cfg allows older ones


# By diffusers' class of a pipeline, the editor that takes it; DiffusersEditor takes the others.
EDITORS = {
    "QwenImageEditPipeline": "slurm_bench.editors.qwen.QwenImageEditor",
    "QwenImageEditPlusPipeline": "slurm_bench.editors.qwen.QwenImageEditor",
    "QwenImage21Pipeline": "slurm_bench.editors.qwen21.QwenImage21Editor",
}

_MLPS = tuple(f"{stream}_mlp.net.{name}" for stream in ("img", "txt") for name in ("0.proj", "2"))
_IMAGE_ATTENTION, _TEXT_ATTENTION = ("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj")

QWEN_IMAGE_EDIT = Family(
    pipelines=("QwenImageEditPipeline", "QwenImageEditPlusPipeline"),
    classes={
        "text_encoder": ("transformers", "Qwen2_5_VLForConditionalGeneration"),
        "vae": ("diffusers", "AutoencoderKLQwenImage"),
        "transformer": ("diffusers", "QwenImageTransformer2DModel"),
    },
    narrowable=Narrowable(
        names=(
            *(f"attn.{name}" for name in (*_IMAGE_ATTENTION, "to_out.0", *_TEXT_ATTENTION, "to_add_out")),
            *_MLPS,
        ),
        together=(_IMAGE_ATTENTION, _TEXT_ATTENTION),
        with_outliers="img_mlp.net.2",
        gelu=True,
    ),
    workspace=6 * GIB,
    text_workspace=4 * GIB,
    run_once=run_once,
    profiles=PROFILES,
    schedulers={"lightning": LIGHTNING_SCHEDULER},
    modulation=("img_mod", "txt_mod"),
)
