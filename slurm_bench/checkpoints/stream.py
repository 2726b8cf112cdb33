"""Safetensors files → tensors on the GPU, through a bounded amount of pinned host memory.

Threads read pieces of the files into pinned buffers, from which the GPU fetches them: faster than the libraries'
own loading (`from_pretrained` copies out of a memory map, page fault by page fault), without holding a model in
the host's memory, and at work while Python imports the model's code. `place.py` makes models of the tensors.
"""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slurm_bench.checkpoints.folder import weight_files
from slurm_bench.checkpoints.safetensors_header import TensorInfo, read_header
from slurm_bench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

# Of pinned host memory there are THREADS * CHUNK bytes, 256 MiB. To read a chunk takes ten times as long as the GPU's
# copy of it, for which a thread waits. On an H100, 57.7 GB from the page cache: 4 threads 18 GB/s, 8 30, 16 42. With
# four, too, most weights arrive before Python has imported the model's code, which more hold up (on an H200, by 0.7 s
# with 6, which the wait for the weights is shorter); and four processes of a node at once make 37 GB/s. safetensors'
# own load_file made 5 GB/s, runai-model-streamer 7, fastsafetensors 24, and instanttensor, which maps all files into
# memory, 48.
THREADS = 4
CHUNK = 64 << 20

# A read of PROBE bytes takes about 20 µs from the page cache, 100 from an NVMe disk, and more than this from storage
# where many readers at once are slower than one.
PROBE = 64 << 10
SLOW_PROBE_SECONDS = 0.4e-3
PROBES = 16

DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
}


@dataclass(frozen=True)
class _Copy:
    """`length` bytes from `start` in a chunk to `offset` in `target`, a tensor's bytes."""

    target: Tensor
    offset: int
    start: int
    length: int


@dataclass(frozen=True)
class _Chunk:
    file: int  # a descriptor
    position: int
    length: int
    copies: tuple[_Copy, ...]
    part: _Part


@dataclass(frozen=True)
class _File:
    """`tensors`, in its order: name, shape, dtype, and where it begins."""

    descriptor: int
    tensors: tuple[tuple[str, tuple[int, ...], Any, int], ...]


class _Part:
    """One model's tensors by name, and how many of its files and chunks are still to come. On `stream`, which was the
    current one where it was asked for, the tensors are made."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.tensors: dict[str, Tensor] = {}
        self.files: list[_File] = []
        self.missing = 0

    def close(self) -> None:
        for file in self.files:
            os.close(file.descriptor)
        self.files.clear()


class WeightStream:
    """`begin` a folder, `take` its tensors: those that were begun first arrive first. Close it: `with` does.

    On a device that is no GPU, `take` reads plainly.
    """

    def __init__(self, device: str, threads: int = THREADS, chunk: int = CHUNK) -> None:
        self.device = device
        self._chunk = chunk
        self._parts: dict[Path, _Part] = {}
        self._tasks: deque[Sequence[_Chunk]] = deque()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._closed = False
        self._room = ThreadPoolExecutor(1, "room")
        self._threads = [threading.Thread(target=self._work, name=f"weights-{n}", daemon=True) for n in range(threads)]

    def __enter__(self) -> WeightStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, folder: Path) -> None:
        """Start to read the weights of this folder. Raises UserError for a file that is none."""
        if not self.device.startswith("cuda"):
            return
        import torch

        paths = weight_files(folder)
        part = self._parts[folder] = _Part(torch.cuda.current_stream(self.device))
        sequential = not quick_to_read(paths)
        for path in paths:
            tensors = sorted(read_header(path).tensors.items(), key=lambda item: item[1].start)
            shapes = tuple((name, info.shape, _dtype(path, info), info.start) for name, info in tensors)
            part.files.append(_File(os.open(path, os.O_RDONLY), shapes))
        part.missing = len(part.files)
        for file in tuple(part.files):
            self._room.submit(self._open, part, file, sequential)
        for thread in self._threads:
            if thread.ident is None:
                thread.start()

    def take(self, folder: Path) -> dict[str, Tensor]:
        """The tensors by name, all of them there. They are the caller's alone."""
        if not self.device.startswith("cuda"):
            return read_plainly(folder)
        part = self._parts[folder]
        with self._changed:
            self._changed.wait_for(lambda: part.missing == 0 or self._error is not None)
        if self._error is not None:
            raise self._error
        part.close()
        return self._parts.pop(folder).tensors

    def close(self) -> None:
        """Leave what is still on its way."""
        with self._changed:
            self._closed = True
            self._tasks.clear()
            self._changed.notify_all()
        self._room.shutdown(cancel_futures=True)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        for part in self._parts.values():
            part.close()
        self._parts.clear()

    def _open(self, part: _Part, file: _File, sequential: bool) -> None:
        """In a thread of its own, as the driver takes a good part of a second for all of them. In their order."""
        try:
            chunks = self._make_room(part, file)
        except BaseException as error:
            self._failed(error)
            return
        with self._changed:
            part.missing += len(chunks) - 1
            if not self._closed:
                self._tasks.extend([chunks] if sequential else [[chunk] for chunk in chunks])
            self._changed.notify_all()

    def _make_room(self, part: _Part, file: _File) -> Sequence[_Chunk]:
        """For a file's tensors on the GPU; and the chunks to fill it with."""
        import torch

        targets = []
        with torch.cuda.stream(part.stream):
            # One large block, which the allocator then hands out in pieces: one request to the driver, not hundreds.
            torch.empty(os.fstat(file.descriptor).st_size, dtype=torch.uint8, device=self.device)
            for name, shape, dtype, start in file.tensors:
                tensor = part.tensors[name] = torch.empty(shape, dtype=dtype, device=self.device)
                if tensor.nbytes:
                    targets.append((tensor.reshape(-1).view(torch.uint8), start, start + tensor.nbytes))
        # What was freed there may still be in use by kernels under way.
        part.stream.synchronize()
        cut = _cut(targets, self._chunk)
        return [_Chunk(file.descriptor, begin, end - begin, copies, part) for begin, end, copies in cut]

    def _work(self) -> None:
        import torch

        try:
            with torch.cuda.device(self.device), torch.cuda.stream(stream := torch.cuda.Stream()):
                buffer = torch.empty(self._chunk, dtype=torch.uint8, pin_memory=True)
                while (chunks := self._next_task()) is not None:
                    for chunk in chunks:
                        if self._closed:
                            return
                        _bring(chunk, buffer, stream)
                        self._arrived(chunk)
        except BaseException as error:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def _next_task(self) -> Sequence[_Chunk] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or self._closed)
            return self._tasks.popleft() if self._tasks else None

    def _arrived(self, chunk: _Chunk) -> None:
        with self._changed:
            chunk.part.missing -= 1
            if chunk.part.missing == 0:
                self._changed.notify_all()


