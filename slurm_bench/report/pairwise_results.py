"""What the judgements of pairs come to: each run's strength, and how much the judge went by the order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

from slurm_bench.report.davidson import LOSS, WIN, Judged, Strength, strengths
from slurm_bench.report.davidson import TIE as DRAWN
from slurm_bench.report.judgements import Asked, Judgement, Match, outcome
from slurm_bench.report.side import Side
from slurm_bench.report.sources import source_marks
from slurm_bench.run.records import failure_kind
from slurm_bench.scorers.protocols.pairwise import FIRST, SECOND, TIE, Asker

OF_FIRST = {FIRST: WIN, SECOND: LOSS, TIE: DRAWN}
TURNED = {WIN: LOSS, LOSS: WIN, DRAWN: DRAWN}

# What the two orders of a pair may say: the same run (or a tie twice), the one shown first twice, the one shown second
# twice, or a run once and a tie once.
AGREED, FIRST_TWICE, SECOND_TWICE, HALF_A_TIE = BIAS = ("agreed", "first_twice", "second_twice", "half_a_tie")
IDENTICAL, UNREAD, MISSING = "identical", "unread", "missing"


@dataclass(frozen=True)
class Verdict:
    """What a match came to in one dimension. `kind` is one of BIAS, or why it wasn't judged in both orders; `outcome`
    is that of the match's first, None where there is none. `said` is what the judge said in each order."""

    match: Match
    dimension: str
    kind: str
    outcome: str | None
    said: tuple[Judgement | None, Judgement | None] = (None, None)

    @property
    def by_order(self) -> bool:
        """Whether the judge would have named another run, or none, had it been shown them in one order alone."""
        return self.kind in BIAS and self.kind != AGREED


def verdicts_of(
    matches: Sequence[Match], askers: Mapping[str, Asker], known: Mapping[Asked, Judgement]
) -> list[Verdict]:
    return [_verdict(match, name, asker.by, known) for name, asker in askers.items() for match in matches]


def _verdict(match: Match, dimension: str, by: str, known: Mapping[Asked, Judgement]) -> Verdict:
    if match.images[0] == match.images[1]:
        return Verdict(match, dimension, IDENTICAL, DRAWN)
    straight, turned = match.asked(dimension, by)
    said = known.get(straight), known.get(turned)
    one, two = (None if judgement is None else judgement.winner for judgement in said)
    if one is None or two is None:
        return Verdict(match, dimension, MISSING if None in said else UNREAD, None, said)
    if one == two and one != TIE:
        kind = FIRST_TWICE if one == FIRST else SECOND_TWICE
    else:
        kind = HALF_A_TIE if one != two and TIE in (one, two) else AGREED
    return Verdict(match, dimension, kind, OF_FIRST[outcome(one, two)], said)


def results(
    sides: Sequence[Side], askers: Mapping[str, Asker], verdicts: Sequence[Verdict], problems: Mapping[Asked, str]
) -> dict[str, Any]:
    """`problems` say why a question wasn't answered."""
    marks, numbers = source_marks(sides[0].state), {name: n for n, name in enumerate(askers)}
    units: dict[Any, int] = {}
    judged: list[Judged] = []
    by_category: dict[str, list[Judged]] = {}
    for verdict in verdicts:
        match = verdict.match
        if verdict.outcome is None:
            continue
        sample = sides[match.first].samples[match.sample]
        unit = units.setdefault(marks.get(sample.id, match.sample), len(units))
        one = Judged(unit, numbers[verdict.dimension], match.first, match.second, verdict.outcome)
        judged.append(one)
        by_category.setdefault(sample.category, []).append(one)
    overall, nus = strengths(judged, len(sides))
    alone = {name: [replace(j, dimension=0) for j in judged if j.dimension == n] for name, n in numbers.items()}
    in_dimension, in_category = (
        {name: (own, strengths(own, len(sides))[0]) for name, own in parts.items()}
        for parts in (alone, dict(sorted(by_category.items())))
    )
    rows = [
        {
            "run": side.name,
            "folder": str(side.run.root),
            **_of_run(n, judged, overall),
            "dimensions": {name: _of_run(n, *found) for name, found in in_dimension.items()},
            "categories": {name: _of_run(n, *found) for name, found in in_category.items()},
        }
        for n, side in enumerate(sides)
    ]
    return {
        "runs": sorted(rows, key=lambda row: -(row["elo"] if row["elo"] is not None else float("-inf"))),
        "dimensions": {
            name: {
                "by": asker.by,
                "judge": asker.judge.provenance().get("model"),
                "nu": nus[n] if n < len(nus) else None,
                **_counts(verdict for verdict in verdicts if verdict.dimension == name),
                "problems": _causes(said for asked, said in problems.items() if asked.dimension == name),
            }
            for n, (name, asker) in enumerate(askers.items())
        },
        "pairs": [_pair(sides, first, second, verdicts) for first, second in combinations(range(len(sides)), 2)],
        "units": len(units),
    }


def _of_run(number: int, judged: Iterable[Judged], found: Sequence[Strength]) -> dict[str, Any]:
    games: Counter[str] = Counter()
    for one in judged:
        if number in (one.first, one.second):
            games[one.outcome if one.first == number else TURNED[one.outcome]] += 1
    return {**asdict(found[number]), "wins": games[WIN], "ties": games[DRAWN], "losses": games[LOSS]}


def _pair(sides: Sequence[Side], first: int, second: int, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """What two runs' matches came to, each dimension by itself."""
    own = [one for one in verdicts if (one.match.first, one.match.second) == (first, second)]
    dimensions = {}
    for name in dict.fromkeys(one.dimension for one in own):
        here = [one for one in own if one.dimension == name]
        games = Counter(one.outcome for one in here)
        dimensions[name] = {"wins": games[WIN], "ties": games[DRAWN], "losses": games[LOSS], **_counts(here)}
    return {"first": sides[first].name, "second": sides[second].name, "dimensions": dimensions}


def _counts(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many were judged in both orders and what the orders said, and why the others weren't."""
    kinds = Counter(verdict.kind for verdict in verdicts)
    return {"judged": sum(kinds[kind] for kind in BIAS), **{k: kinds[k] for k in (UNREAD, MISSING, IDENTICAL, *BIAS)}}


def _causes(said: Iterable[str]) -> dict[str, int]:
    """How often each, the most frequent first, told apart as failures are: two that differ in their numbers are one."""
    first: dict[Any, str] = {}
    counts = Counter(first.setdefault(failure_kind({"message": one}), one) for one in said)
    return dict(counts.most_common())
