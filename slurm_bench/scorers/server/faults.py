"""What it means that a server answered with an error: for this sample, for all of them, or for now."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from slurm_bench.errors import SampleError, UserError


class ApiError(SampleError):
    """The server gave no judgement for this sample."""


class ApiRefused(UserError):
    """The server would refuse every other request alike: key, quota, address, model or parameters are wrong."""


class Kind(Enum):
    AWAY = "the server can't work for anyone now: not reachable, restarting, overloaded, or its rate limit is reached"
    BROKEN = "the server failed at this request; another try may pass"
    REFUSED = "every request would be refused alike"
    FILTERED = "a content filter refused this sample"
    REJECTED = "this request is at fault"


@dataclass(frozen=True)
class Fault:
    kind: Kind
    said: str


# 520 to 524 are Cloudflare's, of a server behind it; 529 is Anthropic's "overloaded".
_AWAY = {408, 429, 502, 503, 504, 520, 521, 522, 523, 524, 529}
_BROKEN = {409, 425}
_REFUSED = {
    401: "the key was not accepted",
    402: "the account must be paid for",
    403: "the key may not use this model",
    404: "no such address or model (base_url usually ends in /v1)",
    405: "no such address (base_url usually ends in /v1)",
}

# By the `code` or `type` of the error. OpenAI: insufficient_quota, billing_…; Moonshot: exceeded_current_quota_error;
# DashScope: Arrearage. A mere rate limit has others, and passes.
_NO_MONEY = re.compile(
    r"insufficient_(\w+_)?(quota|balance|funds|credits?)|exceeded_current_quota|billing|arrearage", re.I
)
# OpenAI, Azure: content_filter, content_policy_violation; DashScope: data_inspection_failed; OpenRouter: moderation.
_FILTER = re.compile(r"content_?(filter|policy)|responsible_?ai|moderation|flagged|data_?inspection", re.I)
# As `finish_reason`, of a text that isn't whole. OpenRouter; vLLM and SGLang; Zhipu; DeepSeek.
_BROKEN_OFF = ("error", "abort", "network_error", "insufficient_system_resource")
_PARAMETER = re.compile(r"unsupported_(parameter|value)|unknown_parameter|extra_forbidden", re.I)


def fault_of(status: int, body: str) -> Fault:
    """The meaning of an HTTP status and the body that came with it."""
    said = f"HTTP {status}: {body}"
    named = _named(body)
    if _NO_MONEY.search(named) and status < 500:
        return Fault(Kind.REFUSED, f"the quota or the balance is used up; {said}")
    if status in (400, 403) and _FILTER.search(named):
        return Fault(Kind.FILTERED, said)
    if status in _REFUSED:
        return Fault(Kind.REFUSED, f"{_REFUSED[status]}; {said}")
    if status in (400, 422) and (_PARAMETER.search(named) or "Unexpected fields in the request" in body):
        return Fault(Kind.REFUSED, f"the server doesn't take a parameter; params.extra can change or drop it; {said}")
    if status in _AWAY:
        return Fault(Kind.AWAY, said)
    if status in _BROKEN or status >= 500:
        return Fault(Kind.BROKEN, said)
    return Fault(Kind.REJECTED, said)


def fault_within(completion: Mapping[str, Any]) -> Fault | None:
    """The error that some servers (OpenRouter) put into an answer of status 200, or into its choice, whose text ends
    then wherever it was; None without one."""
    error = completion.get("error") or _error_of_choice(completion)
    if not error:
        return None
    code = error.get("code") if isinstance(error, Mapping) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return fault_of(status, json.dumps({"error": error}))


def _error_of_choice(completion: Mapping[str, Any]) -> Any:
    choices = completion.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, Mapping):
        return None
    reason = first.get("finish_reason")
    return first.get("error") or (f"the reply was broken off ({reason})" if reason in _BROKEN_OFF else None)


def _named(body: str) -> str:
    """What the error is called: its code and type, and OpenRouter's reason for a refusal."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else {}
    if not isinstance(error, dict):
        return ""
    inner, metadata = error.get("innererror"), error.get("metadata")
    parts = [error.get("code"), error.get("type")]
    parts += [inner.get("code")] if isinstance(inner, dict) else []
    parts += ["moderation"] if isinstance(metadata, dict) and "flagged_input" in metadata else []
    detail = parsed.get("detail")
    if isinstance(detail, list):
        parts += [one.get("type") for one in detail if isinstance(one, dict)]
    return " ".join(str(part) for part in parts if isinstance(part, str | int))
