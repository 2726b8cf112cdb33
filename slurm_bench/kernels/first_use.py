"""Libraries and kernels ready when a model is: in a thread beside the imports and the weights.

What CUDA's and Triton's libraries do when they are first used, once a process, takes a second: to load cuBLAS and
cuDNN, and to hash all of Triton for the names of its kernels. They hold Python's lock seldom meanwhile. The kernels of
a model are built once a machine, by compilers, which don't hold it either.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm_bench.logs import log

SIDE, CHANNELS = 64, 16  # of what the libraries are used on


@dataclass(frozen=True)
class Kernels:
    """`build` runs each kernel of a model's first step as the model does; `name` tells them from other models'."""

    name: str
    build: Callable[[], object]


@contextmanager
def first_use(device: str, kernels: Kernels | None = None) -> Iterator[None]:
    """In a thread, which is over when this is left in order; on a device that is no GPU, nothing. Kernels that were
    built here before aren't run: that would only hold the imports up, but for what their libraries do."""
    if not device.startswith("cuda"):
        yield
        return
    hash_triton: Callable[[], Any] | None = None
    with suppress(Exception):  # who needs Triton meets it again, and a model that needs none is loaded
        # Imported here, as two threads that import the same could wait for each other.
        from triton.runtime import cache

        hash_triton = getattr(cache, "triton_key", None)
    thread = threading.Thread(target=_in_thread, args=(device, hash_triton, kernels), name="first use", daemon=True)
    thread.start()
    yield
    thread.join()


def _in_thread(device: str, hash_triton: Callable[[], Any] | None, kernels: Kernels | None) -> None:
    try:
        built = None if kernels is None else _mark(kernels)
        if kernels is not None and built is not None and not built.exists():
            _build(device, kernels)
            with suppress(OSError):
                built.touch()
            return
        use_libraries(device, "bfloat16")
        if hash_triton is not None:
            hash_triton()
    except Exception as error:  # whatever it is, the first sample meets it again
        log.warning("libraries and kernels could not be made ready: %s: %s", type(error).__name__, error)


def _mark(kernels: Kernels) -> Path | None:
    """A file that is there once they are built, beside what Triton keeps of them: by this Triton, of these sources, for
    such a GPU. None where there is no Triton to build them."""
    try:
        import torch
        import triton
    except Exception:
        return None
    digest = hashlib.sha256(f"{triton.__version__} {torch.cuda.get_device_capability()}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    folder = Path(os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache")
    return folder / f"slurm_bench-{kernels.name}-{digest.hexdigest()[:12]}"


def _build(device: str, kernels: Kernels) -> None:
    others = threading.Thread(target=_use_and_count, args=(device,), name="first product", daemon=True)
    others.start()
    kernels.build()
    others.join()


def _use_and_count(device: str) -> None:
    """The libraries, and how a text encoder counts a picture's tokens: torch compiles such a product, for 2 s."""
    import torch

    with suppress(Exception):  # who needs them meets it again
        use_libraries(device, "bfloat16")
        torch.ones((1, 3), dtype=torch.int64, device=device).prod(-1)


def use_libraries(device: str, dtype: str) -> None:
    """A product, an attention and convolutions, of almost nothing."""
    import torch
    from torch.nn import functional

    def zeros(*shape: int) -> Any:
        return torch.zeros(shape, device=device, dtype=getattr(torch, dtype))

    with torch.no_grad():
        functional.linear(zeros(SIDE, SIDE), zeros(SIDE, SIDE), zeros(SIDE))
        functional.scaled_dot_product_attention(*[zeros(1, 1, SIDE, SIDE)] * 3)
        functional.conv2d(zeros(1, CHANNELS, SIDE, SIDE), zeros(CHANNELS, CHANNELS, 3, 3))
        functional.conv3d(zeros(1, CHANNELS, 1, SIDE, SIDE), zeros(CHANNELS, CHANNELS, 1, 3, 3))
