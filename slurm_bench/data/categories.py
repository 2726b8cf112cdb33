"""Categories: one spelling each, in plan, report and rubric alike."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from unicodedata import normalize

CATEGORIES = ("physical", "environmental", "social", "causal", "referential")

UNCATEGORISED = "uncategorised"  # what a sample without a category is counted under
DEFAULT_RUBRIC = "default"  # by which a category without one of its own is judged

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
    """What two spellings of one category have in common: ours by its English name, any other without regard to case,
    white space and how accents are composed."""
    folded = normalize("NFC", " ".join(name.split()).casefold())
    return ALIASES.get(folded, folded)


def one_spelling(name: str, spellings: dict[str, str]) -> str:
    """The name to go by: ours is English; another keeps the first spelling that the data has for it, which neither a
    filter nor a limit changes. `spellings` is what was met so far."""
    known = canonical(name)
    return known if known in CATEGORIES else spellings.setdefault(known, " ".join(name.split()))


def rubrics_by_category(categories: Iterable[str], rubrics: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Which category is judged by which rubric, and the names that may be mistyped, a line each: rubrics that no sample
    has, and categories without a rubric that are spelt nearly as one."""
    by_name = {canonical(rubric): rubric for rubric in rubrics if rubric != DEFAULT_RUBRIC}
    found = {category: by_name.get(canonical(category), DEFAULT_RUBRIC) for category in sorted(categories)}
    met = {canonical(category) for category in found}
    unmet = {name: rubric for name, rubric in by_name.items() if name not in met}
    doubts = []
    for category in found:
        near = difflib.get_close_matches(canonical(category), by_name, n=1, cutoff=0.8)
        if canonical(category) not in by_name and near:
            unmet.pop(near[0], None)
            doubts.append(f"category '{category}' has no rubric of its own; is it '{by_name[near[0]]}', mistyped?")
    if unmet:
        doubts.append(f"rubrics that no sample needs: {', '.join(sorted(unmet.values()))}")
    return found, doubts


def rubric_lines(counts: Mapping[str, int], rubrics: Iterable[str]) -> list[str]:
    """What `rubrics_by_category` finds, in lines for a person, with how many samples a category has."""
    found, doubts = rubrics_by_category(counts, rubrics)
    each = [
        f"{category}: {counts[category]} {'sample' if counts[category] == 1 else 'samples'}, rubric '{rubric}'"
        for category, rubric in found.items()
    ]
    return each + doubts
