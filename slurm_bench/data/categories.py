"""The benchmark's five categories and the other names that they go by."""

from __future__ import annotations

CATEGORIES = ("physical", "environmental", "social", "causal", "referential")

ALIASES = {
    "物理": "physical",
    "环境": "environmental",
    "社会": "social",
    "cultural": "social",
    "social/cultural": "social",
    "因果": "causal",
    "指代": "referential",
}


def canonical(name: str) -> str:
    """The one spelling to compare by; a name that isn't ours stays, but for its case and the space around it."""
    folded = name.strip().casefold()
    return ALIASES.get(folded, folded)