def _bring(chunk: _Chunk, buffer: Tensor, stream: Any) -> None:
    """Through a pinned buffer, on the current CUDA stream. Whatever happens, when this is left the GPU reads and writes
    nothing more: what is freed then may be another's."""
    read_exactly(chunk.file, memoryview(buffer.numpy().data)[: chunk.length], chunk.position)
    try:
        for copy in chunk.copies:
            target = copy.target[copy.offset : copy.offset + copy.length]
            target.copy_(buffer[copy.start : copy.start + copy.length], non_blocking=True)
    finally:
        # Not by an event: to record one asks for the driver's lock with Python's held, and the driver is busy with the
        # memory that another thread asks for.
        stream.synchronize()


def read_plainly(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        tensors |= load_file(file)
    return tensors


def quick_to_read(files: Sequence[Path]) -> bool:
    """Whether these files are in the page cache or on a disk as quick: many reads at once pay there. Slow storage,
    such as a network's, is read from each file's beginning to its end, which the kernel then reads ahead of us."""
    taken = []
    for number in range(PROBES):
        with files[number % len(files)].open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            # Elsewhere each time: what was read once is in the cache.
            position = random.randrange(max(1, size - PROBE))
            begin = time.perf_counter()
            os.pread(file.fileno(), PROBE, position)
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken) < SLOW_PROBE_SECONDS


def read_exactly(file: int, buffer: memoryview, position: int) -> None:
    """Fill the buffer. Raises OSError where the file ends before it."""
    while buffer:
        count = os.preadv(file, [buffer], position)
        if count == 0:
            raise OSError(f"a file of weights ends at {position} bytes: it was changed while it was read")
        buffer, position = buffer[count:], position + count


def _dtype(path: Path, info: TensorInfo) -> Any:
    """Raises UserError."""
    import torch

    dtype = getattr(torch, DTYPES.get(info.dtype, ""), None)
    if dtype is None:
        raise UserError(f"{path}: tensors of type {info.dtype} can't be loaded")
    return dtype


def _cut(targets: Sequence[tuple[Tensor, int, int]], size: int) -> Iterator[tuple[int, int, tuple[_Copy, ...]]]:
    """A file in chunks of at most `size`: begin and end, and what goes where. `targets`: a tensor's bytes, and their
    begin and end in the file, in order and without a gap, as the format has it."""
    copies: list[_Copy] = []
    begin = place = targets[0][1] if targets else 0
    for target, first, last in targets:
        while place < last:
            length = min(last, begin + size) - place
            copies.append(_Copy(target, place - first, place - begin, length))
            place += length
            if place == begin + size:
                yield begin, place, tuple(copies)
                begin, copies = place, []
    if copies:
        yield begin, place, tuple(copies)
