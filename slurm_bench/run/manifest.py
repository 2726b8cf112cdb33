"""Manifests: the files of records, one a process. They only ever grow: what was read of one needn't be read again."""

from __future__ import annotations

import re
from abc import ABCMeta
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from slurm_bench.errors import alike
from slurm_bench.run.durable import json_line, parse_line
from slurm_bench.run.shapes import Count, Failure, Number, Seconds, Time, fits

Record = Mapping[str, Any]

# Bytes that are read at a time.
BLOCK = 1 << 18

_NAME = re.compile(r"(\d+)-(\d+)(?:-r(\d+))?\.jsonl")


class _Meta(type(msgspec.Struct), ABCMeta):  # type: ignore[misc] # mypy: a metaclass by its instance
    """A struct that is a Mapping too."""


class OkRecord(msgspec.Struct, Mapping[str, Any], metaclass=_Meta, gc=False, eq=False, tag_field="status", tag="ok"):
    """The record of a sample that came right. What is decided by or asked of every sample is kept in memory, a tenth of
    what the whole line would take there; the rest is read from its file when it is asked for. Of a manifest that isn't
    `whole` what is kept is half of that again."""

    status: ClassVar[str] = "ok"
    id: str
    seconds: Seconds | UnsetType = UNSET
    time: Time | UnsetType = UNSET
    attempt: Number | UnsetType = UNSET
    task: Number | UnsetType = UNSET
    by: str | UnsetType = UNSET
    scorer: str | UnsetType = UNSET
    sha256: str | UnsetType = UNSET
    source_sha256: str | list[str] | UnsetType = UNSET
    edit_sha256: str | UnsetType = UNSET
    image: str | UnsetType = UNSET
    bytes: Count | UnsetType = UNSET
    scores: Raw | UnsetType = UNSET
    unchanged: bool | UnsetType = UNSET
    largest_change: int | UnsetType = UNSET
    info: Raw | UnsetType = UNSET
    # Where its line stands; whatever a line says under these names is overwritten.
    manifest: Any = msgspec.field(name="@manifest", default=None)
    at: int = msgspec.field(name="@at", default=0)

    def get(self, name: str, default: Any = None) -> Any:
        value = getattr(self, name) if name in _KEPT else _IN_FILE
        if value is UNSET:
            return default
        if value is _IN_FILE:
            return self._line().get(name, default)
        return _OF_BYTES[name](bytes(value)) if type(value) in (bytes, Raw) else value

    def pack(self) -> None:
        """For who keeps a whole one: a Raw has all of its line with it, and a hash needs half of its text's room."""
        if self.image is not _IN_FILE:
            self.scores, self.info = _kept(self.scores), _kept(self.info)
            self.sha256, self.source_sha256 = packed(self.sha256), packed(self.source_sha256)

    def __getitem__(self, name: str) -> Any:
        value = getattr(self, name) if name in _PLAIN else _IN_FILE
        if value is UNSET or (value is _IN_FILE and (value := self.get(name, UNSET)) is UNSET):
            raise KeyError(name)
        return value

    def __contains__(self, name: Any) -> bool:
        value = getattr(self, name) if name in _KEPT else _IN_FILE
        return name in self._line() if value is _IN_FILE else value is not UNSET

    def __iter__(self) -> Iterator[str]:
        return iter(self._line())

    def __len__(self) -> int:
        return len(self._line())

    def __bool__(self) -> bool:
        return True

    def _line(self) -> dict[str, Any]:
        """Nothing of one that has a number which is none (1e999) under a name that isn't kept."""
        row = parse_line(self.manifest.line(self.at))
        return row if isinstance(row, dict) else {}


_IN_FILE: Any = None  # the value of a field that is kept, but not of this record
_SCORES = msgspec.json.Decoder(dict[str, float])
_TEXTS: Mapping[str, Callable[[bytes], Any]] = {"scores": _SCORES.decode, "info": parse_line}
_OF_BYTES = {**_TEXTS, **dict.fromkeys(("sha256", "source_sha256", "edit_sha256"), bytes.hex)}
_KEPT = frozenset({"status", *OkRecord.__struct_fields__}) - {"manifest", "at"}
_PLAIN = _KEPT - _OF_BYTES.keys()
_NO_INFO = b"{}"
_NAMES_OR_NULL = (b"{", b"n")  # what an `info` begins with; another isn't one (see Failure)
_DECODER = msgspec.json.Decoder(OkRecord)


