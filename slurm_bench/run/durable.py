"""Writes that survive a kill, a full disk and a network file system."""

from __future__ import annotations

import errno
import json
import math
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import msgspec

_HOST = socket.gethostname()
_ENCODER = json.JSONEncoder(allow_nan=False)  # json.dumps makes one a call
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def write_atomic(path: Path, data: bytes) -> None:
    """Readers see the old file or the whole new one. The folder is made if need be. Raises OSError."""
    with writing(path) as file:
        file.write(data)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """What `write_atomic` does for content that is written bit by bit: the file is there once the block is left without
    an error. Raises OSError."""
    with _beside(path) as file:
        yield file
    try:
        os.replace(file.name, path)
        _sync_folder(_folder_of(path))
    except OSError:
        with suppress(OSError):
            os.unlink(file.name)
        raise


def move_into(folder: Path, place: Path) -> None:
    """All that is in `folder`, to `place`; what is there of the same name is replaced. Raises OSError."""
    try:
        os.rename(folder, place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        for file in [path for path in folder.rglob("*") if path.is_file()]:
            target = place / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)


def create_once(path: Path, data: bytes, first: Callable[[], None] = lambda: None) -> bool:
    """True for the one caller, of all hosts, that made `path`; False where it was there already. `first` is called when
    the data is on disk, and there as soon as it returns. Raises OSError.

    A link to a whole temporary file is atomic on NFS too; a rename would overwrite, and claim nothing. Where the answer
    to a link was lost, NFS asks again and is told that the file exists: that the temporary file has two links tells the
    winner. A file system without hard links gets the file by exclusive creation, which readers may see half written.
    """
    with _beside(path) as file:
        file.write(data)
    temporary = Path(file.name)
    try:
        first()
        try:
            os.link(temporary, path)
        except FileExistsError:
            if os.stat(temporary).st_nlink < 2:
                return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _create_exclusively(path, data)
    finally:
        with suppress(OSError):  # whether the claim holds is decided by then
            temporary.unlink(missing_ok=True)
    _sync_folder(_folder_of(path))
    return True


def _create_exclusively(path: Path, data: bytes) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    try:
        with _named(path), open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:  # an empty claim would block everybody
        with suppress(OSError):
            path.unlink()
        raise
    _sync_folder(_folder_of(path))
    return True


class LineWriter:
    """Appends JSON lines to a file of its own; each is on disk when `write` returns. Raises OSError, FileExistsError
    where the file is there already, unless it was `reserved`: made before, for this process."""

    def __init__(self, path: Path, reserved: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = open(path, "ab" if reserved else "xb", buffering=0)  # noqa: SIM115 (closed by close)
        if not reserved:
            _sync_folder(_folder_of(path))

    def write(self, value: dict[str, Any]) -> None:
        line = json_line(value)
        with _named(self._path):
            written = self._file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes could be written")
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def json_line(value: Any) -> bytes:
    """One line of ASCII JSON; NaN is refused, for it isn't JSON."""
    return (_ENCODER.encode(value) + "\n").encode()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole JSON objects of a file of lines. What a kill tore is passed over."""
    rows = []
    for line in path.read_bytes().split(b"\n"):
        row = parse_line(line) if line else None
        if isinstance(row, dict):
            rows.append(row)
    return rows


def parse_line(line: bytes) -> Any:
    """The JSON of a line, None where it isn't any. msgspec takes a fifth of the time and refuses some that `json_line`
    writes (half of a character in a judge's reply)."""
    try:
        return msgspec.json.decode(line)
    except (msgspec.MsgspecError, RecursionError):
        try:
            return json.loads(line, parse_constant=_refuse, parse_float=_finite)
        except (ValueError, RecursionError):
            return None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


@contextmanager
def _beside(path: Path) -> Iterator[BinaryIO]:
    """A temporary file, which is whole and on disk once the block is left without an error."""
    name = os.path.basename(path)
    temporary = f"{_folder_of(path)}/.{name[:120]}.{_HOST}-{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        with _named(path, temporary), _made(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _made(path: str) -> BinaryIO:
    """The file, and if need be its folder, which for most is there: to ask costs as much as to open."""
    try:
        return open(path, "wb")
    except FileNotFoundError:
        os.makedirs(_folder_of(path), exist_ok=True)
        return open(path, "wb")


def _folder_of(path: str | Path) -> str:
    return os.path.dirname(path) or "."


@contextmanager
def _named(path: Path, temporary: str | None = None) -> Iterator[None]:
    """A write that fails doesn't say by itself to which file it went."""
    try:
        yield
    except OSError as error:
        if error.filename in (None, temporary):
            error.filename = str(path)
        raise


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems refuse to sync a folder; the file itself is synced
    finally:
        os.close(descriptor)
