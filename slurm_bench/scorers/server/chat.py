"""A client of an OpenAI-compatible chat server: one question, one answer, or an error that says why there is none."""

from __future__ import annotations

import email.utils
import json
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from slurm_bench.errors import SampleError

# What another try may mend: a timeout at the server, a conflict, too many requests, any fault of the server's own.
_PASSING = {408, 409, 425, 429}
_REFUSED = {
    401: "the key was not accepted",
    403: "the key may not use this model",
    404: "no such address or model",
}
_LONGEST_WAIT = 120.0


class ApiError(SampleError):
    """The server gave no judgement for this sample."""


class ApiRefused(ApiError):
    """The server would refuse every other request alike: key, address or model are wrong."""


@dataclass(frozen=True)
class Answer:
    """`text` is what the model wrote ("" if nothing); `first` the probabilities of the first token's candidates,
    if they were asked for, as (token, probability)."""

    text: str
    first: tuple[tuple[str, float], ...] = ()


class Pace:
    """At most `per_minute` starts within any minute, over all threads; None for no limit."""

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._starts: deque[float] = deque()
        self._lock = threading.Lock()

    def reserve(self) -> float:
        """Take the next free place; gives the seconds to wait for it."""
        if self.per_minute is None:
            return 0.0
        with self._lock:
            now = self._clock()
            while self._starts and self._starts[0] <= now - 60:
                self._starts.popleft()
            busy = len(self._starts) - self.per_minute
            start = now if busy < 0 else max(now, self._starts[busy] + 60)
            self._starts.append(start)
            return start - now


class ChatApi:
    """Safe to use from many threads. The key goes into the header of each request, and nowhere else.

    Retried up to `max_retries` times, with a wait that doubles from `backoff` seconds and jitter, or as long as
    Retry-After says: connections that fail, timeouts, 429 and 5xx, answers that aren't a chat completion.
    """

    def __init__(
        self, base_url: str, key: str | None, timeout: float, max_retries: int, backoff: float, pace: Pace
    ) -> None:
        import httpx

        self._key = key
        self._max_retries = max_retries
        self._backoff = backoff
        self._pace = pace
        self._closed = threading.Event()
        self._refused: ApiRefused | None = None
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=timeout, follow_redirects=False)

    def ask(self, payload: Mapping[str, Any]) -> Answer:
        """Raises ApiError."""
        tried = 0
        while True:
            self._sleep(self._pace.reserve())
            if self._refused is not None:
                raise ApiRefused(str(self._refused))
            try:
                return self._once(payload)
            except _Passing as passing:
                if tried == self._max_retries:
                    raise ApiError(f"{passing} ({tried + 1} tries)") from None
                wait = self._backoff * 2**tried * random.uniform(0.5, 1.5)
                self._sleep(min(max(wait, passing.wait), _LONGEST_WAIT))
            tried += 1

    def close(self) -> None:
        """Waiting threads give up."""
        self._closed.set()
        self._http.close()

    def _once(self, payload: Mapping[str, Any]) -> Answer:
        import httpx

        try:
            response = self._http.post("chat/completions", json=payload)
        except httpx.TimeoutException:
            raise _Passing("the server did not answer in time") from None
        except httpx.TransportError as error:
            raise _Passing(f"the connection failed: {type(error).__name__}") from None
        status = response.status_code
        if status == 200:
            return self._answer(response.text)
        said = f"HTTP {status}: {self._hidden(response.text)}"
        if status in _REFUSED:
            self._refused = ApiRefused(f"{_REFUSED[status]}; {said}")
            raise self._refused
        if status in _PASSING or status >= 500:
            raise _Passing(said, retry_after(response.headers.get("retry-after")))
        raise ApiError(said)

    def _answer(self, body: str) -> Answer:
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            raise _Passing(f"the answer is not JSON: {self._hidden(body)}") from None
        if isinstance(parsed, dict) and parsed.get("error"):
            raise _Passing(f"the server reports an error: {self._hidden(json.dumps(parsed['error']))}")
        try:
            choice = parsed["choices"][0]
            message = choice["message"]
            text = message.get("content") or message.get("refusal") or ""
            if not isinstance(text, str):
                raise TypeError
            return Answer(text.encode("utf-8", "replace").decode(), _first_token(choice.get("logprobs")))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise _Passing(f"the answer is no chat completion: {self._hidden(body)}") from None

    def _hidden(self, text: str) -> str:
        """A server may quote the key that it was sent."""
        shown = text.replace(self._key, "[key]") if self._key else text
        return " ".join(shown.split())[:300] or "(empty)"

    def _sleep(self, seconds: float) -> None:
        if self._closed.wait(seconds) if seconds > 0 else self._closed.is_set():
            raise ApiError("closed while waiting for the server")


class _Passing(Exception):
    """Worth another try, after `wait` seconds at least."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


def retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for, said in seconds or as a date; 0 without a usable one."""
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0


def _first_token(logprobs: Any) -> tuple[tuple[str, float], ...]:
    """Empty where the server gives no log probabilities. Raises what a value of another shape raises."""
    if not logprobs or not logprobs.get("content"):
        return ()
    candidates = logprobs["content"][0]["top_logprobs"]
    return tuple((str(candidate["token"]), _probability(candidate["logprob"])) for candidate in candidates)


def _probability(logarithm: float) -> float:
    if math.isnan(logarithm):
        raise ValueError("a log probability is NaN")
    return math.exp(min(0.0, logarithm))
