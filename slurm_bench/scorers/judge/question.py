"""A question in another's words: what a benchmark's protocol asks a judge, whoever the judge is."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from slurm_bench.scorers.judge.parse import Reply


@dataclass(frozen=True)
class Picture:
    """An image file, encoded as the protocol says: a server gets these very bytes, a local judge what they decode to.
    `detail` says how closely OpenAI's models look at it."""

    data: bytes
    kind: str
    detail: str | None = None

    @property
    def url(self) -> str:
        """For a request."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode()}"

    def image(self) -> Image.Image:
        with Image.open(io.BytesIO(self.data), formats=("PNG", "JPEG")) as image:
            return image.convert("RGB")


@dataclass(frozen=True)
class Question:
    """`parts` are the user's turn, in order. At temperature 0 the judge doesn't sample."""

    parts: tuple[str | Picture, ...]
    seed: int
    temperature: float = 0.0
    system: str = ""


class Asks(Protocol):
    """A scorer that answers a protocol's questions too. `retries` and `temperature` are for replies that can't be
    read."""

    retries: int
    temperature: float

    def replies(self, questions: Sequence[Question], max_tokens: int) -> list[Reply | Exception]:
        """In the same order; an exception as `score` gives one."""

    def provenance(self) -> dict[str, Any]: ...
