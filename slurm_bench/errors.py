"""The failures that a person meets as one line instead of a traceback, and the exit codes."""

from __future__ import annotations

import errno
import os
import re
from typing import Any

# What to do about a file system's refusal.
_MENDS = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room, or have the quota raised",
    errno.EROFS: "choose a folder that can be written, or have it mounted for writing",
    errno.EACCES: "choose a folder that you may use, or ask for the right to this one",
    errno.EPERM: "choose a folder that you may use, or ask for the right to this one",
    errno.ESTALE: "the file server has lost it: look whether it is still there",
    errno.EIO: "the file system is in trouble: ask who looks after it",
}

COMPLETE, USER_ERROR, USAGE, INCOMPLETE, INTERRUPTED = 0, 1, 2, 3, 130


class UserError(Exception):
    """Bad input: one line that names the file, the field and the mend. Exit code 1."""


class SampleError(Exception):
    """This sample can't be edited or scored (a broken image, an empty instruction); no other is touched."""


class FinalError(SampleError):
    """Another try of the sample would end alike. Its record has `fields` beside the error."""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.fields = {**fields, "final": True}


class LostGpu(Exception):
    """This process was given a GPU and can't use it. No sample's fault: the process ends, others take its samples."""


class ServiceDown(Exception):
    """A service that a plug-in depends on can't be reached: no sample's fault, and worth another task later."""


def words_of(said: object) -> str:
    """Its text, which of a stranger's exception may be one that raises in its turn."""
    try:
        return str(said)
    except Exception:
        return "<exception str() failed>"  # as Python's own tracebacks have it


_PICTURE = re.compile(r"\.(?:png|jpe?g|webp|bmp|tiff?|gif)\b", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")


def alike(text: str, sample_id: str = "") -> str:
    """The same for errors that differ in the file that they are about, the sample's id, or numbers (bytes free,
    addresses). Word by word, as a text may quote a whole image."""
    own = re.sub(rf"(?<!\w){re.escape(sample_id)}(?!\w)", "#", text) if sample_id else text
    return " ".join("#" if "/" in word or _PICTURE.search(word) else _NUMBER.sub("#", word) for word in own.split())


def storage_problem(error: OSError) -> str:
    """One line: which file, what is wrong with it, and the mend."""
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
    mend = _MENDS.get(error.errno or 0)
    return f"{where}{error.strerror or error}{f'; {mend}' if mend else ''}"