class Manifest:
    """One file, read as it grows. `key` orders them: attempt, task, and the process's number among the task's. Who only
    counts needn't have it `whole`: what each record holds is looked at, and the long of it not kept."""

    def __init__(self, path: Path, key: tuple[int, ...], whole: bool = True) -> None:
        self.path, self.key, self.read, self._whole = path, key, 0, whole
        self._errors: list[dict[str, Any]] | None = []  # None once something came right

    def news(self) -> tuple[list[OkRecord], list[dict[str, Any]]]:
        """The whole records that were added since, those that came right and those that failed. A last line that is
        torn is looked at again. Where the process failed on several samples, and on all in the same way, each of its
        failures says `systematic`: they are no property of the samples. Raises OSError."""
        done: list[OkRecord] = []
        errors: list[dict[str, Any]] = []
        with open(self.path, "rb", buffering=BLOCK) as file:
            file.seek(self.read)
            for line in file:
                record = _parse(line)
                if type(record) is OkRecord:
                    record.manifest, record.at = self, self.read
                    if not self._whole:
                        record.image = record.bytes = record.scores = record.info = _IN_FILE
                    done.append(record)
                elif type(record) is dict:
                    errors.append(record)
                elif not line.endswith(b"\n"):
                    break
                self.read += len(line)
        if done or self._errors is None:
            _mark_systematic(self._errors or [], True)
            self._errors = None
        else:
            self._errors += errors
            _mark_systematic(self._errors, False)
        return done, errors

    def line(self, at: int) -> bytes:
        """Raises OSError."""
        with open(self.path, "rb") as file:
            file.seek(at)
            return file.readline()


def info_of(record: Record | None) -> Mapping[str, Any]:
    """What the plug-in noted of a sample, its `info`; {} where it noted nothing."""
    info = None if record is None else record.get("info")
    return info if type(info) is dict else {}


def read_manifest(file: Path) -> list[Record]:
    """The whole records of one process, in full; a failure says `systematic` as above."""
    rows = [row for line in file.read_bytes().split(b"\n") if line and (row := _whole(parse_line(line))) is not None]
    _mark_systematic([row for row in rows if row["status"] == "error"], any(row["status"] == "ok" for row in rows))
    return list(rows)


def manifest_key(name: str) -> tuple[int, ...] | None:
    """Attempt, task and restart, of a manifest's name; None where it isn't any (`._001-0003.jsonl`)."""
    match = _NAME.fullmatch(name)
    return tuple(int(number or 0) for number in match.groups()) if match else None


def attempt_of(manifest: Path) -> int:
    """The number of the attempt that it is of, by its name; 0 where that isn't one of a manifest."""
    return (manifest_key(manifest.name) or (0,))[0]


def failure_kind(error: Mapping[str, str]) -> tuple[str, str]:
    """How it failed, less what differs from one time, or one sample, to the next."""
    return str(error.get("type")), alike(str(error.get("message")))


def packed(sha256: Any) -> Any:
    """In half of the room; what is no sha256, or several, stays as it is."""
    if type(sha256) is not str or len(sha256) != 64:
        return sha256
    try:
        found = bytes.fromhex(sha256)
    except ValueError:
        return sha256
    return found if found.hex() == sha256 else sha256


def unpacked(sha256: Any) -> Any:
    return sha256.hex() if type(sha256) is bytes else sha256


def _kept(text: Raw | UnsetType) -> Any:
    if text is UNSET:
        return text
    kept = bytes(text)
    return _NO_INFO if kept == _NO_INFO else kept


def _parse(line: bytes) -> OkRecord | dict[str, Any] | None:
    """None where it is no whole record."""
    try:
        record = _DECODER.decode(line)
        if record.scores is not UNSET:
            _SCORES.decode(record.scores)
    except (msgspec.MsgspecError, RecursionError):  # a failure, torn, or what only the other parser takes
        row = _whole(parse_line(line))
        if row is None or row["status"] == "error":
            return row
        return msgspec.convert(row | {name: Raw(json_line(row[name])) for name in _TEXTS if name in row}, OkRecord)
    if record.info is not UNSET and bytes(record.info)[:1] not in _NAMES_OR_NULL:
        return None
    image = record.sha256 is not UNSET and record.image is not UNSET
    return record if image or record.scores is not UNSET else None


def _whole(row: Any) -> dict[str, Any] | None:
    if not isinstance(row, dict) or not isinstance(row.get("id"), str):
        return None
    if row.get("status") == "ok":
        plain = {name: value for name, value in row.items() if name not in _TEXTS}
        scored = "scores" in row and fits(row["scores"], dict[str, float])
        whole = fits(plain, OkRecord) and (scored or ("scores" not in row and row.keys() >= {"sha256", "image"}))
        whole = whole and isinstance(row.get("info"), dict | None)
    else:
        whole = row.get("status") == "error" and fits(row, Failure)
    return row if whole else None


def _mark_systematic(errors: list[dict[str, Any]], any_ok: bool) -> None:
    alike = not any_ok and len({failure_kind(row["error"]) for row in errors}) == 1
    systematic = alike and len({row["id"] for row in errors}) > 1
    for row in errors:
        if systematic:
            row["systematic"] = True
        else:
            row.pop("systematic", None)
