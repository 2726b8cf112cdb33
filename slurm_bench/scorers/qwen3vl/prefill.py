"""Qwen3-VL for one prefill of a batch of prompts that are padded at their ends: the same mathematics with less work.

- Causal attention never looks ahead, so a prompt doesn't see the padding behind it: no mask is needed.
- The prefix that all prompts share, the rubric, is computed once for the batch. Only its keys and values are copied
  to each prompt.
- The last layer is computed for the last tokens alone, whose logits are wanted.
- Between two matrix products there is one pass over the data (`kernels`). In eager mode these operations take 40 % of
  the time on an H100.

The model: https://github.com/huggingface/transformers/tree/main/src/transformers/models/qwen3_vl.

Shapes: B prompts, T tokens of the longest prompt, S tokens of the shared prefix, H heads (of keys and values fewer:
grouped-query attention), C channels of a head, D channels of a token. "Packed" tokens are [S + B · (T - S), …]: the
prefix once, then what each prompt has behind it, padding included. Images have P patches together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from slurm_bench.kernels.attention import attention
from slurm_bench.kernels.ops import feed_forward, layer_norm, linear, rms_norm, rotate_, silu_mul


@dataclass(frozen=True)
class PackedBatch:
    """Where a batch's tokens are once they are packed. `lengths` are those of the prompts, without padding."""

    lengths: tuple[int, ...]
    shared: int

    def pack(self, rows: Tensor) -> Tensor:
        """[B, T, …] → packed."""
        return torch.cat([rows[0, : self.shared], rows[:, self.shared :].flatten(0, 1)])

    def rest(self, tokens: Tensor) -> Tensor:
        """Packed → [B, T - S, …], without the prefix."""
        return tokens[self.shared :].unflatten(0, (len(self.lengths), -1))

    def unpack(self, tokens: Tensor) -> Tensor:
        """Packed → [B, T, …], with the prefix copied to each prompt."""
        rest = self.rest(tokens)
        rows = tokens.new_empty((len(rest), self.shared + rest.shape[1], *rest.shape[2:]))
        rows[:, : self.shared] = tokens[: self.shared]
        rows[:, self.shared :] = rest
        return rows

    def last(self, tokens: Tensor) -> Tensor:
        """Packed → [B, …], each prompt's last token."""
        width = (len(tokens) - self.shared) // len(self.lengths)
        return tokens[[row * width + length - 1 for row, length in enumerate(self.lengths)]]


def shared_prefix(ids: Tensor, types: Tensor, lengths: Sequence[int]) -> int:
    """How many tokens all prompts begin with, before any image and any prompt's last token. `ids` and `types`
    (0 for text) are [B, T]."""
    alike = ((ids == ids[:1]) & (types == 0)).all(dim=0)
    alike[min(lengths) - 1 :] = False
    return int(alike.long().cumprod(0).sum())


