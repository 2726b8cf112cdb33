"""compare.html: two runs or more on the same samples, their pictures in step, the largest difference first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slurm_bench.report.comparable import differ
from slurm_bench.report.cost import cost_in_words
from slurm_bench.report.page.assemble import Page
from slurm_bench.report.page.facts import what_was_run
from slurm_bench.report.page.pictures import Picture, Show, link_from_anywhere, pictures_of
from slurm_bench.report.page.plots import axis_over
from slurm_bench.report.page.samples import flags_of, said_of
from slurm_bench.report.side import Side
from slurm_bench.report.stand_ins import stand_ins_in_words
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import Outcome


def compare_page(compared: Mapping[str, Any], sides: Sequence[Side], folder: Path) -> Page:
    """`compared` is what `compare_runs` found of these sides. The page goes into `folder`."""
    names = [f"{other.name} − {sides[0].name}" for other in sides[1:]]
    ids = [sample_id for sample_id in sides[0].samples if all(sample_id in side.samples for side in sides)]
    ids.sort(key=lambda sample_id: -max((abs(d) for d in _differences(sides, sample_id).values()), default=0.0))

    def gallery(show: Show, whole: int, listed: int) -> dict[str, Any]:
        return {
            "headline": names[0],
            "higherIsBetter": True,
            "scores": [*names, *(side.name for side in sides)],
            "sorts": [(f"±{name}", f"{name}, largest first") for name in names],
            "pair": [role_of(sides[0]), role_of(sides[1])],
            "samples": (_sample(sides, sample_id, show, n < whole) for n, sample_id in enumerate(ids[:listed])),
        }

    score = compared["score"]["name"]
    rows = [row for one in compared["comparisons"] for row in (one, *one["categories"].values())]
    return Page(
        template="compare.html.j2",
        folder=folder,
        name="compare",
        total=len(ids),
        order="furthest apart",
        pictures=lambda most: [pictures_in_step(sides, sample_id) for sample_id in ids[:most]],
        link=link_from_anywhere,
        gallery=gallery,
        facts={
            "compared": compared,
            "stand_ins": [
                [stand_ins_in_words(f"{score} in {name}", one) for name, one in row["stand_ins"].items()]
                for row in compared["comparisons"]
            ],
            "costs": [cost_in_words(row) for row in compared["comparisons"]],
            "axis": axis_over([0.0, *(row[key] for row in rows for key in ("difference", "ci_low", "ci_high"))]),
            "ranking_axis": axis_over(row[key] for row in compared["ranking"] for key in ("mean", "ci_low", "ci_high")),
            "runs": {side.name: what_was_run(side.run.config, side.provenance, {}) for side in sides},
        },
    )


def card_of(sample_id: str, first: Sample, lacking: Sequence[str], edits: Mapping[str, Outcome]) -> dict[str, Any]:
    """What any page of several runs says of a sample: as the first run has it, its edits by run, and what it is
    `lacking` for a comparison."""
    return {
        "id": sample_id,
        "category": first.category,
        "status": "error" if lacking else "ok",
        "error": "; ".join(lacking),
        "instruction": first.instruction,
        "seed": first.seed,
        "seconds": {name: edit.ok["seconds"] for name, edit in edits.items() if edit.ok and "seconds" in edit.ok},
    }


def _sample(sides: Sequence[Side], sample_id: str, show: Show, whole: bool) -> dict[str, Any]:
    first = sides[0].samples[sample_id]
    lacking = [f"{side.without_value(sample_id)} in {side.name}" for side in sides if sample_id not in side.values]
    lacking += [f"{why}, in {other.name}" for other in sides[1:] if (why := differ(sides[0], other, sample_id))]
    values = {side.name: side.values[sample_id] for side in sides if sample_id in side.values}
    edits = {side.name: side.state.edits[sample_id] for side in sides}
    flags = [(side.name, flags_of(edits[side.name], side.state.scores[sample_id])) for side in sides]
    known = card_of(sample_id, first, lacking, edits) | {
        "scores": {**_differences(sides, sample_id), **values},
        "flags": [f"{flag} in {name}" for name, found in flags for flag in found],
        "pictures": [show(picture) for picture in pictures_in_step(sides, sample_id)],
    }
    if not whole:
        return known
    said = [said_of(side.name, side.state.scores[sample_id][side.scorer]) for side in sides]
    told = {"description": first.description, "rationale": first.rationale}
    return known | {"told": told, "said": [words for words in said if words is not None]}


def _differences(sides: Sequence[Side], sample_id: str) -> dict[str, float]:
    """Each other run's score less the first's, where the two are a pair."""
    first = sides[0].values.get(sample_id)
    return {
        f"{other.name} − {sides[0].name}": other.values[sample_id] - first
        for other in sides[1:]
        if first is not None and sample_id in other.values and not differ(sides[0], other, sample_id)
    }


def pictures_in_step(sides: Sequence[Side], sample_id: str) -> list[Picture]:
    """The first run's sources (of a turn each run's own), each run's edit of the first seed, the reference."""
    found: list[Picture] = []
    for side in sides:
        sample = side.samples[sample_id]
        for picture in pictures_of(side.run.folder, sample, side.state.edits[sample.id].ok):
            if picture.role == "edited":
                found.append(Picture(role_of(side), picture.file, picture.sha256))
            elif sample.follows and picture.role == "source":
                found.append(Picture(f"source, {side.name}", picture.file, picture.sha256))
            elif side is sides[0]:
                found.append(picture)
    return sorted(found, key=lambda picture: picture.role == "reference")


def role_of(side: Side) -> str:
    return f"edited, {side.name}"
