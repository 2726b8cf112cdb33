"""The failures that a person meets as one line instead of a traceback, and the exit codes."""

from __future__ import annotations

COMPLETE, USER_ERROR, USAGE, INCOMPLETE, INTERRUPTED = 0, 1, 2, 3, 130


class UserError(Exception):
    """Bad input: one line that names the file, the field and the mend. Exit code 1."""


class SampleError(Exception):
    """This sample can't be edited or scored (a broken image, an empty instruction); no other is touched."""


class LostGpu(Exception):
    """This process was given a GPU and can't use it. No sample's fault: the process ends, others take its samples."""


class ServiceDown(Exception):
    """A service that a plug-in depends on can't be reached: no sample's fault, and worth another task later."""
