"""What CUDA's and Triton's libraries do when they are first used, once a process: to load cuBLAS and cuDNN, and to hash
all of Triton for the names of its kernels. That is a second, for which they hold Python's lock seldom: in a thread it
passes beside the imports."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from slurm_bench.logs import log

SIDE, CHANNELS = 64, 16  # of what they are used on


@contextmanager
def first_use(device: str) -> Iterator[None]:
    """In a thread, which is over when this is left in order. On a device that is no GPU, nothing."""
    if not device.startswith("cuda"):
        yield
        return
    hash_triton: Callable[[], Any] | None = None
    with suppress(Exception):  # who needs Triton meets it again, and a model that needs none is loaded
        # Imported here, as two threads that import the same could wait for each other.
        from triton.runtime import cache

        hash_triton = getattr(cache, "triton_key", None)
    thread = threading.Thread(target=_in_thread, args=(device, hash_triton), name="first use", daemon=True)
    thread.start()
    yield
    thread.join()


def _in_thread(device: str, hash_triton: Callable[[], Any] | None) -> None:
    try:
        use_libraries(device, "bfloat16")
        if hash_triton is not None:
            hash_triton()
    except Exception as error:  # whatever it is, the first sample meets it again
        log.warning("libraries could not be loaded ahead: %s: %s", type(error).__name__, error)


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
