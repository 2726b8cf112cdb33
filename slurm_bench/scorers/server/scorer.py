"""Any judge behind an OpenAI-compatible server: vLLM, SGLang, or a commercial one."""

from __future__ import annotations

import base64
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from slurm_bench.errors import UserError
from slurm_bench.scorers.base import Score, Scored, ScoreRequest
from slurm_bench.scorers.judge import parse, prompt
from slurm_bench.scorers.judge.expectation import expected
from slurm_bench.scorers.judge.options import check_judging, json_mapping, number, one_of, text
from slurm_bench.scorers.server import digits
from slurm_bench.scorers.server.answer import Answer
from slurm_bench.scorers.server.chat import Access, ChatApi, Patience
from slurm_bench.scorers.server.faults import ApiError
from slurm_bench.scorers.server.pace import Pace
from slurm_bench.scorers.usage import sum_usage

# A variable's name; anything else may be the key itself, and isn't shown.
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|[A-Z]{1,20}")
_ENDPOINT = re.compile(r"/((chat/)?completions|responses|models|messages)/*$")


@dataclass
class OpenAIScorer:
    """Scores 0 to 10 by the rubrics and the parsing of `Qwen3VLScorer`, which says what `mode`, `aspects`, `min_mass`,
    `retries` and `temperature` mean.

    `base_url` ends before `/chat/completions`. The key is read from the environment variable `api_key_env`; null
    for a server that wants none. `headers` are sent with each request; `api_version` is Azure's. `mode` "expected"
    needs a server that gives log probabilities: the digits are counted among the 20 likeliest first tokens.

    A server that is away, busy or restarting is asked again for `patience` seconds, and then no sample fails:
    ServiceDown ends the task. One that answers other samples and fails at this one is asked up to `max_retries` times
    more. Waits begin at `backoff` seconds and double. `concurrency` requests run at once, so let `score_batch_size` be
    no less. `detail` says how closely OpenAI's models look at images (low, high, auto). `extra` is merged into each
    request's body last; null takes a field out, as in {max_tokens: null, max_completion_tokens: 500}.
    """

    base_url: str
    model: str
    api_key_env: str | None = "OPENAI_API_KEY"
    mode: str = "generate"
    aspects: Sequence[str] = ("overall",)
    rubrics: str | None = None
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

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        text(self, "model")
        one_of(self, "image_format", ("png", "jpeg"))
        number(self, "jpeg_quality", 1, 100)
        one_of(self, "detail", ("low", "high", "auto"), optional=True)
        number(self, "max_tokens", 1, 1 << 20)
        number(self, "timeout", 0.1, 3600.0)
        number(self, "patience", 0.0, 86400.0)
        number(self, "max_retries", 0, 100)
        number(self, "backoff", 0.0, 600.0)
        number(self, "requests_per_minute", 1, 1 << 20, optional=True)
        number(self, "concurrency", 1, 1024)
        text(self, "api_version", optional=True)
        _check_headers(self)
        json_mapping(self, "extra")
        if self.extra.get("stream"):
            raise UserError("'params.extra.stream' is on; this scorer reads whole answers")
        _check_variable(self.api_key_env)
        self._rubrics = check_judging(self)
        self.rubric_names = tuple(self._rubrics.categories)
        self.scores = {aspect: Score(*prompt.SCORE_RANGE) for aspect in self.aspects}
        self._api: ChatApi | None = None

    def check(self) -> None:
        """The key is there. Whether the server accepts it, only a request would tell."""
        self._key()

    def load(self) -> None:
        access = Access(self.base_url, self._key(), self.headers, self.api_version)
        patience = Patience(self.patience, self.max_retries, self.backoff)
        self._api = ChatApi(access, patience, self.timeout, Pace(self.requests_per_minute), self.concurrency)

    def provenance(self) -> dict[str, Any]:
        return {"model": self.model, "server": self.base_url, "rubrics_sha256": self._rubrics.sha256}

    def close(self) -> None:
        if self._api is not None:
            self._api.close()
            self._api = None

    def score(self, batch: Sequence[ScoreRequest]) -> list[Scored | Exception]:
        """What was judged before the server refused or went away is given beside ApiRefused or ServiceDown."""
        if self._api is None:
            raise RuntimeError("the judge is not loaded")
        self._api.try_again()
        pool = ThreadPoolExecutor(self.concurrency, "judge")
        try:
            return list(pool.map(self._judged, batch))
        except BaseException:
            self._api.close()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _judged(self, request: ScoreRequest) -> Scored | Exception:
        try:
            return self._expected(request) if self.mode == "expected" else self._generated(request)
        except Exception as error:
            return error

    def _expected(self, request: ScoreRequest) -> Scored:
        answers, read = [], []
        for aspect in self.aspects:
            asked = prompt.build(request, self._rubrics, prompt.one_digit(self._rubrics, aspect))
            answers.append(self._ask(self._messages(asked), request.seed, 0.0, digits.REQUEST))
            try:
                read.append(digits.digit_answer(aspect, answers[-1]))
            except digits.Unsuited as why:
                raise self._loaded().refuse(str(why)) from None
        result = expected(read, self.aspects, self.min_mass)
        return replace(result, info=result.info | sum_usage(answer.info for answer in answers))

    def _generated(self, request: ScoreRequest) -> Scored:
        asked = prompt.build(request, self._rubrics, prompt.in_json(self._rubrics, self.aspects))
        messages = self._messages(asked)
        answers: list[Answer] = []
        for retry in range(self.retries + 1):
            answers.append(self._ask(messages, request.seed + retry, self.temperature if retry else 0.0))
            reply = parse.Reply(answers[-1].text, self._cut_short(answers[-1]))
            result = parse.scored(reply, self.aspects)
            if result.parse == "ok" or reply.cut_short:
                break
        info = {"judge_retries": len(answers) - 1} if len(answers) > 1 else {}
        return replace(result, info=info | sum_usage(answer.info for answer in answers))

    def _cut_short(self, answer: Answer) -> str | None:
        if answer.cut_by == "filter":
            return "the server's content filter stopped the reply"
        if answer.cut_by == "tokens":
            thinking = " while the judge was thinking" if answer.thought and not answer.text.strip() else ""
            return f"the reply was cut off at the limit of tokens{thinking}: max_tokens is {self.max_tokens}"
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

    def _messages(self, asked: prompt.Prompt) -> list[Any]:
        parts: list[dict[str, Any]] = []
        for part in asked.parts:
            if isinstance(part, Image.Image):
                shown = {"url": self._data_url(part)} | ({"detail": self.detail} if self.detail else {})
                parts.append({"type": "image_url", "image_url": shown})
            else:
                parts.append({"type": "text", "text": part})
        return [{"role": "system", "content": asked.system}, {"role": "user", "content": parts}]

    def _data_url(self, image: Image.Image) -> str:
        buffer = io.BytesIO()
        options = {"quality": self.jpeg_quality} if self.image_format == "jpeg" else {"compress_level": 1}
        bounded(image, self.max_pixels).save(buffer, self.image_format, **options)
        return f"data:image/{self.image_format};base64,{base64.b64encode(buffer.getvalue()).decode()}"

    def _key(self) -> str | None:
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            raise UserError(
                f"'params.api_key_env': the environment variable {self.api_key_env} holds no usable key; "
                "set it, or set api_key_env to null for a server that wants none"
            )
        return key


