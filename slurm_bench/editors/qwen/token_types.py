"""The multimodal token types, passed on to the text encoder.

transformers 5 places image tokens in space only if `mm_token_type_ids` come along; the Qwen edit pipelines of
diffusers up to 0.42 drop what the processor returned, and nothing fails: positions become one-dimensional and
every edit changes (diffusers issue 14194).
"""

from __future__ import annotations

import inspect
from typing import Any


def pass_token_types(text_encoder: Any) -> None:
    """Add `mm_token_type_ids` to calls that have an image but lack them; a caller that passes them is left alone.

    0 is text, 1 image, 2 video, as the processor writes them.
    """
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
