"""Any judge behind an OpenAI-compatible server: vLLM, SGLang, or a commercial one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from PIL import Image

from slurm_bench.errors import UserError
from slurm_bench.scorers.base import Score, Scored, ScoreRequest
from slurm_bench.scorers.judge import parse, prompt
from slurm_bench.scorers.judge.expectation import expected
from slurm_bench.scorers.judge.options import asks, check_judging, number, one_of, text
from slurm_bench.scorers.judge.question import Picture, Question
from slurm_bench.scorers.server import digits
from slurm_bench.scorers.server.answer import Answer
from slurm_bench.scorers.server.chat import ChatApi
from slurm_bench.scorers.server.faults import ApiError
from slurm_bench.scorers.server.serve import OwnServer, check_command, check_found
from slurm_bench.scorers.server.settings import (
    bounded,
    check_asking,
    check_url,
    data_url,
    make_api,
    read_key,
)
from slurm_bench.scorers.usage import sum_usage

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class OpenAIScorer:
    """Scores 0 to 10 by the rubrics and the parsing of `Qwen3VLScorer`, which says what `mode`, `aspects`, `min_mass`,
    `retries` and `temperature` mean.

    `base_url` ends before `/chat/completions`. The key is read from the environment variable `api_key_env`; null
    for a server that wants none. `headers` are sent with each request; `api_version` is Azure's. `mode` "expected"
    needs a server that gives log probabilities: the digits are counted among the 20 likeliest first tokens.

    A server that is away, busy or restarting is asked again for `patience` seconds, and then no sample fails:
    ServiceDown ends the task. One that fails at this sample, and still answers what it has answered before, is asked up
    to `max_retries` times more. Waits begin at `backoff` seconds and double. `concurrency` requests run at once, so let
    `score_batch_size` be no less. `detail` says how closely OpenAI's models look at images (low, high, auto). `extra`
    is merged into each request's body last; null takes a field out, as in {max_tokens: null, max_completion_tokens:
    500}.

    `serve` in place of `base_url` is the command of a server that each scoring task starts for itself, on its own node:
    {port} in it becomes a free port, {model} the model. It must be healthy within `serve_timeout_s`, and wants no key.
    """

    # How it is asked, not what: the answers are the same.
    asks_by: ClassVar[tuple[str, ...]] = (
        *("api_key_env", "timeout", "patience", "max_retries", "backoff", "requests_per_minute", "concurrency"),
        "serve_timeout_s",
    )

    base_url: str | None = None
    model: str = ""
    api_key_env: str | None = "OPENAI_API_KEY"
    mode: str = "generate"
    aspects: Sequence[str] = ("overall",)
    rubrics: Path | None = None
    max_pixels: int = 1024 * 1024
    image_format: str = "png"
    jpeg_quality: int = 95
    detail: str | None = None
    max_tokens: int = 512
    min_mass: float = 0.5
    retries: int = 2
    temperature: float = 0.7
    timeout: float = 120.0
    patience: float = 300.0
    max_retries: int = 5
    backoff: float = 1.0
    requests_per_minute: int | None = None
    concurrency: int = 8
    api_version: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict)
    serve: str | None = None
    serve_timeout_s: float = 1800.0

    def __post_init__(self) -> None:
        self._check_server()
        one_of(self, "image_format", ("png", "jpeg"))
        number(self, "jpeg_quality", 1, 100)
        one_of(self, "detail", ("low", "high", "auto"), optional=True)
        number(self, "concurrency", 1, 1024)
        check_asking(self)
        self._rubrics = check_judging(self)
        self.rubric_names = tuple(self._rubrics.categories)
        self.scores = {aspect: Score(*prompt.SCORE_RANGE) for aspect in self.aspects}
        self._api: ChatApi | None = None
        self._server: OwnServer | None = None

    def _check_server(self) -> None:
        if self.base_url is None and self.serve is None:
            raise UserError("'params.base_url' is not set; say where the server is, or start one by params.serve")
        if self.base_url is not None and self.serve is not None:
            raise UserError("'params.serve' starts a server, so params.base_url has no meaning; leave one of them out")
        if not self.model:
            raise UserError("'params.model' is not set; a server wants its model's name in each request")
        text(self, "model")
        number(self, "serve_timeout_s", 1.0, 86400.0)
        if self.serve is not None:
            check_command(self.serve)
        else:
            check_url(self.base_url)

    def check(self) -> None:
        """The key, or the server's program, is there. Whether the server accepts the key, only a request would tell."""
        if self.serve is not None:
            check_found(self.serve)
        else:
            read_key(self.api_key_env)

    def load(self) -> None:
        if self.serve is not None:
            self._server = OwnServer(self.serve, self.model, self.serve_timeout_s)
            self._server.start()
        key = None if self.serve is not None else read_key(self.api_key_env)
        self._api = make_api(self, self.base_url or "", key, self.concurrency, self._server)

    def provenance(self) -> dict[str, Any]:
        where = self.serve if self.base_url is None else self.base_url
        said = {"model": self.model, "server": where, "rubrics_sha256": self._rubrics.sha256}
        return said | {"asks": asks(self, self._rubrics)}

    def close(self) -> None:
        if self._api is not None:
            self._api.close()
            self._api = None
        if self._server is not None:
            self._server.stop()
            self._server = None

    def score(self, batch: Sequence[ScoreRequest]) -> list[Scored | Exception]:
        """What was judged before the server refused or went away is given beside ApiRefused or ServiceDown."""
        return self._at_once(self._expected if self.mode == "expected" else self._generated, batch)

    def replies(self, questions: Sequence[Question], max_tokens: int) -> list[parse.Reply | Exception]:
        """What the server answers to a protocol's own questions."""
        return self._at_once(lambda question: self._reply(question, max_tokens), questions)

    def _at_once(self, ask: Callable[[T], R], about: Sequence[T]) -> list[R | Exception]:
        """In threads, in the order of `about`; what is raised over one stands in its place."""
        api = self._api
        if api is None:
            raise RuntimeError("the judge is not loaded")
        api.try_again()
        pool = ThreadPoolExecutor(self.concurrency, "judge")
        try:
            return list(pool.map(lambda one: _result_or_error(ask, one), about))
        except BaseException:
            api.close()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _reply(self, question: Question, max_tokens: int) -> parse.Reply:
        messages = self._messages(question.system, question.parts)
        answer = self._ask(messages, question.seed, question.temperature, {"max_tokens": max_tokens})
        refused = answer.refused or answer.cut_by == "filter"
        return parse.Reply(answer.text, self._cut_short(answer, max_tokens), refused, answer.info)

    def _expected(self, request: ScoreRequest) -> Scored:
        answers, read = [], []
        prompts = prompt.prompts(request, self._rubrics, self.mode, self.aspects)
        for (aspect,), asked in prompts.items():
            messages = self._messages(asked.system, asked.parts)
            answers.append(self._ask(messages, request.seed, 0.0, digits.REQUEST))
            try:
                read.append(digits.digit_answer(aspect, answers[-1]))
            except digits.Unsuited as why:
                raise self._loaded().refuse(str(why)) from None
        result = expected(read, self.aspects, self.min_mass)
        info = result.info | _prompt_mark(prompts.values())
        return replace(result, info=info | sum_usage(answer.info for answer in answers))

    def _generated(self, request: ScoreRequest) -> Scored:
        (asked,) = prompt.prompts(request, self._rubrics, self.mode, self.aspects).values()
        messages = self._messages(asked.system, asked.parts)
        answers: list[Answer] = []
        for retry in range(self.retries + 1):
            answers.append(self._ask(messages, request.seed + retry, self.temperature if retry else 0.0))
            reply = parse.Reply(answers[-1].text, self._cut_short(answers[-1], self.max_tokens), answers[-1].refused)
            result = parse.scored(reply, self.aspects)
            if result.parse == "ok" or reply.cut_short:
                break
        info = _prompt_mark([asked]) | ({"judge_retries": len(answers) - 1} if len(answers) > 1 else {})
        return replace(result, info=info | sum_usage(answer.info for answer in answers))

    def _cut_short(self, answer: Answer, max_tokens: int) -> str | None:
        if answer.cut_by == "filter":
            return "the server's content filter stopped the reply"
        if answer.cut_by == "tokens":
            thinking = " while the judge was thinking" if answer.thought and not answer.text.strip() else ""
            return f"the reply was cut off at the limit of tokens{thinking}: max_tokens is {max_tokens}"
        return None

    def _ask(
        self, messages: list[Any], seed: int, temperature: float, reading: Mapping[str, Any] | None = None
    ) -> Answer:
        payload = {
            "model": self.model,
            "messages": messages,
            "temperature": temperature,
            "seed": seed,
            "max_tokens": self.max_tokens,
            **(reading or {}),
            **self.extra,
        }
        return self._loaded().ask({name: value for name, value in payload.items() if value is not None})

    def _loaded(self) -> ChatApi:
        if self._api is None:
            raise ApiError("closed while samples were waiting")
        return self._api

    def _messages(self, system: str, asked: Sequence[prompt.Part | Picture]) -> list[Any]:
        parts: list[dict[str, Any]] = []
        for part in asked:
            if isinstance(part, str):
                parts.append({"type": "text", "text": part})
                continue
            if isinstance(part, Picture):
                url, detail = part.url, part.detail
            else:
                url, detail = self._data_url(part), self.detail
            parts.append({"type": "image_url", "image_url": {"url": url} | ({"detail": detail} if detail else {})})
        user = {"role": "user", "content": parts}
        return [{"role": "system", "content": system}, user] if system else [user]

    def _data_url(self, image: Image.Image) -> str:
        return data_url(bounded(image, self.max_pixels), self.image_format, self.jpeg_quality)


def _prompt_mark(asked: Iterable[prompt.Prompt]) -> dict[str, Any]:
    return {"prompt": prompt.prompt_mark(prompt.texts_of(one.system, one.parts) for one in asked)}


def _result_or_error(ask: Callable[[T], R], about: T) -> R | Exception:
    try:
        return ask(about)
    except Exception as error:
        return error
