"""Judgements of pairs, kept in a folder: each is of two very images, in an order, by one judge in one wording."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from slurm_bench.logs import hide_secrets
from slurm_bench.run.durable import LineWriter, read_lines
from slurm_bench.run.shapes import UNFIT
from slurm_bench.scorers.protocols.pairwise import FIRST, SECOND, TIE


@dataclass(frozen=True)
class Asked:
    """What was judged. `about` is a hash of the instruction and the source; `first` and `second` are the edited images'
    sha256, in the order in which the judge saw them."""

    dimension: str
    by: str
    about: str
    first: str
    second: str


@dataclass(frozen=True)
class Judgement:
    """`winner` is FIRST, SECOND, TIE, or None where no reply could be read: `problem` says why. `raw` is the reply."""

    winner: str | None
    problem: str = ""
    raw: str = ""


@dataclass(frozen=True)
class Match:
    """A sample that two runs have edited, by the runs' numbers."""

    first: int
    second: int
    sample: str
    about: str
    images: tuple[str, str]

    def asked(self, dimension: str, by: str) -> tuple[Asked, Asked]:
        """In both orders."""
        a, b = self.images
        return Asked(dimension, by, self.about, a, b), Asked(dimension, by, self.about, b, a)


def about(instruction: str, source_sha256: object) -> str:
    """A judge is shown every source. Once it was the first of several: what it said then is of another question."""
    several = ["every source is shown"] if isinstance(source_sha256, list) else []
    return hashlib.sha256(json.dumps([instruction, source_sha256, *several]).encode()).hexdigest()[:16]


def read_judgements(folder: Path) -> dict[Asked, Judgement]:
    """What earlier calls have found. A line that is torn, or doesn't fit, is passed over."""
    found = {}
    for file in sorted(folder.glob("judgements-*.jsonl")):
        for row in read_lines(file):
            try:
                asked, judgement = msgspec.convert(row, Asked), msgspec.convert(row, Judgement)
            except UNFIT:
                continue
            if judgement.winner in (FIRST, SECOND, TIE, None):
                found[asked] = judgement
    return found


class JudgementWriter:
    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def write(self, asked: Asked, found: Judgement) -> None:
        """A reply may quote the key that it was asked with."""
        said = {"winner": found.winner, "problem": hide_secrets(found.problem), "raw": hide_secrets(found.raw)}
        self._writer.write({**asdict(asked), **said, "time": time.time()})


@contextmanager
def writing(folder: Path) -> Iterator[JudgementWriter]:
    """A file of this process alone: two that judge at once write into two."""
    stamp = f"{time.time():.6f}-{socket.gethostname()}-{os.getpid()}"
    with closing(LineWriter(folder / f"judgements-{stamp}.jsonl")) as writer:
        yield JudgementWriter(writer)


def outcome(one: str, other: str) -> str:
    """FIRST, SECOND or TIE of a pair that was judged in both orders: `one` as (a, b), `other` as (b, a). Two that don't
    agree are a tie."""
    turned = {FIRST: SECOND, SECOND: FIRST, TIE: TIE}[other]
    return one if one == turned else TIE
