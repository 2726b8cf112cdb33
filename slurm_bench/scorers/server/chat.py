"""A client of an OpenAI-compatible chat server: one question, one answer, or an error that says why there is none."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slurm_bench.errors import ServiceDown
from slurm_bench.scorers.server.answer import Answer, read_answer
from slurm_bench.scorers.server.faults import ApiError, ApiRefused, Fault, Kind, fault_of, fault_within
from slurm_bench.scorers.server.pace import Pace, Turns, retry_after
from slurm_bench.scorers.server.serve import OwnServer

_LONGEST_BACKOFF = 30.0
_LONGEST_RETRY_AFTER = 120.0
_CONNECT_TIMEOUT = 10.0
_DEADLY = "the judge's server died twice with this sample in hand, the second time with it alone"


@dataclass(frozen=True)
class Access:
    """Where the server is and what is sent with each request. `api_version` is Azure's, which wants it in the
    address, and the key in a header of its own."""

    base_url: str
    key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    api_version: str | None = None

    @property
    def all_headers(self) -> dict[str, str]:
        if not self.key:
            return dict(self.headers)
        named = {"api-key": self.key} if self.api_version else {"Authorization": f"Bearer {self.key}"}
        return {**named, **self.headers}

    def hidden(self, text: str) -> str:
        """A server may quote the key or a header that it was sent: `text` in one short line, without them."""
        for secret in (self.key, *self.headers.values()):
            if secret and len(secret) > 3:
                text = text.replace(secret, "[key]")
        return " ".join(text.split())[:400]


@dataclass(frozen=True)
class Patience:
    """How long a request is tried again.

    A server that can't work for anyone is asked again for `seconds`, as it may be restarting. One that fails at this
    request is asked `max_retries` times more, and as long as the other if it fails at everyone's. Whose fault it is
    shows in a request that it has answered before. Waits double from `backoff` seconds, with jitter, up to half a
    minute; Retry-After is heeded.
    """

    seconds: float
    max_retries: int
    backoff: float


class ChatApi:
    """Safe to use from many threads. The key goes into the header of each request, and nowhere else. `server` is one
    that this process has started: it is asked at its own address, without a proxy, and started again where it dies."""

    def __init__(
        self,
        access: Access,
        patience: Patience,
        timeout: float,
        pace: Pace,
        connections: int | None = None,
        server: OwnServer | None = None,
    ) -> None:
        import httpx

        self._access = access
        self._server = server
        self._turns = Turns()
        self._deadly = set[str]()  # requests that our own server has died of
        self._patience = patience
        self._pace = pace
        self._closed = threading.Event()
        self._ended: ApiRefused | ServiceDown | None = None
        self._counting = threading.Lock()
        self._answered: Mapping[str, Any] | None = None  # the last request that was
        self._unanswered = 0  # requests given up since the last answer
        self._http = httpx.Client(
            base_url=access.base_url,
            headers=access.all_headers,
            params={"api-version": access.api_version} if access.api_version else None,
            timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT_TIMEOUT)),
            limits=httpx.Limits(max_connections=connections),
            follow_redirects=False,
            trust_env=server is None,
        )

    def ask(self, payload: Mapping[str, Any]) -> Answer:
        """Raises ApiError for this request, ApiRefused and ServiceDown for all of them. After these, every other
        request ends likewise without being sent: after ApiRefused for ever, after ServiceDown until `try_again`.

        What our own server had in hand when it died is asked again, each request alone. One that it dies of then is
        that sample's error (as law 13 has it for processes), and isn't sent again."""
        if self._deadly and _digest(payload) in self._deadly:
            raise ApiError(_DEADLY)
        suspect = False
        while True:
            with self._turns.taken(alone=suspect):
                try:
                    return self._patiently(payload, alone=suspect)
                except _Revived as revived:
                    if suspect and revived.in_hand:
                        self._deadly.add(_digest(payload))
                        raise ApiError(_DEADLY) from None
                    suspect = suspect or revived.in_hand

    def _patiently(self, payload: Mapping[str, Any], alone: bool) -> Answer:
        """Raises _Revived where our own server died meanwhile and is up again."""
        tries, begin, in_hand = 0, 0.0, False
        while True:
            self._sleep(self._pace.reserve())
            if self._ended is not None:
                raise type(self._ended)(str(self._ended))
            if not tries:
                begin = time.monotonic()
            starts = self._server.starts if self._server else 0
            try:
                return self._once(payload)
            except _Failed as failed:
                tries += 1
                in_hand = in_hand or failed.in_hand
                if self._revived(starts, blamed=alone and in_hand):
                    raise _Revived(in_hand) from None
                away, waited = failed.fault.kind is Kind.AWAY, time.monotonic() - begin
                impatient = waited >= self._patience.seconds
                if impatient or (not away and tries > self._patience.max_retries):
                    works, said = self._works(), f"{failed.fault.said} ({tries} tries in {waited:.0f} s)"
                    if works:
                        raise ApiError(said) from None
                    if impatient:
                        raise self._given_up(away or works is False, said) from None
                self._sleep(max(self._backoff(tries), min(failed.wait, _LONGEST_RETRY_AFTER)))

    def refuse(self, why: str) -> ApiRefused:
        """For the caller to raise: what it found holds for every request."""
        self._ended = ApiRefused(self._access.hidden(why))
        return self._ended

    def try_again(self) -> None:
        """A server that was away may be back."""
        if isinstance(self._ended, ServiceDown):
            self._ended = None

    def close(self) -> None:
        """Waiting threads give up."""
        self._closed.set()
        self._http.close()

    def _works(self) -> bool | None:
        """Whether the server answers what it has answered before; None where it has answered nothing yet. That others
        were answered lately wouldn't tell: those in flight when a server goes away may end before and after it."""
        if self._answered is None:
            return None
        self._sleep(self._pace.reserve())
        try:
            self._once(self._answered)
        except _Failed:
            return False
        except ApiError:  # it looked at the request
            pass
        return True

    def _given_up(self, away: bool, said: str) -> ApiError | ServiceDown:
        """If the server worked on the request and failed, and there is none that it has answered, the request may be at
        fault; a second one that ends so, with no answer between, shows that it's the server."""
        with self._counting:
            self._unanswered += 1
            if not away and self._unanswered == 1:
                return ApiError(said)
        where = self._server.address if self._server else self._access.base_url
        self._ended = ServiceDown(f"the judge's server {where} doesn't work: {said}")
        return self._ended

    def _revived(self, starts: int, blamed: bool) -> bool:
        """Has our own server been started again since its `starts`-th start? Raises ServiceDown."""
        if self._server is None:
            return False
        try:
            self._server.revive(blamed)
        except ServiceDown as down:
            self._ended = down
            raise
        return self._server.starts != starts

    def _backoff(self, tries: int) -> float:
        wait = self._patience.backoff * 2.0 ** min(tries - 1, 30)
        return min(wait, _LONGEST_BACKOFF) * random.uniform(0.5, 1.5)

    def _once(self, payload: Mapping[str, Any]) -> Answer:
        import httpx

        try:
            address = self._server.address if self._server else ""
            response = self._http.post(f"{address}chat/completions", json=payload)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            said = f"no connection ({type(error).__name__}: {error})"
            raise self._failed(Kind.AWAY, said, in_hand=False) from None
        except httpx.TimeoutException:
            raise self._failed(Kind.BROKEN, "the server did not answer in time") from None
        except httpx.TransportError as error:
            raise self._failed(Kind.AWAY, f"the connection failed ({type(error).__name__}: {error})") from None
        if response.is_redirect:
            target = response.headers.get("location", "")
            raise self.refuse(f"'params.base_url': the server sends elsewhere ({response.status_code}): {target}")
        if response.status_code != 200:
            return self._explained(fault_of(response.status_code, response.text), response)
        try:
            completion = json.loads(response.text)
            if isinstance(completion, dict) and (fault := fault_within(completion)):
                return self._explained(fault, response)
            answer = read_answer(completion)
        except RecursionError:
            raise self._failed(Kind.BROKEN, "the answer is no chat completion") from None
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise self._failed(Kind.BROKEN, f"the answer is no chat completion: {response.text}") from None
        self._count_answer()
        self._answered = payload
        return answer

    def _explained(self, fault: Fault, response: Any) -> Answer:
        """A filter's refusal is an answer; any other fault is raised."""
        if fault.kind is Kind.REFUSED:
            raise self.refuse(fault.said)
        if fault.kind in (Kind.AWAY, Kind.BROKEN):
            raise self._failed(fault.kind, fault.said, retry_after(response.headers.get("retry-after")))
        self._count_answer()
        if fault.kind is Kind.FILTERED:
            return Answer(self._access.hidden(fault.said), cut_by="filter")
        raise ApiError(self._access.hidden(fault.said))

    def _count_answer(self) -> None:
        with self._counting:
            self._unanswered = 0

    def _failed(self, kind: Kind, said: str, wait: float = 0.0, in_hand: bool = True) -> _Failed:
        return _Failed(Fault(kind, self._access.hidden(said)), wait, in_hand)

    def _sleep(self, seconds: float) -> None:
        if self._closed.wait(seconds) if seconds > 0 else self._closed.is_set():
            raise ApiError("closed while waiting for the server")


def _digest(payload: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()


class _Failed(Exception):
    """A try that may be followed by another, after `wait` seconds at least. `in_hand`: the server may have had it."""

    def __init__(self, fault: Fault, wait: float, in_hand: bool) -> None:
        super().__init__(fault.said)
        self.fault, self.wait, self.in_hand = fault, wait, in_hand


class _Revived(Exception):
    """Our own server died, and is up again. `in_hand`: it may have had the request."""

    def __init__(self, in_hand: bool) -> None:
        super().__init__()
        self.in_hand = in_hand
