"""Qwen-Image-2.1 and its Turbo, as data."""

from __future__ import annotations

from slurm_bench.editors.qwen.family import Family
from slurm_bench.editors.qwen.narrow import Narrowable
from slurm_bench.editors.qwen.profiles import WITHOUT_SKIPS
from slurm_bench.editors.qwen21.warm_up import run_once
from slurm_bench.machine import GIB

_ATTENTION, _SWIGLU = ("to_q", "to_k", "to_v"), ("proj", "gate_layer")

# Of Qwen-Image-2.1-Turbo's own model_index.json and scheduler, for a Turbo LoRA on the model that it was made from.
TURBO_SIGMAS = (1.0, 0.978453, 0.95418, 0.926626, 0.89508, 0.845148, 0.704534, 0.414568)
TURBO_SCHEDULER = {"shift": 1.0, "use_dynamic_shifting": False, "shift_terminal": None}

QWEN_IMAGE_21 = Family(
    pipelines=("QwenImage21Pipeline",),
    classes={
        "text_encoder": ("transformers", "Qwen3VLForConditionalGeneration"),
        "vae": ("diffusers", "AutoencoderKLQwenImage21"),
        "transformer": ("diffusers", "QwenImage21Transformer2DModel"),
    },
    narrowable=Narrowable(
        names=(*(f"attn.{name}" for name in (*_ATTENTION, "to_out.0")), *(f"img_mlp.{n}" for n in (*_SWIGLU, "out"))),
        together=(_ATTENTION, _SWIGLU),
        with_outliers="img_mlp.out",
    ),
    # The stock pipeline took 41 GiB on an H100 at one source of a megapixel, 30 of them weights.
    workspace=12 * GIB,
    text_workspace=4 * GIB,
    run_once=run_once,
    profiles=WITHOUT_SKIPS,
    schedulers={"turbo": TURBO_SCHEDULER, "even": {}},
    diffusers=(0, 41),
)
