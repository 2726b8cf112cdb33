"""What the judgements of pairs come to: each run's strength, and how much the judge went by the order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from slurm_bench.report.davidson import LOSS, WIN, Judged, Strength, strengths
from slurm_bench.report.davidson import TIE as DRAWN
from slurm_bench.report.judgements import Asked, Judgement, Match, outcome
from slurm_bench.report.side import Side
from slurm_bench.report.summary import source_marks
from slurm_bench.scorers.protocols.pairwise import FIRST, SECOND, TIE, Asker

OF_FIRST = {FIRST: WIN, SECOND: LOSS, TIE: DRAWN}

# What the two orders of a pair may say: the same run (or a tie twice), the one shown first twice, the one shown second
# twice, or a run once and a tie once.
BIAS = ("agreed", "first_twice", "second_twice", "half_a_tie")


def results(
    sides: Sequence[Side], askers: Mapping[str, Asker], matches: Sequence[Match], known: Mapping[Asked, Judgement]
) -> dict[str, Any]:
    marks = source_marks(sides[0].state)
    units: dict[Any, int] = {}
    judged: list[Judged] = []
    counts: dict[str, Counter[str]] = {name: Counter() for name in askers}
    for number, (name, asker) in enumerate(askers.items()):
        for match in matches:
            of_first = _of_both(match, match.asked(name, asker.by), known, counts[name])
            if of_first is not None:
                mark = marks.get(sides[match.first].samples[match.sample].id, match.sample)
                unit = units.setdefault(mark, len(units))
                judged.append(Judged(unit, number, match.first, match.second, of_first))
    overall, nus = strengths(judged, len(sides))
    alone = {}
    for n, name in enumerate(askers):
        own = [replace(one, dimension=0) for one in judged if one.dimension == n]
        alone[name] = strengths(own, len(sides), resamples=0)[0]
    rows = [_row(n, side, overall, alone, judged) for n, side in enumerate(sides)]
    return {
        "runs": sorted(rows, key=lambda row: -(row["elo"] if row["elo"] is not None else float("-inf"))),
        "dimensions": {
            name: {
                "by": asker.by,
                "judge": asker.judge.provenance().get("model"),
                "nu": nus[n] if n < len(nus) else None,
                **{key: counts[name][key] for key in ("judged", "unread", "missing", "identical", *BIAS)},
            }
            for n, (name, asker) in enumerate(askers.items())
        },
        "units": len(units),
    }


def _of_both(
    match: Match, asked: tuple[Asked, Asked], known: Mapping[Asked, Judgement], counts: Counter[str]
) -> str | None:
    """The outcome of the pair's first; None where it isn't judged in both orders."""
    if match.images[0] == match.images[1]:
        counts["identical"] += 1
        return DRAWN
    judgements = [known.get(one) for one in asked]
    winners = [one.winner for one in judgements if one is not None and one.winner is not None]
    if len(winners) < 2:
        counts["missing" if None in judgements else "unread"] += 1
        return None
    counts["judged"] += 1
    one, two = winners
    if one == two and one != TIE:
        counts["first_twice" if one == FIRST else "second_twice"] += 1
    elif one != two and TIE in (one, two):
        counts["half_a_tie"] += 1
    else:
        counts["agreed"] += 1
    return OF_FIRST[outcome(one, two)]


def _row(
    number: int,
    side: Side,
    overall: Sequence[Strength],
    alone: Mapping[str, Sequence[Strength]],
    judged: Sequence[Judged],
) -> dict[str, Any]:
    own = Counter(j.outcome for j in judged if j.first == number)
    others = Counter(j.outcome for j in judged if j.second == number)
    return {
        "run": side.name,
        "folder": str(side.run.root),
        **asdict(overall[number]),
        "wins": own[WIN] + others[LOSS],
        "ties": own[DRAWN] + others[DRAWN],
        "losses": own[LOSS] + others[WIN],
        "dimensions": {name: found[number].elo for name, found in alone.items()},
    }
