"""What asking a server cost, and which model answered: in a record's `info`, and summed over a run's records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

TOKENS = ("prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens")


def usage_of(completion: Mapping[str, Any]) -> dict[str, Any]:
    """What a chat completion's body says of itself, for `info`; {} where it says nothing."""
    said: dict[str, Any] = {}
    usage = completion.get("usage")
    if isinstance(usage, Mapping):
        details = [usage.get(name) for name in ("completion_tokens_details", "prompt_tokens_details")]
        parts = [usage, *(detail for detail in details if isinstance(detail, Mapping))]
        said["usage"] = {name: part[name] for name in TOKENS for part in parts if _is_count(part.get(name))}
    for name, key in (("model", "served_model"), ("system_fingerprint", "system_fingerprint")):
        if isinstance(completion.get(name), str) and completion[name]:
            said[key] = completion[name]
    return {key: value for key, value in said.items() if value}


def sum_usage(infos: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Over the `info` of records, or over the answers to one sample: `usage` with the sum of each kind of tokens, and
    `served_model` and `system_fingerprint`: the one that all were answered by, or how many by each. {} where no
    server said anything. What was read back from a file may be of any shape."""
    tokens: Counter[str] = Counter()
    served: dict[str, Counter[str]] = {"served_model": Counter(), "system_fingerprint": Counter()}
    for info in infos:
        usage = info.get("usage")
        if isinstance(usage, Mapping):
            tokens.update({name: usage[name] for name in TOKENS if _is_count(usage.get(name))})
        for key, counter in served.items():
            said = info.get(key)
            if isinstance(said, str):
                counter[said] += 1
            elif isinstance(said, Mapping):
                counter.update({str(name): count for name, count in said.items() if _is_count(count)})
    summed: dict[str, Any] = {"usage": dict(tokens)} if tokens else {}
    for key, counter in served.items():
        if counter:
            summed[key] = next(iter(counter)) if len(counter) == 1 else dict(counter)
    return summed


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
