"""Prompts that begin alike, packed so that what they share goes through the model once: the rubric that all begin with,
the images of one sample whose aspects are asked apart, the source of several edits.

A token is its id, or below zero a row of the images' features, of which -1 is the first. So tokens are equal where the
model sees the same, and what prompts share may reach past images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# Lengths are multiples of this but where all prompts share text: attention kernels are planned once for each length.
LENGTH_STEP = 64


@dataclass(frozen=True)
class Segment:
    """`rows` runs of `width` tokens each, from `start` on among the packed. A run follows the packed tokens of `path`,
    and sees them and itself up to each token. `prompts` end with these runs, in this order; without any, other segments
    follow this one."""

    start: int
    rows: int
    width: int
    path: tuple[slice, ...]
    prompts: tuple[int, ...] = ()

    @property
    def tokens(self) -> slice:
        return slice(self.start, self.start + self.rows * self.width)

    @property
    def before(self) -> int:
        """How many tokens a run follows."""
        return sum(part.stop - part.start for part in self.path)


@dataclass(frozen=True)
class Packing:
    """`order` says for each packed token which it is of all prompts' tokens, one prompt after another: runs that end
    before their segment repeat their last. `last` is where each prompt's last token is packed."""

    segments: tuple[Segment, ...]
    order: np.ndarray
    last: tuple[int, ...]
    lengths: tuple[int, ...]


def pack(prompts: Sequence[np.ndarray]) -> Packing:
    return _Packer(prompts).packing()


class _Packer:
    def __init__(self, prompts: Sequence[np.ndarray]) -> None:
        self._prompts = prompts
        self._lengths = tuple(map(len, prompts))
        self._offsets = np.cumsum([0, *self._lengths])
        self._segments: list[Segment] = []
        self._order: list[np.ndarray] = []
        self._size = 0
        self._last = [0] * len(prompts)

    def packing(self) -> Packing:
        self._branch(range(len(self._prompts)), 0, ())
        return Packing(tuple(self._segments), np.concatenate(self._order), tuple(self._last), self._lengths)

    def _branch(self, members: Sequence[int], begin: int, path: tuple[slice, ...]) -> None:
        """Pack `members`, which share what is before `begin`: what they share from there on, then what they don't."""
        end = self._shared(members, begin)
        if end > begin:
            path = (*path, self._add(members[:1], begin, end - begin, path, ends=False))
        alone = defaultdict(list)
        for group in self._alike(members, end):
            if len(group) > 1:
                self._branch(group, end, path)
            else:
                alone[-self._lengths[group[0]] // LENGTH_STEP].extend(group)
        for steps, ending in alone.items():
            self._add(ending, end, -steps * LENGTH_STEP - end, path, ends=True)

    def _shared(self, members: Sequence[int], begin: int) -> int:
        """Where the prompts' common beginning ends. A prompt's last token is never in it, for its output is wanted."""
        if len(members) == 1:
            return begin
        stop = min(self._lengths[member] for member in members) - 1
        rows = np.stack([self._prompts[member][begin:stop] for member in members])
        differ = (rows != rows[0]).any(axis=0)
        end = begin + int(differ.argmax()) if differ.any() else stop
        if (self._prompts[members[0]][:end] < 0).any():
            end -= end % LENGTH_STEP
        return max(end, begin)

    def _alike(self, members: Sequence[int], end: int) -> Iterator[list[int]]:
        """Groups whose next tokens are the same, of as many as are worth a segment."""
        groups = defaultdict(list)
        for member in members:
            following = self._prompts[member][end : end + LENGTH_STEP]
            whole = self._lengths[member] > end + LENGTH_STEP
            groups[following.tobytes() if whole else member].append(member)
        yield from groups.values()

    def _add(self, members: Sequence[int], begin: int, width: int, path: tuple[slice, ...], ends: bool) -> slice:
        segment = Segment(self._size, len(members), width, path, tuple(members) if ends else ())
        for row, member in enumerate(members):
            places = np.arange(begin, begin + width).clip(max=self._lengths[member] - 1)
            self._order.append(self._offsets[member] + places)
            if ends:
                self._last[member] = self._size + row * width + self._lengths[member] - 1 - begin
        self._segments.append(segment)
        self._size = segment.tokens.stop
        return segment.tokens
