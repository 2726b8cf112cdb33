"""The text encoder (Qwen2.5-VL, https://arxiv.org/abs/2502.13923, or Qwen3-VL) with the work left out that an edit
doesn't need.

Shapes: T patches of an image, H heads, C channels of a head, W windows of one length L.
"""

from __future__ import annotations

import operator
from functools import lru_cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def leave_out_logits(text_encoder: Any) -> None:
    """And the key-value cache; and computes the image features once for the prompt and its negative."""
    model = text_encoder.model
    model.get_image_features = _keep_last_features(model.get_image_features)

    def forward(input_ids: Tensor, output_hidden_states: bool = True, **inputs: Any) -> SimpleNamespace:
        output = model(input_ids=input_ids, **inputs, use_cache=False, return_dict=True)
        return SimpleNamespace(hidden_states=(output.last_hidden_state,))

    text_encoder.forward = forward


def attend_in_windows(text_encoder: Any) -> None:
    """In Qwen2.5-VL's vision tower: in its windows side by side instead of one by one."""
    visual = text_encoder.model.visual
    if visual.config._attn_implementation == "sdpa":
        for block in visual.blocks:
            block.attn.forward = _attend_in_windows(block.attn)


def patch_image_processor(image_processor: Any, device: torch.device) -> None:
    """Prepares the pixels once for the prompt and its negative, and normalizes them and cuts them into patches on the
    device. They are still resized on the CPU, as in the pipeline: a GPU rounds a fifth of them to another shade."""
    preprocess, resize = image_processor.preprocess, image_processor.resize
    last: list[Any] = [[], None, None]  # images, further arguments, their pixels

    def preprocess_once(images: Any, *args: Any, **kwargs: Any) -> Any:
        given, options = list(images) if isinstance(images, list | tuple) else [images], (args, kwargs)
        same = options == last[1] and len(given) == len(last[0]) and all(map(operator.is_, given, last[0]))
        if not same:
            last[:] = given, options, preprocess(images, *args, **kwargs, device=device)
        return last[2]

    def resize_on_cpu(**arguments: Any) -> Tensor:
        on_cpu = {name: value.cpu() if isinstance(value, Tensor) else value for name, value in arguments.items()}
        return resize(**on_cpu).to(device)

    image_processor.preprocess, image_processor.resize = preprocess_once, resize_on_cpu


def _keep_last_features(get_image_features: Any) -> Any:
    last: dict[str, Any] = {}

    def features(pixel_values: Tensor, image_grid_thw: Tensor, **kwargs: Any) -> Any:
        # The grids too: a blank picture's patches are those of one that is turned.
        shown = pixel_values, image_grid_thw
        if not last or not all(map(torch.equal, last["shown"], shown)):
            last["features"] = get_image_features(*shown, **kwargs)
            last["shown"] = shown
        return last["features"]

    return features


def _attend_in_windows(attention: Any) -> Any:
    """All windows of one length as one batch of the attention kernel: a handful of launches a layer, not a hundred."""
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

    def forward(
        hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor], **_: Any
    ) -> Tensor:
        tokens = hidden_states.shape[0]
        query, key, value = attention.qkv(hidden_states).view(tokens, 3, attention.num_heads, -1).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        attended = torch.empty_like(value)  # [T, H, C]
        for window in _window_indices(tuple(cu_seqlens.tolist()), hidden_states.device):
            q, k, v = (part[window].transpose(1, 2) for part in (query, key, value))  # [W, H, L, C]
            attended[window] = functional.scaled_dot_product_attention(q, k, v, scale=attention.scaling).transpose(1, 2)
        return attention.proj(attended.view(tokens, -1))

    return forward


@lru_cache(maxsize=16)
def _window_indices(bounds: tuple[int, ...], device: torch.device) -> tuple[Tensor, ...]:
    """For each length the patches of all windows that have it, [W, L]. `bounds` are where windows begin and end."""
    starts: dict[int, list[int]] = {}
    for start, stop in pairwise(bounds):
        if stop > start:
            starts.setdefault(stop - start, []).append(start)
    return tuple((torch.tensor(begin)[:, None] + torch.arange(length)).to(device) for length, begin in starts.items())
