"""Whole Qwen-Image-Edit pipelines with random weights, built from their configurations, nothing downloaded.

`full` has the published sizes (20.4 B transformer, 8.3 B text encoder), so its speed and memory are the real
ones. `tiny` has the same parts and code paths, and edits an image on a CPU in about a second; its norms and biases are
random too, so that two of them that are swapped, or one that is left out, change the image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "full": {
        "transformer": {},  # the class defaults are Qwen-Image-Edit's
        "vae": {},
        "text": {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        "vision": {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "out_hidden_size": 3584,
        },
    },
    "tiny": {
        "transformer": {
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 16,
            "axes_dims_rope": (4, 6, 6),
        },
        "vae": {"base_dim": 2, "num_res_blocks": 1, "dim_mult": [1, 1, 2, 2]},
        "text": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "vocab_size": 1024,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
        },
        "vision": {
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "patch_size": 28,
            "window_size": 224,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 16,
        },
    },
}
SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]


def random_pipeline(
    size: str = "tiny",
    device: str = "cpu",
    dtype: str = "float32",
    plus: bool = False,
    seed: int = 0,
    zero_cond_t: bool = False,
) -> Any:
    """A `QwenImageEditPipeline`, or with `plus` a `QwenImageEditPlusPipeline`, loaded and ready to edit.

    `zero_cond_t` is what the 2511 checkpoint adds. Parts are made on the device where they stay, because `meta` would
    lose the RoPE tables, which are plain attributes.
    """
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImageEditPipeline,
        QwenImageEditPlusPipeline,
        QwenImageTransformer2DModel,
    )

    sizes = SIZES[size]
    processor = _processor(sizes["vision"]["patch_size"])
    with building(device, dtype, seed):
        pipeline: Any = (QwenImageEditPlusPipeline if plus else QwenImageEditPipeline)(
            transformer=QwenImageTransformer2DModel(**sizes["transformer"], zero_cond_t=zero_cond_t),
            vae=AutoencoderKLQwenImage(**sizes["vae"]),
            text_encoder=_text_encoder(sizes, processor),
            tokenizer=processor.tokenizer,
            processor=processor,
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True,
                base_shift=0.5,
                max_shift=0.9,
                max_image_seq_len=8192,
                shift_terminal=0.02,
            ),
        )
        if size == "tiny":
            for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder):
                randomize_norms_and_biases(part)
    _add_words(processor.tokenizer, pipeline.prompt_template_encode)
    for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder):
        part.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def randomize_norms_and_biases(model: Any) -> None:
    """Libraries set the weights of norms to one (or to zero, where one is added to them) and some biases to zero."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.add_(0.1 * torch.randn_like(parameter))
        elif (parameter == 1).all() or (parameter == 0).all():
            parameter.add_(0.3 * torch.randn_like(parameter))


@contextmanager
def building(device: str, dtype: str, seed: int) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_default_dtype(before)


def _text_encoder(sizes: dict[str, dict[str, Any]], processor: Any) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    ids = {token: processor.tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    text = {**sizes["text"], "rms_norm_eps": 1e-6, "max_position_embeddings": 128000}
    vision = {**sizes["vision"], "spatial_merge_size": 2, "temporal_patch_size": 2, "tokens_per_second": 2}
    config = Qwen2_5_VLConfig(
        text_config={**text, "bos_token_id": None, "eos_token_id": ids["<|im_end|>"]},
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def _processor(patch_size: int) -> Any:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer, Qwen2VLProcessor
    from transformers.models.qwen2_vl import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    vocab = {character: index for index, character in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[], additional_special_tokens=SPECIAL_TOKENS[1:])
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=patch_size, temporal_patch_size=2, merge_size=2),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(patch_size=patch_size, temporal_patch_size=2, merge_size=2),
    )


def _add_words(tokenizer: Any, template: str) -> None:
    """Gives each word of the template a token, as a trained tokenizer has: the byte alphabet alone would make the
    system prompt several times as long, and change every figure with it."""
    from tokenizers import AddedToken

    words = sorted(set(re.findall(r" ?[A-Za-z]+", re.sub(r"<\|\w+\|>", "\n", template))))
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words if len(word) > 1])
