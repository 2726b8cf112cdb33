"""What kind of failure an exception is, told without importing torch, and what is said of it."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from slurm_bench.errors import FinalError, LostGpu, SampleError, UserError, words_of
from slurm_bench.logs import hide_secrets
from slurm_bench.run.plan import Sample
from slurm_bench.stages.rewriting import RewriteFailed

_OURS = Path(__file__).parent
# All in lower case. cuBLAS and cuDNN say a lack of memory for their workspace in words of their own.
_OUT_OF_MEMORY = ("out of memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed")
_LOST_GPU = (
    "cuda error",
    "hip error",
    "cuda driver error",
    "cuda unknown error",
    "triton error [cuda]",
    "triton error [hip]",
    "cublas_status_execution_failed",
    "cudnn_status_execution_failed",
    "device-side assert",
    "unspecified launch failure",
    "no cuda gpus are available",
    "found no nvidia driver",
    "cudagetdevicecount",
    "error 802",  # the fabric manager isn't ready
)


def is_out_of_memory(error: BaseException) -> bool:
    return (
        isinstance(error, MemoryError)
        or "OutOfMemory" in type(error).__name__
        or (isinstance(error, RuntimeError) and _says(error, _OUT_OF_MEMORY))
    )


def is_poisoned(error: BaseException) -> bool:
    """After such an error every further call on this process's GPU fails alike: the task has to end."""
    if isinstance(error, LostGpu):
        return True
    return isinstance(error, RuntimeError) and not is_out_of_memory(error) and _says(error, _LOST_GPU)


def is_out_of_files(error: BaseException) -> bool:
    """This process, or its node, may open no more files: as good as never a file's own fault."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def is_of_data(error: Exception | None) -> bool:
    """It could not be read; what a rewriter can't do is another matter."""
    return isinstance(error, SampleError) and not isinstance(error, RewriteFailed)


def in_words(error: BaseException) -> bool:
    """Whether its message is all there is to know: it was written for a person, or raised by nobody's code but ours,
    and for no other's error but the storage's, which has its words."""
    if isinstance(error, SampleError | UserError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error.__cause__, OSError | None) and all(Path(f.filename).parent == _OURS for f in frames)


def _says(error: BaseException, signs: Iterable[str]) -> bool:
    text = words_of(error).lower()
    return any(sign in text for sign in signs)


def as_exception(error: BaseException) -> Exception:
    """A panic in a library written in Rust is none."""
    return error if isinstance(error, Exception) else RuntimeError(line_of(error)).with_traceback(error.__traceback__)


def drop_frames(error: BaseException | None) -> None:
    """Drop what the frames of an error still hold (activations, say), but keep the lines for the log. Causes may go
    round in a circle: `raise error.__cause__` makes one."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def describe(error: BaseException) -> dict[str, str]:
    """The error field of a record: bounded, for an exception's text may quote a whole image. That a sample's error is
    final, the record says beside it."""
    kind = SampleError if type(error) is FinalError else type(error)
    return {"type": kind.__name__, "message": " ".join(hide_secrets(words_of(error)).split())[:1000]}


def line_of(error: BaseException) -> str:
    said = describe(error)
    return f"{said['type']}: {said['message']}"


def failed(sample: Sample, error: Exception, tries: int, unread: bool) -> dict[str, Any]:
    """What a record says of a failure; `unread` where the sample's data couldn't be read, so that no plug-in had it."""
    fields = {"status": "error", "error": describe(error), "tries": tries}
    fields |= error.fields if isinstance(error, FinalError) else {}
    fields |= {"final": True} if sample.problem else {}  # the plan has it, and doesn't change
    return fields | ({"unread": True} if unread else {})
