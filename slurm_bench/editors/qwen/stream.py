"""What flows from block to block of a transformer, and the vectors that modulate it there.

Shapes: T tokens, D channels of a token, K kinds of tokens that are modulated apart.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from slurm_bench.kernels.ops import Rows, add_gated, norm_modulate

# The six vectors of a modulation, for attention and then for the MLP: a shift and a scale, and a gate.
ATTENTION, ATTENTION_GATE, MLP, MLP_GATE = slice(0, 2), 2, slice(3, 5), 5


@dataclass(frozen=True)
class Stream:
    """Tokens between two blocks, whose value is x + gate · y, [T, D]. The sum is left to the next norm, which reads
    both anyway. Tokens before `boundary` take the first of the gates [K, D], the others the last."""

    x: Tensor
    boundary: int = 0
    y: Tensor | None = None
    gates: Tensor | None = None

    def sum(self) -> Tensor:
        if self.y is None or self.gates is None:
            return self.x
        return add_gated(self.x, self.y, self.gates, self.boundary)

    def norm(self, modulation: Tensor, part: slice, eps: float, fp8: bool) -> tuple[Tensor, Rows]:
        """The sum, and its LayerNorm under a part of the `modulation` [K, 6, D]."""
        return norm_modulate(self.x, modulation[:, part], self.boundary, eps, fp8, self.y, self.gates)
