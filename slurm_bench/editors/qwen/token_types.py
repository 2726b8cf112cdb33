"""The multimodal token types, passed on to the text encoder.

transformers 5 gives image tokens positions in space only if it is passed `mm_token_type_ids`. The Qwen edit pipelines
of diffusers up to 0.42.1 drop them from what the processor returned. Nothing fails, but positions become
one-dimensional, and every edit changes (https://github.com/huggingface/diffusers/issues/14194).
"""

from __future__ import annotations

import inspect
from typing import Any


def pass_token_types(text_encoder: Any) -> None:
    """Adds `mm_token_type_ids` to calls without them: 0 for text, 1 for image, 2 for video, as the processor writes
    them."""
    if "mm_token_type_ids" not in inspect.signature(type(text_encoder).forward).parameters:
        return
    config = text_encoder.config

    def add_types(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        ids = kwargs.get("input_ids")
        if ids is None or kwargs.get("mm_token_type_ids") is not None:
            return None
        types = (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()
        return args, {**kwargs, "mm_token_type_ids": types}

    text_encoder.register_forward_pre_hook(add_types, with_kwargs=True)
