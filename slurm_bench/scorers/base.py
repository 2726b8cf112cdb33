"""The contract of a scorer: any class with `score`. Nothing need be inherited.

class MyScorer:
    score_range = (0, 10)                      # optional: a score outside is an error, as NaN always is
    def __init__(self, threshold=0.5): ...     # `scorers.<name>.params`; light, as for editors
    def check(self): ...                       # optional, login node: raise UserError if it can't work
    def load(self): ...                        # optional
    def score(self, batch): return [{"quality": 7.5}, …]   # each a dict, a Scored, or an exception
    def expect(self, coming): ...              # optional, before each `score`: coming(), which may wait and may be
                                               # called in a thread, gives the batch after that one; a head start
    def close(self): ...                       # optional
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image


@dataclass(frozen=True)
class ScoreRequest:
    """A sample, its edited image, and all that the judge may be told. Images are upright RGB or RGBA."""

    id: str
    category: str
    instruction: str
    sources: tuple[Image.Image, ...]
    edited: Image.Image
    reference: Image.Image | None
    description: str
    rationale: str
    seed: int

    @property
    def source(self) -> Image.Image:
        return self.sources[0]


@dataclass(frozen=True)
class Scored:
    """Scores by name. `raw` is what the judge said; `parse` is "ok" or why no score could be read from it:
    then `scores` is empty, and the sample is a failure, not a number."""

    scores: Mapping[str, float]
    raw: str | None = None
    parse: str = "ok"
    info: dict[str, Any] = field(default_factory=dict)


class Scorer(Protocol):
    def score(self, batch: Sequence[ScoreRequest]) -> Sequence[Mapping[str, float] | Scored | Exception]: ...
