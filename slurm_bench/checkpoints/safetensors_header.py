"""The header of a safetensors file: what it holds, without its weights.

Format: 8 bytes of length, little-endian, then so many bytes of JSON, then the tensors
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

from slurm_bench.errors import UserError

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
            entries = json.loads(stream.read(length))
        metadata = entries.pop("__metadata__", None) or {}
        offsets = [entry["data_offsets"] for entry in entries.values()]
        end = 8 + length + max((stop for _, stop in offsets), default=0)
        tensors = {
            name: TensorInfo(entry["dtype"], tuple(map(int, entry["shape"])), 8 + length + first)
            for (name, entry), (first, _) in zip(entries.items(), offsets, strict=True)
        }
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}; the download is incomplete") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{file}: no safetensors file; download it again") from None
    unknown = sorted({tensor.dtype for tensor in tensors.values()} - set(BITS))
    if unknown:
        raise UserError(f"{file}: holds tensors of a type that isn't known here, {unknown[0]}")
    if size < end:
        raise UserError(f"{file}: cut off at {size} of {end} bytes; download it again")
    return Header(tensors, metadata)
