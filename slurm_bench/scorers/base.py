"""The contract of a scorer: any class with `score`. Nothing need be inherited.

class MyScorer:
    scores = {"quality": Score(0, 10)}         # optional: a score outside its range is an error, as NaN always is
    def __init__(self, threshold=0.5): ...     # `scorers.<name>.params`; light, as for editors
    def check(self): ...                       # optional, login node: raise UserError if it can't work
    def load(self): ...                        # optional
    def streams(self): return True             # optional, as for editors
    def score(self, batch): return [{"quality": 7.5}, …]   # for each request, in order: a dict, a Scored, or an
                                               # exception, of which the same holds as for an editor's
    def prefetch(self, next_batch): ...        # optional, before each `score`: next_batch() blocks until the following
                                               # batch is read, and gives it; preprocess it in a thread of your own
    def close(self): ...                       # optional
    def provenance(self): return {"model": …}  # optional, as for editors
    rubric_names = ("physical", …)             # optional: the categories that it has a rubric for, said at launch
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, Protocol

import msgspec
from PIL import Image

from slurm_bench.errors import UserError
from slurm_bench.run.shapes import UNFIT

# Of a score either way. The cubes of larger ones, which a mean's interval takes the sum of, are no numbers any more.
LARGEST = 1e100


@dataclass(frozen=True)
class ScoreRequest:
    """A sample, its edited image, and all that the judge may be told. Images are upright RGB or RGBA, each of a size of
    its own; there is one source at least. `facts` are for the scorer: a benchmark's flags say what a judge is asked. A
    `mask` is transparent, or white, where the edit is wanted."""

    id: str
    category: str
    instruction: str
    sources: tuple[Image.Image, ...]
    edited: Image.Image
    reference: Image.Image | None
    description: str
    rationale: str
    seed: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    mask: Image.Image | None = None

    @property
    def source(self) -> Image.Image:
        return self.sources[0]


@dataclass(frozen=True)
class Score:
    """The range of a score and its direction: None in `low` or `high` is no bound, None in `higher_is_better` says
    that neither way is better. `high_is` says what gets `high` though it has no value on the scale, or one beyond it:
    reports tell how many such stand in a mean."""

    low: float | None
    high: float | None
    higher_is_better: bool | None = True
    high_is: str | None = field(default=None, compare=False)  # the numbers are of one kind without it

    @property
    def worst(self) -> float | None:
        """What a failure counts as where failures are counted; None where the scale has no worst value."""
        if self.higher_is_better is None:
            return None
        return self.low if self.higher_is_better else self.high

    def excludes(self, value: float) -> bool:
        return (self.low is not None and value < self.low) or (self.high is not None and value > self.high)


@dataclass(frozen=True)
class Scored:
    """Scores by name: finite numbers, each within its declared range. `raw` is what the judge said; `parse` is "ok" or
    why no score could be read from it: then `scores` is empty, and the sample is a failure, not a number. `info` has
    facts for the record, as JSON values."""

    scores: Mapping[str, float]
    raw: str | None = None
    parse: str = "ok"
    info: dict[str, Any] = field(default_factory=dict)


class Scorer(Protocol):
    """What type checkers know of it; all that is optional is above."""

    def score(self, batch: Sequence[ScoreRequest]) -> Sequence[Mapping[str, float] | Scored | Exception]: ...


# The name in `declared_scores` that stands for every score of a scorer whose names are unknown.
ANY = "*"


def declared_scores(scorer: Any) -> Mapping[str, Score] | None:
    """The scores that a scorer says it gives, once it is made; None where it doesn't say. Raises UserError where what
    it says is none.

    `scores` names each. `score_range = (low, high)` names none, so its range stands under `ANY`.
    """
    declared = getattr(scorer, "scores", None)
    if declared is not None:
        if not isinstance(declared, Mapping) or not all(isinstance(score, Score) for score in declared.values()):
            raise UserError(f"'scores' of {type(scorer).__name__} is {declared!r}, not {{name: Score(low, high)}}")
        for name, score in declared.items():
            _refuse_no_range(f"'scores' of {type(scorer).__name__}: {name!r}", score.low, score.high)
        return declared
    allowed = getattr(scorer, "score_range", None)
    if allowed is None:
        return None
    try:
        low, high = allowed
    except (TypeError, ValueError):
        raise UserError(f"'score_range' of {type(scorer).__name__} is {allowed!r}, not (low, high)") from None
    _refuse_no_range(f"'score_range' of {type(scorer).__name__}", low, high)
    return {ANY: Score(low, high)}


def _refuse_no_range(what: str, low: Any, high: Any) -> None:
    """Raises UserError where no score could lie in it."""
    numbers = [end for end in (low, high) if end is not None]
    if not all(isinstance(end, Real) for end in numbers) or (len(numbers) == 2 and not low < high):
        raise UserError(f"{what} is ({low!r}, {high!r}); it has to be two numbers, the lower one first, or None")


def as_rows(declared: Mapping[str, Score]) -> dict[str, list[Any]]:
    """For JSON: name → [low, high, higher_is_better], and `high_is` where it is said."""
    return {
        name: [score.low, score.high, score.higher_is_better, *([score.high_is] if score.high_is else [])]
        for name, score in declared.items()
    }


def from_rows(rows: Any) -> dict[str, Score] | None:
    """What `as_rows` gave; None where there is none, or of another form: a file may be damaged."""
    if not isinstance(rows, Mapping):
        return None
    names = [each.name for each in fields(Score)]
    try:
        return {name: msgspec.convert(dict(zip(names, row, strict=False)), Score) for name, row in rows.items()}
    except (TypeError, *UNFIT):
        return None


def declared_score(declared: Mapping[str, Score] | None, name: str) -> Score | None:
    """What `declared_scores` says of the score called `name`; None where that is unknown."""
    return None if declared is None else declared.get(name, declared.get(ANY))
