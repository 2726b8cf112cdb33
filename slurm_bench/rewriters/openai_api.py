"""A language model behind an OpenAI-compatible server that rewrites each instruction before it is edited by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slurm_bench.config import utf8_text
from slurm_bench.editors.base import EditRequest
from slurm_bench.errors import SampleError, UserError
from slurm_bench.rewriters.base import Rewritten
from slurm_bench.scorers.judge.options import number, text
from slurm_bench.scorers.judge.parse import Unreadable, after_thinking
from slurm_bench.scorers.judge.prompt import flat
from slurm_bench.scorers.server.answer import Answer
from slurm_bench.scorers.server.chat import ChatApi
from slurm_bench.scorers.server.settings import bounded, check_asking, check_url, data_url, make_api, read_key

PROMPT = """You prepare instructions for an image-editing model.
Rewrite the instruction that you are given so that the model can carry it out without guessing: say plainly what \
changes, where, and how it should look afterwards, and that everything else stays as it is. Keep what was meant: add \
no wish of your own, leave none out, and keep any text that should appear in the image, and its language, letter by \
letter.
Answer with the rewritten instruction alone, in the language of the instruction."""

# Requests of one task that run at once.
CONNECTIONS = 4


@dataclass
class OpenAIRewriter:
    """`prompt` is a text file with what the model is told, in place of PROMPT; the instruction is its next message.
    `show_sources` sends the source images too, each of at most `max_pixels`, to a model that takes them.

    The other parameters are those of `OpenAIScorer`. A reply that is cut short, filtered, refused or empty is that
    sample's error; the instruction as it was never takes its place.
    """

    base_url: str
    model: str
    api_key_env: str | None = "OPENAI_API_KEY"
    prompt: Path | None = None
    show_sources: bool = False
    max_pixels: int = 1024 * 1024
    max_tokens: int = 1024
    temperature: float = 0.0
    timeout: float = 120.0
    patience: float = 300.0
    max_retries: int = 5
    backoff: float = 1.0
    requests_per_minute: int | None = None
    api_version: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict)

    concurrent = True

    def __post_init__(self) -> None:
        check_url(self.base_url)
        text(self, "model")
        check_asking(self)
        number(self, "max_pixels", 32 * 32, 1 << 26)
        number(self, "temperature", 0.0, 10.0)
        self._prompt = PROMPT if self.prompt is None else _read(Path(self.prompt))
        self._api: ChatApi | None = None

    def check(self) -> None:
        read_key(self.api_key_env)

    def load(self) -> None:
        self._api = make_api(self, self.base_url, read_key(self.api_key_env), CONNECTIONS)

    def provenance(self) -> dict[str, Any]:
        prompt = hashlib.sha256(self._prompt.encode()).hexdigest()
        return {"model": self.model, "server": self.base_url, "prompt_sha256": prompt}

    def close(self) -> None:
        if self._api is not None:
            self._api.close()
            self._api = None

    def rewrite(self, request: EditRequest) -> Rewritten:
        if self._api is None:
            raise RuntimeError("the rewriter is not loaded")
        payload = {
            "model": self.model,
            "messages": self._messages(request),
            "temperature": self.temperature,
            "seed": request.seed,
            "max_tokens": self.max_tokens,
            **self.extra,
        }
        answer = self._api.ask({name: value for name, value in payload.items() if value is not None})
        return Rewritten(self._said(answer), dict(answer.info))

    def _messages(self, request: EditRequest) -> list[dict[str, Any]]:
        content: str | list[dict[str, Any]] = request.instruction
        if self.show_sources:
            urls = [data_url(bounded(flat(image), self.max_pixels)) for image in request.images]
            content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            content += [{"type": "text", "text": request.instruction}]
        return [{"role": "system", "content": self._prompt}, {"role": "user", "content": content}]

    def _said(self, answer: Answer) -> str:
        """Raises SampleError."""
        if answer.cut_by == "tokens":
            raise SampleError(f"the reply was cut off at the limit of tokens: max_tokens is {self.max_tokens}")
        if answer.cut_by == "filter":
            raise SampleError("the server's content filter stopped the reply")
        if answer.refused:
            raise SampleError(f"the model refused: {answer.text}")
        try:
            return after_thinking(answer.text).strip()
        except Unreadable:
            raise SampleError("the reply ends within the model's thinking") from None


def _read(file: Path) -> str:
    try:
        prompt = utf8_text(file).strip()
    except OSError as error:
        raise UserError(f"'params.prompt': {file}: {error.strerror}") from None
    except UserError as error:
        raise UserError(f"'params.prompt': {error}") from None
    if not prompt:
        raise UserError(f"'params.prompt': {file} is empty")
    return prompt