class Prefill:
    """Replaces the forwards of `model`, dense or mixture of experts, by its own: it can't generate any more."""

    def __init__(self, model: Any) -> None:
        self._model = model.model
        self._batch: PackedBatch | None = None
        text, visual = self._model.language_model, self._model.visual
        text.forward = self._text
        self._silu = text.config.hidden_act == "silu"
        _patches_by_product(visual.patch_embed)
        images = _Images()
        for block in visual.blocks:
            block.forward = _vision_block(block, images, visual.config.hidden_act == "gelu_pytorch_tanh")

    def last_hidden(self, tensors: dict[str, Tensor], batch: PackedBatch) -> Tensor:
        """The hidden state of each prompt's last token, [B, D]."""
        self._batch = batch
        tensors = {name: tensor for name, tensor in tensors.items() if name != "attention_mask"}
        return self._model(**tensors, use_cache=False).last_hidden_state

    def _text(
        self,
        inputs_embeds: Tensor,
        position_ids: Tensor,
        visual_pos_masks: Tensor,
        deepstack_visual_embeds: Sequence[Tensor] = (),
        **_: Any,
    ) -> Any:
        """The language model's forward: [B, T, D] in, packed tokens out."""
        from transformers.modeling_outputs import BaseModelOutputWithPast

        text, batch = self._model.language_model, self._batch
        assert batch is not None
        tables = text.rotary_emb(inputs_embeds, position_ids[-3:])
        cos, sin = (batch.pack(table[..., : table.shape[-1] // 2]) for table in tables)
        seen = batch.pack(visual_pos_masks).nonzero()[:, 0]
        x, y = batch.pack(inputs_embeds), None
        for index, layer in enumerate(text.layers):
            x, y = self._layer(layer, x, y, cos, sin, batch, last=index == len(text.layers) - 1)
            if index < len(deepstack_visual_embeds):
                y[seen] += deepstack_visual_embeds[index]
        hidden = rms_norm(x, text.norm.weight, text.norm.variance_epsilon, y)[1]
        return BaseModelOutputWithPast(last_hidden_state=hidden)

    def _layer(
        self, layer: Any, x: Tensor, y: Tensor | None, cos: Tensor, sin: Tensor, batch: PackedBatch, last: bool
    ) -> tuple[Tensor, Tensor]:
        """`x` + `y` is the layer's input, and the sum of the two results is its output, all packed [·, D]: the next
        norm adds them in its own pass."""
        attn, first, second = layer.self_attn, layer.input_layernorm, layer.post_attention_layernorm
        x, h = rms_norm(x, first.weight, first.variance_epsilon, y)
        key, value = (project(h).unflatten(-1, (-1, attn.head_dim)) for project in (attn.k_proj, attn.v_proj))
        rotate_(key, cos, sin, False, attn.k_norm.weight[None, None], 0, attn.k_norm.variance_epsilon)
        if last:
            x, h, cos, sin = (batch.last(part) for part in (x, h, cos, sin))
        query = attn.q_proj(h).unflatten(-1, (-1, attn.head_dim))
        rotate_(query, cos, sin, False, attn.q_norm.weight[None, None], 0, attn.q_norm.variance_epsilon)
        attend = _attend_last if last else _attend
        y = attend(attn.o_proj, query, key, value, batch, attn.scaling)
        x, h = rms_norm(x, second.weight, second.variance_epsilon, y)
        return x, self._mlp(layer.mlp, h)

    def _mlp(self, mlp: Any, h: Tensor) -> Tensor:
        if self._silu and hasattr(mlp, "gate_proj"):
            return mlp.down_proj(silu_mul(mlp.gate_proj(h), mlp.up_proj(h)))
        return mlp(h[None]).view_as(h)


def _attend(project: Any, query: Tensor, key: Tensor, value: Tensor, batch: PackedBatch, scale: float) -> Tensor:
    """Packed [·, H, C] → packed [·, D]. The prefix attends to itself once; what stands behind it, to both."""
    shared = batch.shared
    out = query.new_empty((len(query), project.out_features))
    if shared:
        attended = attention(query[None, :shared], key[None, :shared], value[None, :shared], scale, causal=True)
        linear(project, attended[0].flatten(1), out[:shared])
    attended = attention(batch.rest(query), batch.unpack(key), batch.unpack(value), scale, causal=True)
    linear(project, attended.flatten(0, 1).flatten(1), out[shared:])
    return out


def _attend_last(project: Any, query: Tensor, key: Tensor, value: Tensor, batch: PackedBatch, scale: float) -> Tensor:
    """`query` is [B, H, C], the last tokens; the result is [B, D]. They must not see the padding, so there is a mask,
    which neither FlashAttention nor cuDNN's kernel takes: torch chooses another."""
    rows, key, value = (part.transpose(1, 2) for part in (query[:, None], batch.unpack(key), batch.unpack(value)))
    places = torch.arange(key.shape[2], device=key.device)
    mask = (places < torch.tensor(batch.lengths, device=key.device)[:, None])[:, None, None]
    attended = functional.scaled_dot_product_attention(rows, key, value, attn_mask=mask, scale=scale, enable_gqa=True)
    return project(attended[:, :, 0].flatten(1))


def _patches_by_product(embed: Any) -> None:
    """The patch embedding as a matrix product, [P, pixels] → [P, D]: a convolution whose stride equals its kernel."""
    conv = embed.proj

    def forward(patches: Tensor) -> Tensor:
        return functional.linear(patches.to(conv.weight.dtype), conv.weight.flatten(1), conv.bias)

    embed.forward = forward


def _vision_block(block: Any, images: _Images, tanh_gelu: bool) -> Any:
    attn, mlp, norm1, norm2 = block.attn, block.mlp, block.norm1, block.norm2

    def forward(
        hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor], **_: Any
    ) -> Tensor:
        h = layer_norm(hidden_states, norm1.weight, norm1.bias, norm1.eps)[1]
        packed = attn.qkv(h).unflatten(-1, (3, attn.num_heads, -1))
        cos, sin = (table[:, : packed.shape[-1] // 2] for table in position_embeddings)
        rotate_(packed[:, :2].flatten(1, 2), cos, sin, interleaved=False)
        attended = []
        for start, stop, count in images.runs(cu_seqlens):
            query, key, value = packed[start:stop].unflatten(0, (count, -1)).unbind(2)
            attended.append(attention(query, key, value, attn.scaling).flatten(0, 1).flatten(1))
        y = attn.proj(attended[0] if len(attended) == 1 else torch.cat(attended))
        x, h = layer_norm(hidden_states, norm2.weight, norm2.bias, norm2.eps, y)
        return x + (feed_forward(mlp.linear_fc1, mlp.linear_fc2, h) if tanh_gelu else mlp(h))

    return forward


class _Images:
    """Which patches belong to which image: read from the GPU once a forward, not in each block."""

    def __init__(self) -> None:
        self._bounds: Tensor | None = None
        self._runs: list[tuple[int, int, int]] = []

    def runs(self, bounds: Tensor) -> Iterable[tuple[int, int, int]]:
        """Images of one size that stand side by side attend together: (start, stop, how many images)."""
        if bounds is not self._bounds:
            self._bounds, self._runs, start = bounds, [], 0
            sizes = (stop - begin for begin, stop in pairwise(bounds.tolist()))
            for size, alike in groupby(sizes):
                count = len(list(alike))
                if size:
                    self._runs.append((start, start + size * count, count))
                start += size * count
        return self._runs
