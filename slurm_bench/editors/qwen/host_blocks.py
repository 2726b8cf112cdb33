"""Blocks of a transformer whose weights wait in the host's memory: while one computes, those of the next are copied.

On a GPU, out of pinned memory and by a stream of its own; elsewhere the same code copies in turn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slurm_bench.editors.qwen.waiting import BUFFERS, Waiting
from slurm_bench.logs import log

PIECE = 16 << 20  # torch takes pinned memory in powers of two: in one piece, a block could take twice its size
ALIGNMENT = 256  # bytes, of a weight in its buffer: as the allocator gives them, and kernels may ask for


def stream_blocks(blocks: Iterable[Any], waiting: Waiting, device: str) -> None:
    """Of a transformer's `blocks`, those that are to wait."""
    chosen = [block for number, block in enumerate(blocks) if number in waiting.blocks]
    if chosen:
        HostBlocks(chosen, waiting.apart, torch.device(device))


class HostBlocks:
    """Moves the weights of `blocks`, which run in this order, into the host's memory, and tells each block by its
    `weights_here` where to find them in time: in the device's buffer number n % 2, for good. Parts whose path has a
    name in `apart` are left where they are."""

    def __init__(self, blocks: Sequence[Any], apart: Collection[str], device: torch.device) -> None:
        layouts = [_layout(block, apart) for block in blocks]
        size = max((layout.size for layout in layouts), default=0)
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._buffers = [_Buffer(size, device, stream) for _ in blocks[:BUFFERS]]
        pins = _Pins(device.type == "cuda")
        self._waiting: list[list[Tensor]] = []
        for place, (block, layout) in enumerate(zip(blocks, layouts, strict=True)):
            self._waiting.append(pins.keep(layout.packed()))
            layout.rebind(self._buffers[place % BUFFERS].content)
            block.weights_here = partial(self._here, place)
        for place in range(len(self._buffers)):
            self._bring(place)

    @contextmanager
    def _here(self, place: int) -> Iterator[None]:
        buffer = self._buffers[place % BUFFERS]
        self._bring(place)
        buffer.await_content()
        try:
            yield
        finally:
            buffer.release()
            following = place + BUFFERS
            self._bring(following if following < len(self._waiting) else place % BUFFERS)

    def _bring(self, place: int) -> None:
        """Blocks that are skipped, or a forward that failed, leave another block there than comes next."""
        self._buffers[place % BUFFERS].fill(place, self._waiting[place])


class _Buffer:
    """On the device, with the weights of one block at a time."""

    def __init__(self, size: int, device: torch.device, stream: Any) -> None:
        self.content = torch.empty(size, dtype=torch.uint8, device=device)
        self._stream = stream
        self._holds: int | None = None
        self._filled: Any = None
        self._read: Any = None
        self.release()

    def fill(self, place: int, pieces: Sequence[Tensor]) -> None:
        if self._holds == place:
            return
        self._holds = place
        if self._stream is None:
            self._copy(pieces)
            return
        self._stream.wait_event(self._read)
        with torch.cuda.stream(self._stream):
            self._copy(pieces)
            self._filled = self._stream.record_event()

    def _copy(self, pieces: Sequence[Tensor]) -> None:
        at = 0
        for piece in pieces:
            self.content[at : at + len(piece)].copy_(piece, non_blocking=True)
            at += len(piece)

    def await_content(self) -> None:
        """What is computed from here on finds it there."""
        if self._stream is not None:
            torch.cuda.current_stream(self.content.device).wait_event(self._filled)

    def release(self) -> None:
        """All that reads it has been launched."""
        if self._stream is not None:
            self._read = torch.cuda.current_stream(self.content.device).record_event()


class _Pins:
    """Host memory that a GPU fetches from while it computes; where it can't be had, any host memory."""

    def __init__(self, pin: bool) -> None:
        self._pin = pin

    def keep(self, packed: Tensor) -> list[Tensor]:
        return [self._room(len(part)).copy_(part) for part in packed.split(PIECE)]

    def _room(self, size: int) -> Tensor:
        if self._pin:
            try:
                return torch.empty(size, dtype=torch.uint8, pin_memory=True)
            except RuntimeError as error:
                self._pin = False
                reason = str(error).strip().partition("\n")[0]
                log.warning("weights can't wait in pinned memory, so copies hold up the computation: %s", reason)
        return torch.empty(size, dtype=torch.uint8)


@dataclass(frozen=True)
class _Weight:
    """A parameter or buffer of a module, whose memory begins `offset` bytes into its block's."""

    owner: nn.Module
    name: str
    tensor: Tensor
    offset: int


@dataclass(frozen=True)
class _Layout:
    weights: tuple[_Weight, ...]
    size: int

    def packed(self) -> Tensor:
        content = torch.zeros(self.size, dtype=torch.uint8)
        for weight in self.weights:
            begin, end = _extent(weight.tensor)
            raw = torch.empty(0, dtype=torch.uint8, device=weight.tensor.device)
            raw.set_(weight.tensor.untyped_storage(), begin, (end - begin,), (1,))  # type: ignore[call-overload]
            content[weight.offset : weight.offset + end - begin].copy_(raw)
        return content

    def rebind(self, content: Tensor) -> None:
        """Each module's weights become views of `content`."""
        for weight in self.weights:
            tensor = weight.tensor
            begin, end = _extent(tensor)
            room = content[weight.offset : weight.offset + end - begin].view(tensor.dtype)
            view = room.as_strided(tensor.size(), tensor.stride())
            is_parameter = isinstance(tensor, nn.Parameter)
            setattr(weight.owner, weight.name, nn.Parameter(view, requires_grad=False) if is_parameter else view)


def _layout(block: nn.Module, apart: Collection[str]) -> _Layout:
    """Weights that share memory, as a stacked layer's do with those that it was made of, share it there too."""
    found = [
        (module, name, tensor)
        for path, module in block.named_modules()
        if not set(path.split(".")) & set(apart)
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    ]
    found.sort(key=lambda each: (each[2].untyped_storage().data_ptr(), _extent(each[2])))
    weights, size = [], 0
    storage, first, last, at = None, 0, 0, 0
    for owner, name, tensor in found:
        begin, end = _extent(tensor)
        same = storage == tensor.untyped_storage().data_ptr() and begin < last
        if same:
            last = max(last, end)
        else:
            storage, first, last = tensor.untyped_storage().data_ptr(), begin, end
            at = -(-size // ALIGNMENT) * ALIGNMENT
        weights.append(_Weight(owner, name, tensor, at + begin - first))
        size = at + last - first
    return _Layout(tuple(weights), size)


def _extent(tensor: Tensor) -> tuple[int, int]:
    """Where in its storage a tensor begins and ends, in bytes."""
    elements = 1 + sum((size - 1) * stride for size, stride in zip(tuple(tensor.shape), tensor.stride(), strict=True))
    begin = int(tensor.storage_offset()) * tensor.itemsize
    return begin, begin + int(elements) * tensor.itemsize
