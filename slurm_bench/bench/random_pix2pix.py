"""Whole InstructPix2Pix pipelines (https://arxiv.org/abs/2211.09800) with random weights, nothing downloaded: `full`
has Stable Diffusion 1.5's sizes, `tiny` edits an image on a CPU in a moment."""

from __future__ import annotations

from typing import Any

from slurm_bench.editors.qwen.random_weights import building

SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "full": {
        "vae": {
            "block_out_channels": (128, 256, 512, 512),
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "layers_per_block": 2,
        },
        "text": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        "unet": {"cross_attention_dim": 768, "sample_size": 64},  # the class defaults are Stable Diffusion's
    },
    "tiny": {
        "vae": {
            "block_out_channels": (4, 8),
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "norm_num_groups": 2,
        },
        "text": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        "unet": {
            "block_out_channels": (4, 8),
            "layers_per_block": 1,
            "sample_size": 8,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": 16,
            "attention_head_dim": 4,
            "norm_num_groups": 2,
        },
    },
}


def random_pix2pix(size: str = "tiny", device: str = "cpu", dtype: str = "float32", seed: int = 0) -> Any:
    """A `StableDiffusionInstructPix2PixPipeline`, with a tokenizer made of the byte alphabet."""
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionInstructPix2PixPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = SIZES[size]
    with building(device, dtype, seed):
        return StableDiffusionInstructPix2PixPipeline(
            vae=AutoencoderKL(latent_channels=4, **sizes["vae"]),
            text_encoder=CLIPTextModel(CLIPTextConfig(vocab_size=600, bos_token_id=0, eos_token_id=1, **sizes["text"])),
            tokenizer=clip_tokenizer(),
            unet=UNet2DConditionModel(in_channels=8, out_channels=4, **sizes["unet"]),
            scheduler=EulerDiscreteScheduler(),
            safety_checker=None,  # type: ignore[arg-type]
            feature_extractor=None,  # type: ignore[arg-type]
            requires_safety_checker=False,
        )


def clip_tokenizer() -> Any:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[], model_max_length=77)
