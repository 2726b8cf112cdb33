"""Whole Qwen-Image-2.1 pipelines with random weights, built from their configurations, nothing downloaded: `full` has
the published sizes (7.1 B transformer, 8.8 B text encoder), `tiny` edits an image on a CPU in about a second."""

from __future__ import annotations

from typing import Any

from slurm_bench.editors.qwen.random_weights import building, randomize_norms_and_biases
from slurm_bench.scorers.qwen3vl.random_weights import random_judge

SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "full": {"transformer": {}, "vae": {}},  # the class defaults are Qwen-Image-2.1's
    "tiny": {
        "transformer": {
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "context_in_dim": 32,
            "axes_dims_rope": (4, 6, 6),
        },
        "vae": {"base_dim": 4, "decoder_base_dim": 4, "dim_mult": [1] * 5, "num_res_blocks": 1},
    },
}


def random_qwen_image_21(
    size: str = "tiny",
    device: str = "cpu",
    dtype: str = "float32",
    seed: int = 0,
    sample_sigmas: list[float] | None = None,
) -> Any:
    """A `QwenImage21Pipeline`, loaded and ready to edit. Its text encoder is the judge's model."""
    from diffusers import (
        AutoencoderKLQwenImage21,
        FlowMatchEulerDiscreteScheduler,
        QwenImage21Pipeline,
        QwenImage21Transformer2DModel,
    )

    text_encoder, processor = random_judge(size, device=device, dtype=dtype, seed=seed)
    with building(device, dtype, seed):
        pipeline: Any = QwenImage21Pipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
            ),
            vae=AutoencoderKLQwenImage21(**SIZES[size]["vae"]),
            text_encoder=text_encoder,
            processor=processor,
            transformer=QwenImage21Transformer2DModel(**SIZES[size]["transformer"]),
            sample_sigmas=sample_sigmas,
        )
        for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder):
            if size == "tiny":
                randomize_norms_and_biases(part)
            part.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
