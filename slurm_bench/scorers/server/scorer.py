"""Any judge behind an OpenAI-compatible server: vLLM, SGLang, or a commercial one."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from slurm_bench.errors import UserError
from slurm_bench.scorers.base import Score, Scored, ScoreRequest
from slurm_bench.scorers.judge import parse, prompt
from slurm_bench.scorers.judge.options import as_names, number, one_of
from slurm_bench.scorers.judge.rubric import Rubrics, load_rubrics
from slurm_bench.scorers.server.chat import ApiError, ChatApi, Pace


@dataclass
class OpenAIScorer:
    """Scores 0 to 10 by the rubrics and the parsing of `Qwen3VLScorer`, which says what `mode`, `aspects`, `min_mass`,
    `retries` and `temperature` mean.

    `base_url` ends before `/chat/completions`. The key is read from the environment variable `api_key_env`; null
    for a server that wants none. `mode` "expected" needs a server that gives log probabilities: the digits are
    counted among the 20 likeliest first tokens.

    A server silent for `timeout` seconds, or one that is too busy, is asked again up to `max_retries` times, first
    after about `backoff` seconds, then after twice as long each. `concurrency` requests run at once, so let
    `score_batch_size` be no less. `extra` is merged into each request's body last; null takes a field out, as in
    {max_tokens: null, max_completion_tokens: 500}.
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
    max_tokens: int = 512
    min_mass: float = 0.5
    retries: int = 2
    temperature: float = 0.7
    timeout: float = 120.0
    max_retries: int = 5
    backoff: float = 1.0
    requests_per_minute: int | None = None
    concurrency: int = 8
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query:
            raise UserError("'params.base_url' is no plain address such as http://host:8000/v1 (no key within)")
        one_of(self, "mode", parse.MODES)
        one_of(self, "image_format", ("png", "jpeg"))
        number(self, "max_pixels", 32 * 32, 1 << 26)
        number(self, "jpeg_quality", 1, 100)
        number(self, "max_tokens", 1, 1 << 20)
        number(self, "min_mass", 0.0, 1.0)
        number(self, "retries", 0, 100)
        number(self, "temperature", 0.01, 10.0)
        number(self, "timeout", 0.1, 3600.0)
        number(self, "max_retries", 0, 100)
        number(self, "backoff", 0.0, 600.0)
        number(self, "concurrency", 1, 1024)
        if self.requests_per_minute is not None:
            number(self, "requests_per_minute", 1, 1 << 20)
        self.aspects = as_names(self.aspects)
        self._rubrics: Rubrics = load_rubrics(self.rubrics)
        self._rubrics.require(self.aspects)
        self.scores = {aspect: Score(*prompt.SCORE_RANGE) for aspect in self.aspects}
        self._api: ChatApi | None = None

    def check(self) -> None:
        """The key is there. Whether the server accepts it, only a request would tell."""
        self._key()

    def load(self) -> None:
        pace = Pace(self.requests_per_minute)
        self._api = ChatApi(self.base_url, self._key(), self.timeout, self.max_retries, self.backoff, pace)

    def provenance(self) -> dict[str, Any]:
        return {"model": self.model, "server": self.base_url, "rubrics_sha256": self._rubrics.sha256}

    def close(self) -> None:
        if self._api is not None:
            self._api.close()
            self._api = None

    def score(self, batch: Sequence[ScoreRequest]) -> list[Scored | Exception]:
        if self._api is None:
            raise RuntimeError("the judge is not loaded")
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
        answers = []
        for aspect in self.aspects:
            asked = prompt.build(request, self._rubrics, prompt.one_digit(self._rubrics, aspect))
            reading = {"max_tokens": 1, "logprobs": True, "top_logprobs": 20}
            answer = self._ask(self._messages(asked), request.seed, 0.0, reading)
            if not answer.first:
                raise ApiError("the server gives no log probabilities; take mode: generate")
            probabilities = dict.fromkeys(prompt.DIGITS, 0.0)
            for token, probability in answer.first:
                if token.strip() in probabilities:
                    probabilities[token.strip()] += probability
            answers.append(parse.Digits(aspect, probabilities, answer.text))
        return parse.expected(answers, self.min_mass)

    def _generated(self, request: ScoreRequest) -> Scored:
        asked = prompt.build(request, self._rubrics, prompt.in_json(self._rubrics, self.aspects))
        messages = self._messages(asked)
        result = parse.scored(self._ask(messages, request.seed, 0.0).text, self.aspects)
        for retry in range(1, self.retries + 1):
            if result.parse == "ok":
                break
            answer = self._ask(messages, request.seed + retry, self.temperature)
            result = replace(parse.scored(answer.text, self.aspects), info={"judge_retries": retry})
        return result

    def _ask(self, messages: list[Any], seed: int, temperature: float, reading: Mapping[str, Any] | None = None) -> Any:
        if self._api is None:
            raise ApiError("closed while samples were waiting")
        payload = {
            "model": self.model,
            "messages": messages,
            "temperature": temperature,
            "seed": seed,
            "max_tokens": self.max_tokens,
            **(reading or {}),
            **self.extra,
        }
        return self._api.ask({name: value for name, value in payload.items() if value is not None})

    def _messages(self, asked: prompt.Prompt) -> list[Any]:
        parts: list[dict[str, Any]] = []
        for part in asked.parts:
            if isinstance(part, Image.Image):
                parts.append({"type": "image_url", "image_url": {"url": self._data_url(part)}})
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
