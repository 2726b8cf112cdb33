"""What the files of a run hold, as far as anything hangs on it. They lie on shared storage for years: a line that
doesn't fit is passed over like a torn one, whoever wrote it, so that what reads the lines needn't doubt each field."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

Time = Annotated[float, Meta(ge=0, lt=1e11)]  # seconds since the epoch, of which a calendar can be made
LONGEST = 1e11
Seconds = Annotated[float, Meta(gt=-LONGEST, lt=LONGEST)]  # a clock may have been set back
Count = Annotated[int, Meta(ge=0, le=2**53)]
Number = Annotated[int, Meta(ge=0, lt=10**9)]  # of an attempt or a task
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]  # what a column of a table holds
Pid = Annotated[int, Meta(ge=0, lt=2**31)]


# What is raised where a row is made one of these that it isn't. Half a character among its names is none of msgspec's.
UNFIT = (msgspec.MsgspecError, UnicodeError, RecursionError)


class Event(msgspec.Struct):
    """One line of a journal."""

    event: str
    time: Time = 0.0
    began: Time = 0.0
    held: Time | None = None
    node: str = ""
    job: str | None = None
    gpus: list[dict[str, str]] = []
    name: str = ""
    begin: Time = 0.0
    seconds: Seconds = 0.0
    peak: Count = 0
    took: Seconds = 0.0
    how: str = ""
    message: str = ""
    ok: Count = 0
    failed: Count = 0
    code: Annotated[int, Meta(gt=-128, lt=256)] | None = None


class Hand(msgspec.Struct):
    """What a process has in hand."""

    plugin: str
    ids: tuple[str, ...]
    time: Time = 0.0


class Failure(msgspec.Struct):
    """A record with an error."""

    id: str
    error: dict[str, Any]
    seconds: Seconds = 0.0
    time: Time = 0.0
    attempt: Number = 0
    task: Number = 0
    by: str | None = None
    scorer: str | None = None
    host: str = ""
    node: str = ""
    info: dict[str, Any] | None = None


class Lost(msgspec.Struct):
    """An edited image that is no more, by its record; without a time, of the records that have none."""

    id: str
    edit_time: Time | None


class Git(msgspec.Struct):
    revision: str = ""


class PlanHash(msgspec.Struct, frozen=True):
    sha256: str | UnsetType = UNSET


class Provenance(msgspec.Struct):
    time: Time | UnsetType = UNSET
    config: str = ""
    by: dict[str, str] = {}
    plan: PlanHash = PlanHash()
    models: dict[str, dict[str, Any]] = {}
    makers: dict[str, dict[str, Any]] = {}
    packages: dict[str, str] = {}
    scores: dict[str, dict[str, Any]] = {}
    protocols: dict[str, dict[str, Any]] = {}
    asks: dict[str, dict[str, Any]] = {}
    git: Git | None = None


def fits(row: Any, shape: Any) -> bool:
    try:
        msgspec.convert(row, shape)
        return True
    except UNFIT:
        return False
