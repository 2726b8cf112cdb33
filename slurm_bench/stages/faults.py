"""What kind of failure an exception is, told without importing torch."""

from __future__ import annotations

import traceback

_POISON = ("cuda error", "cublas_status_execution_failed", "device-side assert", "unspecified launch failure")


def is_out_of_memory(error: BaseException) -> bool:
    return (
        isinstance(error, MemoryError)
        or "OutOfMemory" in type(error).__name__
        or (isinstance(error, RuntimeError) and "out of memory" in str(error).lower())
    )


def is_poisoned(error: BaseException) -> bool:
    """After such an error every further call on this process's GPU fails alike: the task has to end."""
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    return any(sign in str(error).lower() for sign in _POISON)


def drop_frames(error: BaseException | None) -> None:
    """Drop what the frames of an error still hold (activations, say), but keep the lines for the log. Causes may go
    round in a circle: `raise error.__cause__` makes one."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def describe(error: BaseException) -> dict[str, str]:
    """The error field of a record: bounded, for an exception's text may quote a whole image."""
    return {"type": type(error).__name__, "message": " ".join(str(error).split())[:1000]}