def bounded(image: Image.Image, max_pixels: int) -> Image.Image:
    """The image with at most `max_pixels`, in its own proportions."""
    scale = math.sqrt(max_pixels / (image.width * image.height))
    if scale >= 1:
        return image
    size = max(1, math.floor(image.width * scale)), max(1, math.floor(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def _check_url(value: Any) -> None:
    if not _is_plain_address(value):
        raise UserError(
            "'params.base_url' is no plain address such as http://host:8000/v1 (no key within; Azure's version is "
            "params.api_version)"
        )
    if endpoint := _ENDPOINT.search(value):
        raise UserError(
            f"'params.base_url' ends in {endpoint.group().rstrip('/')}; take it off: the address is the part before, "
            f"{value[: value.rindex(endpoint.group())]}"
        )


def _is_plain_address(value: Any) -> bool:
    try:
        url = urlsplit(value if isinstance(value, str) else "")
        beside = url.username or url.query or url.fragment or url.port == 0
    except ValueError:
        return False
    return url.scheme in ("http", "https") and bool(url.hostname) and not beside


def _check_headers(params: Any) -> None:
    json_mapping(params, "headers")
    for name, value in params.headers.items():
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise UserError(f"'params.headers.{name}' is no text of printable ASCII letters (it isn't shown)")
        if not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII):
            raise UserError(f"'params.headers' has {name!r}, which is no header's name")


def _check_variable(name: Any) -> None:
    known = isinstance(name, str) and (_VARIABLE.fullmatch(name) or name in os.environ)
    if name is not None and not known:
        raise UserError(
            "'params.api_key_env' isn't the name of an environment variable that holds the key, as OPENAI_API_KEY is "
            "(what was given isn't shown: it may be the key itself); set it to null for a server that wants no key"
        )
