"""How far the judges can be trusted, in plain sentences: what `health` and `agreement` of the summary say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def judge_notes(summary: Mapping[str, Any]) -> dict[str, list[str]]:
    """By scorer, and what two say of each other under both names. Empty where nothing is known."""
    notes = {name: list(_health(found)) for name, found in summary["health"].items()}
    for row in summary["agreement"]:
        notes.setdefault(" and ".join(row["scorers"]), []).append(
            f"{row['score']}, {row['n']} samples: rank correlation {_number(row['spearman'])}, weighted kappa "
            f"{_number(row['weighted_kappa'])}; the second marks {_number(row['mean_shift'], '+')} from the first"
        )
    return {name: lines for name, lines in notes.items() if lines}


def _health(found: Mapping[str, Any]) -> Iterator[str]:
    for score, row in found.get("unchanged", {}).get("scores", {}).items():
        liked = "; it likes edits that change nothing" if row["likes_no_ops"] else ""
        got = f"{row['n']} unchanged images got {_number(row['mean'])}, the others {_number(row['others'])}"
        yield f"{score}: {got}{liked}"
    for category, count in found.get("parse_failures", {}).items():
        yield f"{category}: replies that couldn't be read: {count}"
    for score, ends in found.get("extremes", {}).items():
        yield f"{score}: " + ", ".join(f"{_percent(share)} at the {end} value" for end, share in ends.items())
    for aspect, mass in found.get("mass", {}).items():
        least = f"at least {_percent(mass['lowest'])}"
        yield f"{aspect}: {_percent(mass['mean'])} of the probability is on score tokens, {least}"
    if usage := found.get("usage"):
        tokens = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in usage.items())
        yield f"{tokens}, by {found.get('served_model', 'an unknown model')}"


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
