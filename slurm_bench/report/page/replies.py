"""Which of a judge's replies a page of pairs carries: of six runs all of them would be 98 % of its bytes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import takewhile

from slurm_bench.report.davidson import LOSS, TIE, WIN
from slurm_bench.report.page.samples import MOST_WORDS
from slurm_bench.report.pairwise_results import UNREAD, Verdict

Replies = tuple[int, int, str, str]  # of which two runs, sample and dimension

# What people look at first, by turns, so that many of one kind leave room for the others; then all that is as expected.
UNREADABLE, BY_ORDER, AGAINST, TIED, EXPECTED = range(5)


def replies_of(verdict: Verdict) -> Replies:
    return verdict.match.first, verdict.match.second, verdict.match.sample, verdict.dimension


def count_replies(verdicts: Iterable[Verdict]) -> int:
    return sum(judgement is not None for verdict in verdicts for judgement in verdict.said)


def carried(verdicts: Sequence[Verdict], most: int) -> set[Replies]:
    """All where they fit into so many bytes; else of each two runs as many as their share holds, of a kind the first
    ones."""
    if sum(map(_size, verdicts)) <= most:
        return {replies_of(verdict) for verdict in verdicts}
    by_pair: dict[tuple[int, int], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_pair[verdict.match.first, verdict.match.second].append(verdict)
    return {found for own in by_pair.values() for found in _first(own, most // len(by_pair))}


def _first(verdicts: Sequence[Verdict], most: int) -> Iterable[Replies]:
    """What is carried of the verdicts on two runs."""
    won = Counter((verdict.dimension, verdict.outcome) for verdict in verdicts)
    of_kind: Counter[int] = Counter()
    turns: list[tuple[bool, int, int, Verdict]] = []
    for verdict in verdicts:
        kind = _kind(verdict, won)
        turns.append((kind == EXPECTED, of_kind[kind], kind, verdict))
        of_kind[kind] += 1
    turns.sort(key=lambda turn: turn[:3])
    left = most

    def fits(verdict: Verdict) -> bool:
        nonlocal left
        left -= _size(verdict)
        return left >= 0

    return map(replies_of, takewhile(fits, (turn[3] for turn in turns)))


def _kind(verdict: Verdict, won: Counter[tuple[str, str | None]]) -> int:
    if verdict.kind == UNREAD:
        return UNREADABLE
    if verdict.by_order:
        return BY_ORDER
    if verdict.outcome == TIE:
        return TIED
    other = {WIN: LOSS, LOSS: WIN}.get(verdict.outcome or "")
    return AGAINST if other and won[verdict.dimension, other] > won[verdict.dimension, verdict.outcome] else EXPECTED


def _size(verdict: Verdict) -> int:
    """In a script, which is ASCII alone."""
    said = [judgement.raw[:MOST_WORDS] for judgement in verdict.said if judgement is not None]
    return sum(len(raw.encode("ascii", "backslashreplace")) for raw in said)
