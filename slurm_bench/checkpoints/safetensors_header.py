"""The header of a safetensors file: what it holds, without its weights.

Format: 8 bytes of length, little-endian, then so many bytes of JSON, then the tensors
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm_bench.errors import UserError

MAX_LENGTH = 100_000_000  # of a header, as the format's own library has it
LFS_POINTER = b"version https://git-lfs"
BITS = {
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "F32": 32,
    "I32": 32,
    "U32": 32,
    "F16": 16,
    "BF16": 16,
    "I16": 16,
    "U16": 16,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "I8": 8,
    "U8": 8,
    "BOOL": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}


@dataclass(frozen=True)
class TensorInfo:
    """`dtype` as safetensors calls it: F32, BF16, F8_E4M3, …; `start` is the first of its bytes in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int = 0

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def read_header(file: Path) -> Header:
    """Raises UserError if the file is missing, foreign, or cut off."""
    try:
        with file.open("rb") as stream:
            start = stream.read(8)
            if start and LFS_POINTER.startswith(start):
                raise UserError(f"{file}: a git-lfs pointer, not the weights; run 'git lfs pull'")
            length = int.from_bytes(start, "little")
            size = os.fstat(stream.fileno()).st_size
            if len(start) < 8 or length > size:
                raise UserError(f"{file}: no safetensors file, or cut off; download it again")
            if length > MAX_LENGTH:
                raise ValueError("the format has no header as long")
            entries = json.loads(stream.read(length))
        metadata = entries.pop("__metadata__", None) or {}
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("metadata are texts")
        tensors, end = _tensors(file, entries, 8 + length)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}; the download is incomplete") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{file}: no safetensors file; download it again") from None
    if size < end:
        raise UserError(f"{file}: cut off at {size} of {end} bytes; download it again")
    if size > end:
        raise UserError(f"{file}: goes on behind its tensors, for {size - end} bytes; download it again")
    return Header(tensors, metadata)


def _tensors(file: Path, entries: Mapping[str, Any], begin: int) -> tuple[dict[str, TensorInfo], int]:
    """What a header tells of, from `begin` on in the file, and where the last ends. Raises ValueError and the like
    unless each has the bytes of its shape, and they stand side by side: who streams them trusts that."""
    tensors, place = {}, begin
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if isinstance(dtype, str) and dtype not in BITS:
            raise UserError(f"{file}: holds tensors of a type that isn't known here, {dtype!r}")
        if not all(type(number) is int and number >= 0 for number in (*shape, first, last)):
            raise ValueError("sizes are whole numbers")
        tensor = TensorInfo(dtype, shape, begin + first)
        if tensor.start != place or (last - first) * 8 != tensor.parameters * BITS[dtype]:
            raise ValueError("not side by side, or not of their shape's size")
        tensors[name], place = tensor, begin + last
    return tensors, place
