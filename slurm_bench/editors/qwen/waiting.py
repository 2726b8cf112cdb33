"""Which parts of a transformer wait in the host's memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

from slurm_bench.errors import UserError

BLOCK = re.compile(r"transformer_blocks\.(\d+)(?:\.|$)")
BUFFERS = 2  # on the device, for the blocks that are copied there: one is read while the other is filled
OUTLIERS = "exact"  # of an OutlierLinear: its weight in 16 bits, which is read once a sample


@dataclass(frozen=True)
class Waiting:
    """`parts` are names of modules, whatever block they are in, that wait and come when they are used. `blocks` are
    numbers of blocks that are copied to the device each time they run (`host_blocks`); what is `apart` there, as it
    is seldom used, never goes with them."""

    parts: frozenset[str] = frozenset()
    blocks: frozenset[int] = frozenset()
    apart: frozenset[str] = frozenset()

    def has(self, name: str) -> bool:
        """Of the module, or a tensor, with this name in the transformer."""
        path = set(name.split("."))
        if path & (self.parts | self.apart):
            return bool(path & self.parts)
        block = BLOCK.match(name)
        return block is not None and int(block[1]) in self.blocks


def spread(count: int, blocks: int) -> frozenset[int]:
    """Which of the `blocks` are copied each time they run, if `count` are: as far from each other as can be, since the
    copy of one goes on while those before it compute. Raises UserError for more than there are."""
    if count > blocks:
        raise UserError(f"'editor.params.stream_blocks': {count}, but the transformer has {blocks} blocks")
    return frozenset(place * blocks // count for place in range(count))
