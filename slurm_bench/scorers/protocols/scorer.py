"""A benchmark's protocol as a scorer, over a judge behind a server or a local Qwen3-VL."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm_bench.bundled import bundled
from slurm_bench.config import nearest
from slurm_bench.errors import SampleError, ServiceDown, UserError
from slurm_bench.importing import import_name
from slurm_bench.parameters import fitted
from slurm_bench.scorers.base import Scored, ScoreRequest
from slurm_bench.scorers.judge.parse import Reply, Unreadable
from slurm_bench.scorers.judge.question import Asks, Question
from slurm_bench.scorers.protocols.ask import Asked, check_prompts, questions, values_of
from slurm_bench.scorers.protocols.description import fits, formula, load_protocol
from slurm_bench.scorers.protocols.prompts import read_prompts
from slurm_bench.scorers.protocols.reply import read_marks
from slurm_bench.scorers.usage import sum_usage

# What of a judge's params the protocol decides.
_OURS = ("mode", "aspects", "rubrics", "min_mass")


class BenchmarkProtocol:
    """The protocol that the YAML file `protocol` describes, with the prompts of the benchmark's own repository, of
    which `prompts` is a checkout. `judge` is the scorer that is asked: `{class_path, params}` of OpenAIScorer or
    Qwen3VLScorer.

    A judge doesn't sample at first. A reply that can't be read is asked again as its `retries` and `temperature` say;
    a sample of which any reply can't be read has no score at all.
    """

    def __init__(self, protocol: str, prompts: str, judge: Mapping[str, Any]) -> None:
        self.protocol, self._data = load_protocol(Path(protocol))
        self.prompts = check_prompts(self.protocol, read_prompts(prompts, self.protocol.prompts), prompts)
        self.scores = self.protocol.declared
        self.judge = _make_judge(judge)

    def check(self) -> None:
        with _judges_own():
            _if_any(self.judge, "check")

    def load(self) -> None:
        with _judges_own():
            _if_any(self.judge, "load")

    def streams(self) -> bool:
        return bool(_if_any(self.judge, "streams"))

    def close(self) -> None:
        _if_any(self.judge, "close")

    def provenance(self) -> dict[str, Any]:
        said = {name: fact for name, fact in self.judge.provenance().items() if name != "rubrics_sha256"}
        hashes = {"prompts_sha256": _sha256(self.prompts), "protocol_sha256": _sha256(self._data)}
        return {**said, "benchmark": self.protocol.name, **hashes, "protocol": self._data}

    def score(self, batch: Sequence[ScoreRequest]) -> list[Scored | Exception]:
        """All calls of all samples at once, then what couldn't be read again."""
        asked: dict[int, list[_Exchange]] = {}
        refused: dict[int, Exception] = {}
        for place, request in enumerate(batch):
            try:
                about = questions(self.protocol, self.prompts, request)
                asked[place] = [_Exchange(one, request.seed) for one in about]
            except SampleError as error:
                refused[place] = error
        for attempt in range(self.judge.retries + 1):
            self._ask([one for exchanges in asked.values() for one in exchanges if one.wants_an_answer], attempt)
        return [
            refused[place] if place in refused else self._result(batch[place], asked[place])
            for place in range(len(batch))
        ]

    def _ask(self, exchanges: Sequence[_Exchange], attempt: int) -> None:
        if not exchanges:
            return
        temperature = self.judge.temperature if attempt else 0.0
        asked = [Question(one.asked.parts, one.seed + attempt, temperature) for one in exchanges]
        for one, reply in zip(exchanges, self.judge.replies(asked, self.protocol.max_tokens), strict=True):
            one.take(reply, self._read(one.asked, reply) if isinstance(reply, Reply) else reply)

    def _read(self, asked: Asked, reply: Reply) -> dict[str, float] | str:
        """The marks of a call, or why there are none."""
        call = asked.call
        ranges = {mark: call.range or self.protocol.marks[mark] for mark in call.marks}
        try:
            if reply.cut_short or reply.refused:
                raise Unreadable(reply.cut_short or "the judge refused to answer")
            marks = read_marks(reply.text, call.reply, ranges, asked.labels)
        except Unreadable as why:
            return f"{', '.join(call.marks)}: {why}"
        if call.value is None:
            return marks
        rescaled = formula(call.value, ["mark"], "value")
        return {mark: rescaled({"mark": value}) for mark, value in marks.items()}

    def _result(self, request: ScoreRequest, exchanges: Sequence[_Exchange]) -> Scored | Exception:
        failures = [one.found for one in exchanges if isinstance(one.found, Exception)]
        if failures:
            of_all = [error for error in failures if isinstance(error, UserError | ServiceDown)]
            return (of_all or failures)[0]
        raw = "\n\n".join(f"{', '.join(one.asked.call.marks)}:\n{one.raw}" for one in exchanges)
        info = {"judge_retries": retries} if (retries := sum(len(one.replies) - 1 for one in exchanges)) else {}
        info |= {"refused": True} if any(one.replies[-1].refused for one in exchanges) else {}
        info |= sum_usage(reply.info for one in exchanges for reply in one.replies)
        unread = [one.found for one in exchanges if isinstance(one.found, str)]
        if unread:
            return Scored({}, raw, "; ".join(unread), info)
        marks = {name: mark for one in exchanges if isinstance(one.found, dict) for name, mark in one.found.items()}
        try:
            return Scored(self._scores(request, marks) | marks, raw, info=info)
        except SampleError as error:
            return error

    def _scores(self, request: ScoreRequest, marks: Mapping[str, float]) -> dict[str, float]:
        values = {**values_of(request), **marks}
        found: dict[str, float] = {}
        for score in self.protocol.scores:
            if score.name not in found and fits(score.when, values):
                try:
                    found[score.name] = formula(score.formula, marks, score.name)(marks)
                except (ValueError, UserError) as error:
                    raise SampleError(f"the score '{score.name}': {error}") from None
        if missing := {score.name for score in self.protocol.scores} - found.keys():
            raise SampleError(f"{self.protocol.name} has no formula for '{min(missing)}' that fits this sample")
        return found


