"""The layers of Qwen3-VL's language model, dense or mixture of experts, by the kernels of `kernels`: between two matrix
products there is one pass over the data. In eager mode these operations take 40 % of the time on an H100.

The model: https://github.com/huggingface/transformers/tree/main/src/transformers/models/qwen3_vl.

Shapes: T tokens of any prompts, H heads (of keys and values fewer: grouped-query attention), C channels of a head, D
channels of a token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from slurm_bench.kernels.ops import linear, rms_norm, rotate_, rows_for, swiglu

# (the layer's attention, query, key, value), each [T, H, C] → [T, D].
Attend = Callable[[Any, Tensor, Tensor, Tensor], Tensor]


class LanguageModel:
    """`text` is transformers' model, which stays as it is."""

    def __init__(self, text: Any) -> None:
        self.layers = text.layers
        self.embed = text.embed_tokens
        self._norm = text.norm
        self._rotary = text.rotary_emb
        self._silu = text.config.hidden_act == "silu"

    def tables(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [T, C / 2] for `positions` [3, T]: time, height, width."""
        cos, sin = (table[0] for table in self._rotary(x[None], positions[:, None]))
        half = cos.shape[-1] // 2
        return cos[:, :half], sin[:, :half]

    def run(
        self,
        layer: Any,
        x: Tensor,
        y: Tensor | None,
        tables: tuple[Tensor, Tensor],
        attend: Attend,
        only: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`x` + `y` is the layer's input, and the sum of the two results is its output, all [T, D]: the next norm adds
        them in its own pass. With `only`, the output of these tokens alone."""
        attn = layer.self_attn
        x, h = _normed(layer.input_layernorm, x, y)
        rows = rows_for(attn.k_proj, h)
        key, value = (
            linear(project, rows).unflatten(-1, (-1, attn.head_dim)) for project in (attn.k_proj, attn.v_proj)
        )
        _rotate(key, attn.k_norm, tables)
        if only is not None:
            x, rows, tables = x[only], rows_for(attn.q_proj, h[only]), (tables[0][only], tables[1][only])
        query = linear(attn.q_proj, rows).unflatten(-1, (-1, attn.head_dim))
        _rotate(query, attn.q_norm, tables)
        x, h = _normed(layer.post_attention_layernorm, x, attend(attn, query, key, value))
        return x, self._feed_forward(layer.mlp, h)

    def final(self, x: Tensor, y: Tensor | None) -> Tensor:
        """What meets the vocabulary."""
        return _normed(self._norm, x, y)[1]

    def _feed_forward(self, mlp: Any, h: Tensor) -> Tensor:
        if self._silu and hasattr(mlp, "gate_proj"):
            return swiglu(mlp.gate_proj, mlp.up_proj, mlp.down_proj, rows_for(mlp.gate_proj, h))
        return mlp(h[None]).view_as(h)


def _normed(norm: Any, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    return rms_norm(x, norm.weight, norm.variance_epsilon, y)


def _rotate(x: Tensor, norm: Any, tables: tuple[Tensor, Tensor]) -> None:
    rotate_(x, *tables, False, norm.weight[None, None], 0, norm.variance_epsilon)
