"""A Qwen3-VL with random weights, model and processor, made from configurations alone: for speed and tests.

Full-size figures are those of Qwen3-VL-8B and Qwen3-VL-30B-A3B.
"""

from __future__ import annotations

import json
from typing import Any

from slurm_bench.scorers.judge.rubric import BUNDLED

_SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]

# The full-size tokenizer puts <|endoftext|> here, and <|image_pad|> at 151655.
_FULL_TOKENS, _FULL_VOCABULARY = 151643, 151936

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_VISION: dict[str, dict[str, Any]] = {
    "full": {
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [8, 16, 24],
    },
    "tiny": {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    },
}

_TEXT: dict[str, dict[str, Any]] = {
    "full": {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "tiny": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    },
}

_MOE: dict[str, dict[str, Any]] = {
    "full": {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 48,
        "num_key_value_heads": 4,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
    },
    "tiny": {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2},
}

_MROPE_SECTION = {"full": [24, 20, 20], "tiny": [4, 2, 2]}


def random_judge(
    size: str = "full", moe: bool = False, device: str = "cpu", dtype: str = "bfloat16", seed: int = 0
) -> tuple[Any, Any]:
    """Model (in eval mode) and processor; `size` is "full" or "tiny".

    The model is built on `device` in `dtype`, never on `meta`: rotary tables are plain attributes, and stay empty.
    """
    import torch
    import transformers

    processor = _processor(size)
    config = _config(size, moe, processor.tokenizer)
    name = "Qwen3VLMoeForConditionalGeneration" if moe else "Qwen3VLForConditionalGeneration"
    before = torch.get_default_dtype()
    devices = [torch.cuda.current_device()] if torch.device(device).type == "cuda" else []
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.random.fork_rng(devices), torch.device(device):
            torch.manual_seed(seed)
            model = getattr(transformers, name)._from_config(config, attn_implementation="sdpa")
    finally:
        torch.set_default_dtype(before)
    return model.eval(), processor


def _config(size: str, moe: bool, tokenizer: Any) -> Any:
    import transformers

    text = _TEXT[size] | {
        "vocab_size": _FULL_VOCABULARY if size == "full" else len(tokenizer),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5e6,
            "mrope_section": _MROPE_SECTION[size],
            "mrope_interleaved": True,
        },
        "max_position_embeddings": 262144,
    }
    if moe:
        text |= _MOE[size]
    vision = _VISION[size] | {
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": text["hidden_size"],
    }
    cls = transformers.Qwen3VLMoeConfig if moe else transformers.Qwen3VLConfig
    return cls(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=False,
        **{
            f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
            for name, token in (
                ("image", "image_pad"),
                ("video", "video_pad"),
                ("vision_start", "vision_start"),
                ("vision_end", "vision_end"),
            )
        },
    )


def _processor(size: str) -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    half = [0.5, 0.5, 0.5]
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            patch_size=16,
            temporal_patch_size=2,
            merge_size=2,
            size={"shortest_edge": 32 * 32 if size == "tiny" else 256 * 256, "longest_edge": 4096 * 4096},
            image_mean=half,
            image_std=half,
        ),
        tokenizer=_tokenizer(size),
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )


def _tokenizer(size: str) -> Any:
    """Byte-level. The full size also has words for tokens, learnt from the rubrics, so that a prompt is about as
    long as with the published vocabulary; its free places are filled, for special tokens to have their ids."""
    from tokenizers import AddedToken
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    vocabulary = {symbol: index for index, symbol in enumerate(sorted(ByteLevel.alphabet()))}
    merges: list[Any] = []
    if size == "full":
        merges = _merges(Qwen2Tokenizer(vocab=vocabulary, merges=[]))
        for left, right in merges:
            vocabulary.setdefault(left + right, len(vocabulary))
        vocabulary |= {f"<unused {index}>": index for index in range(len(vocabulary), _FULL_TOKENS)}
    special = [AddedToken(token, special=True) for token in _SPECIAL]
    vocabulary |= {token: len(vocabulary) + place for place, token in enumerate(_SPECIAL)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges, eos_token="<|im_end|>", pad_token=_SPECIAL[0])
    tokenizer.add_tokens(special, special_tokens=True)
    return tokenizer


def _merges(bytes_only: Any) -> list[tuple[str, str]]:
    learnt = bytes_only.train_new_from_iterator([BUNDLED.read_text("utf-8")], 8192, show_progress=False)
    return [(left, right) for left, right in json.loads(learnt.backend_tokenizer.to_str())["model"]["merges"]]
