"""How far the judges can be trusted, in plain sentences: what `health`, `agreement` and `people` of the summary say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from slurm_bench.report.number import number, span
from slurm_bench.report.prediction_powered import FEWEST


def judge_notes(summary: Mapping[str, Any]) -> dict[str, list[str]]:
    """Sentences by scorer: of one alone, of two under both names, and of `people`. Empty where nothing is known."""
    notes = {name: list(_health(found)) for name, found in summary["health"].items()}
    for row in summary["agreement"]:
        told = notes.setdefault(" and ".join(row["scorers"]), [])
        told.append(_twice(row) if row["same_judge"] else _two(row))
    notes["people"] = [_ranked(row) for row in summary["people"]]
    for row in summary["people"]:
        if row["score"] == summary["headline"]:
            notes["people"] += _over_all(row)
    return {name: lines for name, lines in notes.items() if lines}


def _health(found: Mapping[str, Any]) -> Iterator[str]:
    alike = found.get("unchanged", {})
    nearly = f", {alike['nearly']} of them nearly," if alike.get("nearly") else ""
    for score, row in alike.get("scores", {}).items():
        liked = "; it likes edits that change nothing" if row["likes_no_ops"] else ""
        got = f"{row['n']} unchanged images{nearly} got {number(row['mean'])}, the others {number(row['others'])}"
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


def _two(row: Mapping[str, Any]) -> str:
    told = f"{row['score']}, {row['n']} samples: rank correlation {number(row['spearman'])}"
    if row["mean_shift"] is None:
        return told
    return (
        f"{told}, weighted kappa {number(row['weighted_kappa'])}; the second marks {number(row['mean_shift'], '+')} "
        "from the first"
    )


def _twice(row: Mapping[str, Any]) -> str:
    """Each of two marks has half of the variance of their difference."""
    said = f"{row['score']}, {row['n']} samples judged twice by the same judge: {_share(row['equal'])} got equal marks"
    if not row["sd"]:
        return said
    one = row["sd"] / math.sqrt(2)
    return (
        f"{said}; the differences' standard deviation is {number(row['sd'])}, so its noise moves one mark by "
        f"{number(one)} and their mean by {number(one / math.sqrt(row['n']))} (standard error)"
    )


def _ranked(row: Mapping[str, Any]) -> str:
    score = row["score"]
    without = f" ({row['without_score']} further marks are of samples without it)" if row["without_score"] else ""
    told = f"{score}, {row['n']} samples that people marked{without}: rank correlation {number(row['spearman'])}"
    if row["mean_shift"] is not None:
        told += f", weighted kappa {number(row['weighted_kappa'])}; it marks {number(row['mean_shift'], '+')} from them"
    return told


def _over_all(row: Mapping[str, Any]) -> Iterator[str]:
    """People's mean over all samples. It is told for the headline alone: of several estimates the narrowest would be
    believed, and too often be wrong."""
    score, over = row["score"], row["people_over_all"]
    if over is None:
        yield f"{score}: fewer than {FEWEST} marks (or source images of them) say nothing of the others"
        return
    alone = _with_interval(row["marks_alone"])
    few = ", of too few marks to trust the interval where marks are skewed" if over["too_few"] else ""
    yield (
        f"{score}: people's mean over all {row['of']} samples is {_with_interval(over)} by the marks and this score of "
        f"all{few}; by the marks alone {alone}. It holds if chance chose what was marked"
    )
    if row["drawn_otherwise"] is not None:
        yield (
            f"{score}: the marked samples' mean is {number(row['drawn_otherwise'], '+')} from the others', by more "
            "than chance explains: people's mean over all can't be concluded from them"
        )
    if not over["width"]:  # all marks lie on one line through the scores
        return
    needed = over["marks_for_width"]
    wanted = f"{score}: an interval {over['width']:.3g} wide"
    yield f"{wanted} would take {needed} marks" if needed else f"{wanted} would take more samples than the run has"


def _with_interval(row: Mapping[str, Any]) -> str:
    within = f" (95 % interval {span(row)})" if row["ci_low"] is not None else ""
    return f"{number(row['mean'])}{within}"


def _share(share: float | None) -> str:
    return "–" if share is None else _percent(share)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
