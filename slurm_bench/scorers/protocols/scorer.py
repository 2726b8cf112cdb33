"""A benchmark's protocol as a scorer, over a judge behind a server or a local Qwen3-VL."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from slurm_bench.bundled import bundled
from slurm_bench.errors import SampleError, ServiceDown, UserError
from slurm_bench.scorers.base import Scored, ScoreRequest
from slurm_bench.scorers.judge.parse import Unreadable
from slurm_bench.scorers.judge.prompt import prompt_mark, texts_of
from slurm_bench.scorers.protocols.ask import Asked, check_prompts, questions
from slurm_bench.scorers.protocols.description import Call, fits, formula, load_protocol, values_of
from slurm_bench.scorers.protocols.judge import Exchange, ask, call, make_judge, says
from slurm_bench.scorers.protocols.prompts import read_prompts
from slurm_bench.scorers.protocols.reply import read_marks
from slurm_bench.scorers.usage import sum_usage

Marks = dict[str, float]


class BenchmarkProtocol:
    """The protocol that the YAML file `protocol` describes, with the prompts of the benchmark's own repository, of
    which `prompts` is a checkout. `judge` is the scorer that is asked: `{class_path, params}` of OpenAIScorer or
    Qwen3VLScorer.

    A judge doesn't sample at first. A reply that can't be read is asked again as its `retries` and `temperature` say;
    a sample of which any reply can't be read has no score at all.
    """

    def __init__(self, protocol: Path, prompts: Path, judge: Mapping[str, Any]) -> None:
        self.protocol, self._data = load_protocol(Path(protocol))
        self.prompts = check_prompts(self.protocol, read_prompts(prompts, self.protocol.prompts), prompts)
        self.scores = self.protocol.declared
        self.judge = make_judge(judge)

    def check(self) -> None:
        call(self.judge, "check")

    def load(self) -> None:
        call(self.judge, "load")

    def streams(self) -> bool:
        return bool(call(self.judge, "streams"))

    def close(self) -> None:
        call(self.judge, "close")

    def provenance(self) -> dict[str, Any]:
        hashes = {"prompts_sha256": _sha256(self.prompts), "protocol_sha256": _sha256(self._data)}
        return {
            **says(self.judge),
            "benchmark": self.protocol.name,
            **hashes,
            "protocol": self._data,
            "asks": {"prompts": self.prompts},
        }

    def score(self, batch: Sequence[ScoreRequest]) -> list[Scored | Exception]:
        """All calls of all samples at once."""
        asked: dict[int, list[tuple[Call, Exchange[Marks]]]] = {}
        refused: dict[int, Exception] = {}
        for place, request in enumerate(batch):
            try:
                about = questions(self.protocol, self.prompts, request)
                asked[place] = [(one.call, self._exchange(one, request.seed)) for one in about]
            except SampleError as error:
                refused[place] = error
        exchanges = [exchange for of_sample in asked.values() for _, exchange in of_sample]
        ask(self.judge, exchanges, self.protocol.max_tokens)
        return [
            refused[place] if place in refused else self._result(request, asked[place])
            for place, request in enumerate(batch)
        ]

    def _exchange(self, asked: Asked, seed: int) -> Exchange[Marks]:
        return Exchange(asked.parts, seed, partial(self._read, asked))

    def _read(self, asked: Asked, text: str) -> Marks:
        """The marks of a call. Raises Unreadable."""
        of = asked.call
        ranges = {mark: of.range or self.protocol.marks[mark] for mark in of.marks}
        marks = read_marks(text, of.reply, ranges, asked.labels)
        if of.value is None:
            return marks
        rescaled = formula(of.value, ["mark"], "value")
        try:
            return {mark: rescaled({"mark": value}) for mark, value in marks.items()}
        except ValueError as why:
            raise Unreadable(str(why)) from None

    def _result(self, request: ScoreRequest, asked: Sequence[tuple[Call, Exchange[Marks]]]) -> Scored | Exception:
        exchanges = [exchange for _, exchange in asked]
        failures = [one.problem for one in exchanges if isinstance(one.problem, Exception)]
        if failures:
            of_all = [error for error in failures if isinstance(error, UserError | ServiceDown)]
            return (of_all or failures)[0]
        raw = "\n\n".join(f"{', '.join(of.marks)}:\n{one.raw}" for of, one in asked)
        info: dict[str, Any] = (
            {"judge_retries": retries} if (retries := sum(len(one.replies) - 1 for one in exchanges)) else {}
        )
        info["prompt"] = prompt_mark(texts_of(one.system, one.parts) for one in exchanges)
        info |= {"refused": True} if any(one.refused for one in exchanges) else {}
        info |= sum_usage(reply.info for one in exchanges for reply in one.replies)
        if unread := [f"{', '.join(of.marks)}: {one.problem}" for of, one in asked if one.problem]:
            return Scored({}, raw, "; ".join(unread), info)
        marks = {name: mark for one in exchanges for name, mark in (one.found or {}).items()}
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

    def __init__(self, prompts: Path, judge: Mapping[str, Any]) -> None:
        super().__init__(bundled("protocols/gedit.yaml"), prompts, judge)


class ImgEditProtocol(BenchmarkProtocol):
    """ImgEdit's Basic set: `prompts` is a checkout of PKU-YuanGroup/ImgEdit."""

    def __init__(self, prompts: Path, judge: Mapping[str, Any]) -> None:
        super().__init__(bundled("protocols/imgedit.yaml"), prompts, judge)


class RISEProtocol(BenchmarkProtocol):
    """RISEBench: `prompts` is a checkout of PhoenixZ810/RISEBench."""

    def __init__(self, prompts: Path, judge: Mapping[str, Any]) -> None:
        super().__init__(bundled("protocols/risebench.yaml"), prompts, judge)


class KRISProtocol(BenchmarkProtocol):
    """KRIS-Bench: `prompts` is a checkout of mercurystraw/Kris_Bench."""

    def __init__(self, prompts: Path, judge: Mapping[str, Any]) -> None:
        super().__init__(bundled("protocols/kris.yaml"), prompts, judge)


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
