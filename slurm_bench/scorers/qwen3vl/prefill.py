"""One prefill of a batch of packed prompts: the same mathematics as the model's own forward with less work.

- What prompts share is computed once (`packing`). Only its keys and values are copied to each.
- Causal attention never looks ahead, so a prompt doesn't see the padding behind it: no mask is needed.
- Each distinct image goes through the vision tower once, wherever it is shown.
- The last layer is computed for the last tokens alone, whose logits are wanted.

Shapes: B prompts, N packed tokens, H heads (of keys and values fewer), C channels of a head, D channels of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from slurm_bench.kernels.attention import attention, attention_of_one
from slurm_bench.kernels.ops import linear
from slurm_bench.scorers.qwen3vl.language_model import LanguageModel
from slurm_bench.scorers.qwen3vl.packing import Packing, Segment
from slurm_bench.scorers.qwen3vl.vision import patch_vision

# (a layer's index, prompts, their keys, their values), the last two [prompts, T, H, C], with padding at the end.
Keep = Callable[[int, Sequence[int], Tensor, Tensor], None]


class Prefill:
    """Of `model`, whose vision tower gets our forwards."""

    def __init__(self, model: Any, language_model: LanguageModel) -> None:
        self._visual = model.visual
        self._language_model = language_model
        patch_vision(model.visual)

    def last_hidden(self, tensors: Mapping[str, Tensor], packing: Packing, keep: Keep | None = None) -> Tensor:
        """The hidden state of each prompt's last token, [B, D]. `keep` is handed all prompts' keys and values."""
        model, tokens = self._language_model, tensors["tokens"]
        x, y = model.embed(tokens.clamp(min=0)), None
        tables = model.tables(x, tensors["positions"])
        seen = (tokens < 0).nonzero()[:, 0]
        shown = -1 - tokens[seen]
        features, *deep = self._features(tensors) if "pixel_values" in tensors else [x]
        x[seen] = features[shown].to(x.dtype)
        for index, layer in enumerate(model.layers):
            ends, kept = index == len(model.layers) - 1, partial(keep, index) if keep else None
            attend = partial(_attend_last if ends else _attend, packing, kept)
            x, y = model.run(layer, x, y, tables, attend, tensors["last"] if ends else None)
            if index < len(deep):  # DeepStack: https://arxiv.org/abs/2406.04334
                y[seen] += deep[index][shown]
        return model.final(x, y)

    def _features(self, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """Of the images' patches one after another, and what the first layers add to them, a layer each."""
        pixels = tensors["pixel_values"].type(self._visual.dtype)
        found = self._visual(pixels, grid_thw=tensors["image_grid_thw"], return_dict=True)
        return [found.pooler_output, *found.deepstack_features]


def _attend(packing: Packing, keep: Any, attn: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Of all tokens: [N, H, C] → [N, D]."""
    out = query.new_empty((len(query), len(attn.o_proj.weight)))
    for segment in packing.segments:
        keys, values = _seen(key, segment), _seen(value, segment)
        if keep and segment.prompts:
            keep(segment.prompts, keys, values)
        attended = attention(_runs(query, segment), keys, values, attn.scaling, causal=True)
        linear(attn.o_proj, attended.flatten(0, 1).flatten(1), out[segment.tokens])
    return out


def _attend_last(packing: Packing, keep: Any, attn: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Of the prompts' last tokens: [B, H, C] → [B, D]. They must not see the padding."""
    out = torch.empty_like(query)
    for segment in packing.segments:
        if segment.prompts:
            prompts, keys, values = list(segment.prompts), _seen(key, segment), _seen(value, segment)
            if keep:
                keep(prompts, keys, values)
            lengths = torch.tensor([packing.lengths[prompt] for prompt in prompts], device=key.device)
            visible = torch.arange(keys.shape[1], device=key.device) < lengths[:, None]
            out[prompts] = attention_of_one(query[prompts], keys, values, visible, attn.scaling)
    return linear(attn.o_proj, out.flatten(1))


def _runs(tokens: Tensor, segment: Segment) -> Tensor:
    """Packed → [rows, width, …]."""
    return tokens[segment.tokens].unflatten(0, (segment.rows, segment.width))


def _seen(tokens: Tensor, segment: Segment) -> Tensor:
    """Packed → [rows, T, …]: each run with what it follows."""
    own = _runs(tokens, segment)
    if not segment.path:
        return own
    whole, place = own.new_empty((segment.rows, segment.before + segment.width, *own.shape[2:])), 0
    for part in segment.path:
        whole[:, place : place + part.stop - part.start] = tokens[part]
        place += part.stop - part.start
    whole[:, place:] = own
    return whole