class GEditProtocol(BenchmarkProtocol):
    """GEdit-Bench v1: `prompts` is a checkout of stepfun-ai/Step1X-Edit."""

    def __init__(self, prompts: str, judge: Mapping[str, Any]) -> None:
        super().__init__(str(bundled("protocols/gedit.yaml")), prompts, judge)


class ImgEditProtocol(BenchmarkProtocol):
    """ImgEdit's Basic set: `prompts` is a checkout of PKU-YuanGroup/ImgEdit."""

    def __init__(self, prompts: str, judge: Mapping[str, Any]) -> None:
        super().__init__(str(bundled("protocols/imgedit.yaml")), prompts, judge)


class RISEProtocol(BenchmarkProtocol):
    """RISEBench: `prompts` is a checkout of PhoenixZ810/RISEBench."""

    def __init__(self, prompts: str, judge: Mapping[str, Any]) -> None:
        super().__init__(str(bundled("protocols/risebench.yaml")), prompts, judge)


class KRISProtocol(BenchmarkProtocol):
    """KRIS-Bench: `prompts` is a checkout of mercurystraw/Kris_Bench."""

    def __init__(self, prompts: str, judge: Mapping[str, Any]) -> None:
        super().__init__(str(bundled("protocols/kris.yaml")), prompts, judge)


@dataclass
class _Exchange:
    """A call about a sample, and what came of it: its marks, or why there are none, or what went wrong."""

    asked: Asked
    seed: int

    def __post_init__(self) -> None:
        self.replies: list[Reply] = []
        self.found: dict[str, float] | str | Exception | None = None

    def take(self, reply: Reply | Exception, found: dict[str, float] | str | Exception) -> None:
        self.replies += [reply] if isinstance(reply, Reply) else []
        self.found = found

    @property
    def wants_an_answer(self) -> bool:
        """One that was cut short or refused would be so again."""
        final = bool(self.replies) and bool(self.replies[-1].cut_short or self.replies[-1].refused)
        return self.found is None or (isinstance(self.found, str) and not final)

    @property
    def raw(self) -> str:
        return self.replies[-1].text


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _make_judge(said: Mapping[str, Any]) -> Asks:
    key, keys = "params.judge", ("class_path", "params")
    for name in said:
        if name not in keys:
            raise UserError(f"'{key}.{name}': a judge is {{class_path, params}}; {nearest(name, keys)}")
    path, params = said.get("class_path"), {**(said.get("params") or {})}
    if not isinstance(path, str):
        raise UserError(f"'{key}.class_path' is not set: slurm_bench.scorers.openai_api.OpenAIScorer, say")
    cls = import_name(path, f"{key}.class_path")
    if not callable(getattr(cls, "replies", None)):
        raise UserError(f"'{key}.class_path': {path} has no method 'replies': it asks in its own words alone")
    for name in _OURS:
        if name in params:
            raise UserError(f"'{key}.params.{name}': the protocol decides that; leave it out")
    given = {**params, "mode": "generate"}
    with _judges_own():
        judge: Asks = cls(**fitted(cls, given, given, "params"))
    return judge


@contextmanager
def _judges_own() -> Iterator[None]:
    """A judge doesn't know that it is one's judge: its `'params.x'` becomes `'params.judge.params.x'`."""
    try:
        yield
    except UserError as error:
        raise UserError(re.sub(r"'params\.", "'params.judge.params.", str(error))) from None


def _if_any(judge: Any, method: str) -> Any:
    return getattr(judge, method)() if hasattr(judge, method) else None
