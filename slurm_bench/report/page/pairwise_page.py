"""pairwise.html: runs that a judge compared by pairs, their pictures in step, beside what it said in each order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from slurm_bench.report.davidson import LOSS, WIN
from slurm_bench.report.judgements import Judgement
from slurm_bench.report.page.assemble import MOST_PICTURED, Page
from slurm_bench.report.page.compare_page import card_of, pictures_in_step, role_of
from slurm_bench.report.page.facts import what_was_run
from slurm_bench.report.page.pictures import Show, link_from_anywhere
from slurm_bench.report.page.plots import axis_over
from slurm_bench.report.page.replies import Replies, carried, count_replies, replies_of
from slurm_bench.report.page.samples import flags_of, shortened
from slurm_bench.report.pairwise import Judged
from slurm_bench.report.pairwise_results import IDENTICAL, MISSING, UNREAD, Verdict
from slurm_bench.report.pairwise_table import left_out, said_of
from slurm_bench.report.side import Side
from slurm_bench.scorers.protocols.pairwise import FIRST, SECOND, TIE

MOST_SAID = 8_000_000  # bytes of the judge's replies: two or three runs of six hundred samples have no more
MOST_NAMED = 40  # samples by name above the gallery; its flag finds them all
POINTS = {WIN: 1.0, LOSS: 0.0}  # half of one for a tie
NOT_JUDGED = {UNREAD: "the judge's reply can't be read", MISSING: "not judged yet"}


def pairwise_page(judged: Judged, folder: Path) -> Page:
    """The page goes into `folder`."""
    shown = _Shown(judged)
    said = judged.said
    strengths = [one for row in said["runs"] for one in (row, *row["dimensions"].values(), *row["categories"].values())]
    by_order = [sample_id for sample_id in shown.ids if shown.by_order(sample_id)]
    return Page(
        template="pairwise.html.j2",
        folder=folder,
        name="pairwise",
        total=len(shown.ids),
        order="furthest apart",
        pictures=lambda most: [shown.pictures(sample_id) for sample_id in shown.ids[:most]],
        link=link_from_anywhere,
        gallery=shown.gallery,
        facts={
            "said": said,
            "axis": axis_over(one[key] for one in strengths for key in ("elo", "ci_low", "ci_high")),
            "few": any(one["too_few"] for one in strengths),
            "dimensions_say": {name: said_of(row) for name, row in said["dimensions"].items()},
            "left_out": left_out(said),
            "by_order": by_order[:MOST_NAMED],
            "by_order_more": max(0, len(by_order) - MOST_NAMED),
            "replies": {"all": count_replies(judged.verdicts), "here": shown.replies, "in": shown.kept_in},
            "runs": {side.name: what_was_run(side.run.config, side.provenance, {}) for side in judged.sides},
        },
    )


class _Shown:
    """What the gallery has of each sample."""

    def __init__(self, judged: Judged) -> None:
        self.sides = judged.sides
        self.kept_in = f"{judged.folder.name}/judgements-*.jsonl"
        self.verdicts: dict[str, list[Verdict]] = {}
        for verdict in judged.verdicts:
            self.verdicts.setdefault(verdict.match.sample, []).append(verdict)

    @cached_property
    def ids(self) -> list[str]:
        """The samples that two runs or more have, the one that parts the runs the most first."""
        plans = Counter(sample_id for side in self.sides for sample_id in side.samples)

        def apart(sample_id: str) -> float:
            points = self._points(sample_id).values()
            return max(points, default=0.0) - min(points, default=0.0)

        return sorted((sample_id for sample_id, count in plans.items() if count > 1), key=lambda i: -apart(i))

    @cached_property
    def _carried(self) -> Collection[Replies]:
        """The judge's replies that the page has: of samples with thumbnails, the first ones first."""
        listed = self.ids[:MOST_PICTURED]
        return carried([verdict for sample_id in listed for verdict in self.verdicts.get(sample_id, ())], MOST_SAID)

    @property
    def replies(self) -> int:
        all_of_them = (verdict for verdicts in self.verdicts.values() for verdict in verdicts)
        return count_replies(verdict for verdict in all_of_them if replies_of(verdict) in self._carried)

    def gallery(self, show: Show, whole: int, listed: int) -> dict[str, Any]:
        names = [_share(side) for side in self.sides]
        return {
            "headline": names[0],
            "higherIsBetter": True,
            "scores": names,
            "sorts": [("plan", "furthest apart first")],
            "pair": [role_of(self.sides[0]), role_of(self.sides[1])],
            "samples": [self._sample(sample_id, show, n < whole) for n, sample_id in enumerate(self.ids[:listed])],
        }

    def pictures(self, sample_id: str) -> list[Any]:
        return pictures_in_step(self._holders(sample_id), sample_id)

    def by_order(self, sample_id: str) -> list[str]:
        """The dimensions in which the order of showing decided a pair of it."""
        return list(dict.fromkeys(one.dimension for one in self.verdicts.get(sample_id, ()) if one.by_order))

    def _holders(self, sample_id: str) -> list[Side]:
        return [side for side in self.sides if sample_id in side.samples]

    def _points(self, sample_id: str) -> dict[int, float]:
        """The share of its pairs that each run won, over all dimensions."""
        found: dict[int, list[float]] = {}
        for verdict in self.verdicts.get(sample_id, ()):
            if verdict.outcome is not None:
                won = POINTS.get(verdict.outcome, 0.5)
                found.setdefault(verdict.match.first, []).append(won)
                found.setdefault(verdict.match.second, []).append(1 - won)
        return {run: sum(won) / len(won) for run, won in found.items()}

    def _sample(self, sample_id: str, show: Show, whole: bool) -> dict[str, Any]:
        sides, verdicts = self._holders(sample_id), self.verdicts.get(sample_id, [])
        first = sides[0].samples[sample_id]
        edits = {side.name: side.state.edits[side.samples[sample_id].id] for side in sides}
        lacking = [f"not edited in {name}" for name, edit in edits.items() if edit.ok is None]
        lacking += dict.fromkeys(f"{v.dimension}: {NOT_JUDGED[v.kind]}" for v in verdicts if v.kind in NOT_JUDGED)
        if not verdicts and not lacking:
            lacking = ["no two runs edited it from the same source by the same instruction"]
        known = card_of(sample_id, first, lacking, edits) | {
            "scores": {_share(self.sides[run]): round(won, 3) for run, won in self._points(sample_id).items()},
            "flags": [
                *(f"the order decided: {dimension}" for dimension in self.by_order(sample_id)),
                *(["identical images"] if any(one.kind == IDENTICAL for one in verdicts) else []),
                *(f"{flag} in {name}" for name, edit in edits.items() for flag in flags_of(edit, {})),
            ],
            "pictures": [show(picture) for picture in self.pictures(sample_id)],
        }
        if not whole:
            return known
        said, replies = list(self._said(verdicts)), count_replies(verdicts)
        told = {"description": first.description, "rationale": first.rationale}
        if len(said) < replies:
            told["replies"] = f"{len(said)} of {replies}; the others are in {self.kept_in}"
        return known | {"told": told, "said": said}

    def _said(self, verdicts: Sequence[Verdict]) -> Iterator[Mapping[str, str]]:
        """What the page carries, in both orders, under which run the judge knew as Image A and which as Image B."""
        for verdict in (one for one in verdicts if replies_of(one) in self._carried):
            a, b = self.sides[verdict.match.first].name, self.sides[verdict.match.second].name
            for (one, two), judgement in zip(((a, b), (b, a)), verdict.said, strict=True):
                if judgement is not None:
                    title = f"{verdict.dimension}, A is {one}, B is {two}: {_found(judgement, one, two)}"
                    yield {"title": title, "raw": shortened(judgement.raw)}


def _found(judgement: Judgement, one: str, two: str) -> str:
    better = {FIRST: f"{one} is better", SECOND: f"{two} is better", TIE: "a tie"}
    return f"unread, {judgement.problem}" if judgement.winner is None else better[judgement.winner]


def _share(side: Side) -> str:
    return f"won by {side.name}"
