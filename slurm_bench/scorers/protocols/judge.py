"""The judge that a protocol asks: a scorer of another's making, and questions to it until they can be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from slurm_bench.config import nearest
from slurm_bench.errors import UserError
from slurm_bench.importing import import_name
from slurm_bench.parameters import fitted
from slurm_bench.scorers.judge.parse import Reply, Unreadable
from slurm_bench.scorers.judge.question import Asks, Picture, Question

T = TypeVar("T")

# What of a judge's params the protocol decides.
_OURS = ("mode", "aspects", "rubrics", "min_mass")


@dataclass
class Exchange(Generic[T]):
    """One question, and what came of it: what `read` makes of the reply (it raises Unreadable), or why it made nothing
    of it, or what went wrong."""

    parts: tuple[str | Picture, ...]
    seed: int
    read: Callable[[str], T]
    system: str = ""
    found: T | None = None
    problem: str | Exception = ""
    replies: list[Reply] = field(default_factory=list)

    @property
    def raw(self) -> str:
        return self.replies[-1].text if self.replies else ""

    @property
    def refused(self) -> bool:
        return bool(self.replies) and self.replies[-1].refused

    def take(self, reply: Reply | Exception) -> None:
        if isinstance(reply, Exception):
            self.problem = reply
            return
        self.replies.append(reply)
        try:
            if reply.cut_short or reply.refused:
                raise Unreadable(reply.cut_short or "the judge refused to answer")
            self.found, self.problem = self.read(reply.text), ""
        except Unreadable as why:
            self.problem = str(why)

    @property
    def open(self) -> bool:
        """Whether another reply may be read: one that was cut short or refused would be so again."""
        if not self.replies:
            return not self.problem
        last = self.replies[-1]
        return self.found is None and isinstance(self.problem, str) and not (last.cut_short or last.refused)


def ask(judge: Asks, exchanges: Sequence[Exchange[Any]], max_tokens: int) -> None:
    """All at once and without sampling, then what couldn't be read again, sampled, as often as the judge is told to."""
    for attempt in range(judge.retries + 1):
        still = [one for one in exchanges if one.open]
        if not still:
            return
        temperature = judge.temperature if attempt else 0.0
        questions = [Question(one.parts, one.seed + attempt, temperature, one.system) for one in still]
        for one, reply in zip(still, judge.replies(questions, max_tokens), strict=True):
            one.take(reply)


def make_judge(said: Mapping[str, Any], key: str = "params.judge") -> Asks:
    """Raises UserError that names the parameter, under `key`."""
    keys = ("class_path", "params")
    for name in said:
        if name not in keys:
            raise UserError(f"'{key}.{name}': a judge is {{class_path, params}}; {nearest(name, keys)}")
    path, params = said.get("class_path"), said.get("params") or {}
    if not isinstance(path, str):
        raise UserError(f"'{key}.class_path' is not set: slurm_bench.scorers.openai_api.OpenAIScorer, say")
    cls = import_name(path, f"{key}.class_path")
    if not callable(getattr(cls, "replies", None)):
        raise UserError(f"'{key}.class_path': {path} has no method 'replies': it asks in its own words alone")
    for name in _OURS:
        if isinstance(params, Mapping) and name in params:
            raise UserError(f"'{key}.params.{name}': the protocol decides that; leave it out")
    given = {**params, "mode": "generate"} if isinstance(params, Mapping) else params
    with speaking_for_judge(key):
        judge: Asks = cls(**fitted(cls, given, given, "params"))
    return judge


def by_answers(said: Mapping[str, Any], judge: Asks) -> dict[str, Any]:
    """What was said of a judge, less the params that change no answer, where it tells them (`asks_by`): with another
    patience it is no other judge."""
    idle = getattr(judge, "asks_by", ())
    params = said.get("params") or {}
    return {**said, "params": {name: value for name, value in params.items() if name not in idle}}


def says(judge: Asks) -> dict[str, Any]:
    """What a judge says of itself, less what it would ask by its rubrics."""
    return {name: fact for name, fact in judge.provenance().items() if name not in ("rubrics_sha256", "asks")}


def call(judge: Asks, method: str, key: str = "params.judge") -> Any:
    """What the judge's `method` gives, where it has one."""
    with speaking_for_judge(key):
        return getattr(judge, method)() if hasattr(judge, method) else None


@contextmanager
def speaking_for_judge(key: str) -> Iterator[None]:
    """A judge doesn't know that it is one's judge: its `'params.x'` becomes `'params.judge.params.x'`."""
    try:
        yield
    except UserError as error:
        raise type(error)(re.sub(r"'params(?=[.'])", f"'{key}.params", str(error))) from None
