"""Thirty faults that were seen in evaluation harnesses, this one among them: here each has a check that none is in.

Most checks run twice: as it is, and with the fault put in (`put_in`), when they must fail: a check that can't see its
fault is none. Where the check is a test elsewhere, or one elsewhere says more, `guards` names it.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import coverage_of_intervals
import numpy as np
import pytest
import test_rubric
from helpers import images, run_dir
from PIL import Image
from plugins import Tint
from tasks import edits, prepare, work
from test_report import DONE, failed, made, outcome

from slurm_bench.config import DataConfig
from slurm_bench.data import categories, read_items
from slurm_bench.data.item import Item
from slurm_bench.editors.base import EditRequest
from slurm_bench.errors import SampleError
from slurm_bench.report import statistics, summary, write
from slurm_bench.report.statistics import Mean, mean_of
from slurm_bench.run import plan, slices
from slurm_bench.run.layout import RunDir
from slurm_bench.run.ledger import read_state
from slurm_bench.run.opened import Run, open_run
from slurm_bench.run.plan import Plan
from slurm_bench.run.records import Outcome, State, read_records
from slurm_bench.scorers.base import Score
from slurm_bench.scorers.judge import parse, prompt
from slurm_bench.stages import work as stage_work
from slurm_bench.stages.work import EditWork, ScoreWork, checked_scores

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Fault:
    what: str
    check: Callable[[Path], None] | None = None
    put_in: Callable[[Patch], None] | None = None
    guards: tuple[str, ...] = ()


FAULTS: dict[int, Fault] = {}


def fault(number: int, what: str, put_in: Callable[[Patch], None] | None = None, guards: Sequence[str] = ()) -> Any:
    def add(check: Callable[[Path], None]) -> None:
        FAULTS[number] = Fault(what, check, put_in, tuple(guards))

    return add


def elsewhere(number: int, what: str, *guards: str) -> None:
    FAULTS[number] = Fault(what, guards=guards)


def in_place_of_an_error(image: Callable[[Any], Image.Image]) -> Callable[[Patch], None]:
    def put_in(patch: Patch) -> None:
        def call(self: EditWork, batch: Any) -> list[Any]:
            results = self.editor.edit([given.request for given in batch])
            return [image(g) if isinstance(r, Exception) else r for g, r in zip(batch, results, strict=True)]

        patch.setattr(EditWork, "call", call)

    return put_in


def a_failed_edit_is_an_error(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {"fail": ["s-1"]}, count=3)
    work(root)
    assert set(images(root)) == {"s-0", "s-2"}
    assert edits(root)["s-1"]["error"]["message"] == "s-1 fails always"
    work(root, "score")
    assert {record["id"] for record in read_records(run_dir(root), "score")} == {"s-0", "s-2"}


fault(
    1,
    "A failed edit silently becomes the source image, and is scored.",
    in_place_of_an_error(lambda given: given.request.image),
    ["test_stages.py::test_nonsense_from_an_editor_is_an_error_never_an_image"],
)(a_failed_edit_is_an_error)


@fault(
    2,
    "An unparseable judge reply becomes 5.0, 0.0, the midpoint or a random number, and enters the mean.",
    lambda patch: patch.setattr(parse, "read_scores", lambda text, aspects: dict.fromkeys(aspects, 5.0)),
    [
        "test_judge_parse.py::test_anything_else_is_no_number",
        "test_protocol_parts.py::test_any_other_reply_has_no_marks",
    ],
)
def _(tmp_path: Path) -> None:
    said = parse.scored("A fine edit, I would say.", ["overall"])
    assert said.scores == {}
    assert said.parse != "ok"


def filled_with_zeros(patch: Patch) -> None:
    table = write.score_table
    patch.setattr(write, "score_table", lambda config, state: table(config, state).fillna(0.0))


@fault(3, "A missing edit scores 0.0 without a word.", filled_with_zeros)
def _(tmp_path: Path) -> None:
    rows = [("a", "c", DONE, {"j": outcome(q=8.0)}), ("b", "c", Outcome(), {"j": Outcome()})]
    said, table, text = made(tmp_path, *rows)
    assert (table[1]["q"], table[1]["status"], said["counts"]["missing"]) == ("", "missing", 1)
    assert said["overall"]["scored_only"]["micro"]["mean"] == 8.0
    assert "no record" in text


def without_its_source(patch: Patch) -> None:
    build = prompt.build

    def blind(*words: Any) -> prompt.Prompt:
        built = build(*words)
        return replace(built, parts=built.parts[2:])

    patch.setattr(prompt, "build", blind)


@fault(
    4,
    "The judge never sees the source image.",
    without_its_source,
    ["test_judge_expected.py::test_the_source_s_pixels_come_first_and_are_the_source_s"],
)
def _(tmp_path: Path) -> None:
    shown = test_rubric.build().images
    assert [image.getpixel((0, 0)) for image in shown] == [(255, 0, 0), (0, 0, 255)]


elsewhere(
    5,
    "Sampling left on in the judge (`do_sample` from the published generation config).",
    "test_judge_generate.py::test_the_first_reply_is_greedy_whatever_the_checkpoint_says",
)
elsewhere(
    6,
    "A retry with the same seed, so every retry fails alike.",
    "test_judge_generate.py::test_a_retry_is_sampled_with_another_seed_each_time",
    "test_openai_scorer.py::test_a_failed_parse_is_asked_again_with_another_seed",
)


def by_position(patch: Patch) -> None:
    positions = itertools.count()
    patch.setattr(plan, "seed_of", lambda sample_id, base: base + next(positions) % 4)


@fault(7, "Seed = base + position, so filtering or re-sharding changes every image.", by_position)
def _(tmp_path: Path) -> None:
    def seeds(name: str, ids: str) -> dict[str, int]:
        planned = Plan(run_dir(tmp_path / name))
        planned.add([Item(i, "c", "do", None) for i in ids], 7)
        return {sample.id: sample.seed for sample in planned.freeze()}

    whole = seeds("whole", "abcd")
    assert seeds("filtered", "db") == {i: whole[i] for i in "db"}


def forgets(patch: Patch) -> None:
    patch.setattr(State, "to_score", lambda self: [sample.id for sample in self.samples])


@fault(
    8,
    "A resume that resumes nothing, or re-scores and doubles rows.",
    forgets,
    ["test_local.py::test_killed_at_any_moment_it_goes_on_where_it_was"],
)
def _(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {}, count=3)
    work(root)
    assert open_run(root).state().to_edit() == []
    work(root, "score")
    assert open_run(root).state().to_score() == []
    write.write_report(open_run(root), open_run(root).state())
    assert len(_rows(root)) == 3


def _rows(root: Path) -> list[dict[str, str]]:
    with open(root / "report" / "scores.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@fault(
    9,
    "A finished shard that hides its failed samples.",
    lambda patch: patch.setattr(State, "failure", lambda self, sample_id: None),
)
def _(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {"fail": ["s-1"]}, count=3)
    assert work(root)[0].failed == 1
    state = open_run(root).state()
    assert state.to_edit() == ["s-1"]
    found = write.write_report(open_run(root), state)
    assert (found["counts"]["failed"], found["failures"][1]["id"]) == (1, "s-1")


def by_rank(patch: Patch) -> None:
    ranks = itertools.count()
    patch.setattr(RunDir, "image", lambda self, sample_id, by: f"edit/images/{next(ranks):05}.png")


@fault(
    10,
    "Output names keyed on rank and world size: another GPU count orphans the work.",
    by_rank,
    ["test_local.py::test_any_number_of_slices_gives_the_same_bytes"],
)
def _(tmp_path: Path) -> None:
    names = []
    for tasks in (1, 3):
        root = prepare(tmp_path, "Tint", {}, count=6, name=f"run-{tasks}")
        work(root, slices=tasks)
        names.append({i: record["image"] for i, record in edits(root).items()})
    assert names[0] == names[1]


@fault(
    11,
    "Sharding by Python's `hash()`, which changes from process to process.",
    lambda patch: patch.setattr(slices, "seed_of", lambda sample_id, base: hash((sample_id, base)) & 0xFFFFFFFF),
    ["test_run_folder.py::test_a_seed_is_the_same_in_every_process_and_for_ever"],
)
def _(tmp_path: Path) -> None:
    assert slices.seed_of("s-0", 0) == 2947124114
    assert slices.slice_of(["a", "b", "c", "d"], 1, 3) == ["b"]


def only_what_came_right(patch: Patch) -> None:
    table = write.score_table

    def part(config: Any, state: Any) -> Any:
        whole = table(config, state)
        return whole[whole["status"] == "ok"].reset_index(drop=True)

    patch.setattr(write, "score_table", part)


@fault(
    12,
    "One error entry in the results crashes the summary; unparsed items vanish from the denominator.",
    only_what_came_right,
)
def _(tmp_path: Path) -> None:
    rows = [("a", "c", DONE, {"j": outcome(q=8.0)}), ("b", "c", DONE, {"j": failed("prose")})]
    said, table, _ = made(tmp_path, *rows)
    assert (said["counts"]["planned"], said["categories"]["c"]["planned"], len(table)) == (2, 2, 2)
    assert said["overall"]["failures_as_zero"]["micro"]["n"] == 2


@fault(
    13,
    "NaN treated as true; field names that silently read as empty.",
    lambda patch: patch.setattr(math, "isfinite", lambda value: True),
    ["test_data_table.py::test_a_wrong_map_never_reads_as_empty"],
)
def _(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="not a finite number"):
        checked_scores({"passed": float("nan")}, None)


def twice(patch: Patch) -> None:
    once = statistics.t_interval
    patch.setattr(statistics, "t_interval", lambda m, parts, c, freedom: once(m, parts, c / len(parts), freedom))


@fault(
    14,
    "A standard error divided by √R twice; an unpaired test for a paired question.",
    twice,
    [
        "test_compare.py::test_a_small_difference_that_tables_do_not_show_is_seen_in_pairs",
        "test_compare.py::test_tests_agree_with_scipys",
    ],
)
def _(tmp_path: Path) -> None:
    values = [float(n % 5) for n in range(50)]
    found = mean_of(values)
    assert found.ci_low is not None
    assert found.ci_high is not None
    assert found.ci_high - found.ci_low == pytest.approx(2 * 2.01 * np.std(values, ddof=1) / 50**0.5, rel=0.02)


def names_slightly_off(patch: Patch) -> None:
    cells = write.as_cells
    patch.setattr(write, "as_cells", lambda table: cells(table).assign(image=list(table["image"][::-1])))


@fault(15, "File names slightly off, so that a scorer of one's own reads the wrong image.", names_slightly_off)
def _(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {}, count=4)
    work(root)
    write.write_report(open_run(root), open_run(root).state())
    for row in _rows(root):
        data = (root / row["image"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == edits(root)[row["id"]]["sha256"]


def stored_whatever_it_says(patch: Patch) -> None:
    def keep(self: ScoreWork, sample: Any, taken: Any) -> dict[str, Any]:
        return {"scores": dict(taken.scores) or {"overall": 0.0}, "raw": taken.raw, "parse": "ok", "info": {}}

    patch.setattr(ScoreWork, "keep", keep)


@fault(
    16,
    "An API failure text stored as a finished judgement.",
    stored_whatever_it_says,
    [
        "test_stages.py::test_a_service_that_is_away_or_refuses_fails_no_sample",
        "test_openai_server_faults.py::test_what_holds_for_all_requests_is_refused_once",
    ],
)
def _(tmp_path: Path) -> None:
    answers = {"s-1": "Error 503: the model is overloaded, try again"}
    judge = {"judge": {"class_path": "tests.plugins.Judge", "params": {"answers": answers}}}
    root = prepare(tmp_path, "Tint", {}, count=3, scorers=judge)
    work(root)
    work(root, "score")
    assert "s-1" in open_run(root).state().to_score()


elsewhere(
    17,
    "Guidance or positions silently off.",
    "test_qwen_editor.py::test_guidance_silently_off_is_an_error",
    "test_qwen_editor.py::test_guidance_is_on_where_asked",
    "test_qwen_editor.py::test_token_types_reach_the_text_encoder",
    "test_qwen_editor.py::test_stock_is_the_mended_pipeline_bit_for_bit",
)


@fault(
    18,
    "A score out of its range accepted.",
    lambda patch: patch.setattr(Score, "excludes", lambda self, value: False),
    ["test_stages.py::test_only_finite_numbers_in_range_are_scores"],
)
def _(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="out of its range"):
        checked_scores({"q": 10.4}, {"q": Score(0, 10)})


fault(
    19,
    "A blank image in place of a failed edit; a lowest score for a missing one that is then cached for ever.",
    in_place_of_an_error(lambda given: Image.new("RGB", (48, 32))),
    [
        "test_lost.py::test_a_lost_image_is_made_again",
        "test_run_folder.py::test_a_score_of_another_image_does_not_count",
    ],
)(a_failed_edit_is_an_error)


def asks_anyway(patch: Patch) -> None:
    build = prompt.build
    patch.setattr(
        prompt,
        "build",
        lambda request, *words: build(replace(request, instruction=request.instruction.strip() or "edit"), *words),
    )


@fault(
    20,
    "A judge that gets an empty instruction, because the data's field is called otherwise.",
    asks_anyway,
    [
        "test_data_table.py::test_a_wrong_map_never_reads_as_empty",
        "test_protocol_parts.py::test_a_prompt_without_a_place_for_the_instruction_is_refused",
    ],
)
def _(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="instruction is empty"):
        test_rubric.build(instruction=" \n")


def the_rest_is_averaged(patch: Patch) -> None:
    def numbers(text: str, aspects: Sequence[str]) -> dict[str, float]:
        said = json.loads(text[text.index("{") : text.rindex("}") + 1])
        return {name: value for name, value in said.items() if isinstance(value, int)}

    patch.setattr(parse, "read_scores", numbers)


@fault(
    21,
    "A score line dropped for being bold, or written 5/5; the rest of the marks averaged as if they were all.",
    the_rest_is_averaged,
    [
        "test_judge_parse.py::test_all_aspects_or_none",
        "test_protocol_parts.py::test_a_sample_of_which_one_reply_cannot_be_read_has_no_score",
    ],
)
def _(tmp_path: Path) -> None:
    assert parse.scored('**{"a": 5, "b": 4}**', ["a", "b"]).scores == {"a": 5, "b": 4}
    assert parse.scored('{"a": 5, "b": "5/5"}', ["a", "b"]).scores == {}


def shrunk(patch: Patch) -> None:
    rows = summary._Headline.rows
    patch.setattr(summary._Headline, "rows", lambda self, group, with_failures: rows(self, group, False))


@fault(
    22,
    "Missing or unparsed samples that shrink the denominator without a word (488 of 500 reported as the benchmark).",
    shrunk,
    ["test_official.py::test_what_each_number_counts"],
)
def _(tmp_path: Path) -> None:
    rows = [(f"a{n}", "c", DONE, {"j": outcome(q=9.0) if n < 488 else failed("prose")}) for n in range(500)]
    said, _, text = made(tmp_path, *rows)
    row = said["overall"]["failures_as_zero"]["micro"]
    assert (row["n"], row["mean"]) == (500, pytest.approx(9 * 488 / 500))
    assert said["rates"]["parse_failed"] == 12
    assert "| c | 500 | 488 |" in text


@fault(
    23,
    "Scores clamped into their range.",
    lambda patch: patch.setattr(parse, "_number", lambda scores, aspect: min(10.0, max(0.0, scores[aspect]))),
)
def _(tmp_path: Path) -> None:
    said = parse.scored('{"overall": 10.4}', ["overall"])
    assert (said.scores, said.parse) == ({}, "overall is 10.4, out of 0 to 10")


def whoever_made_it(patch: Patch) -> None:
    patch.setattr(Run, "state", lambda self: read_state(self.folder, self.samples, self.config.scorers, {}))


@fault(
    24,
    "A resume that re-judges under another judge and mixes the two; a configuration changed by force that relabels.",
    whoever_made_it,
    ["test_by.py::test_by_force_another_editor_relabels_nothing"],
)
def _(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {}, count=3)
    work(root)
    work(root, "score")
    run = open_run(root)
    other = replace(run, by={**run.by, "scorers.judge": "another"}).state()
    assert other.scored() == []
    assert sum(other.others.values()) == 3


def the_first_that_comes(patch: Patch) -> None:
    patch.setattr(summary, "headline", lambda config, table, declared: (summary.score_columns(table)[0], ""))


@fault(
    25,
    "The headline taken from whichever score comes first.",
    the_first_that_comes,
    ["test_report.py::test_the_headline_is_the_judges_first_aspect_and_says_why"],
)
def _(tmp_path: Path) -> None:
    declared = {"j": {"overall": [0, 10, True], "detail": [0, 10, True]}}
    rows = [(i, "c", DONE, {"j": outcome(detail=1.0, overall=2.0)}) for i in "ab"]
    said, _, text = made(tmp_path, *rows, declared=declared)
    assert said["headline"] == "overall"
    assert said["headline_rule"] in text.replace("\\", "")


@fault(
    26,
    "One category under several spellings counted as several.",
    lambda patch: patch.setattr(categories, "canonical", lambda name: name),
    ["test_data_items.py::test_social_goes_by_three_names"],
)
def _(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    names = ["physical", "Physical", " PHYSICAL ", "物理"]
    lines = [{"id": str(n), "category": name, "instruction": "do", "image": "a.png"} for n, name in enumerate(names)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    items = list(read_items(DataConfig(reader="jsonl", path=str(tmp_path / "d.jsonl"))))
    assert [item.category for item in items] == ["physical"] * 4


def by_percentiles(patch: Patch) -> None:
    def bootstrap(values: Any, *_: Any) -> Mean:
        rng = np.random.default_rng(0)
        means = rng.choice(values, (500, len(values))).mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        return Mean(len(values), float(np.mean(values)), float(low), float(high))

    patch.setattr(coverage_of_intervals, "mean_of", bootstrap)


@fault(
    27,
    "An interval called 95 % that covers 40 to 87 % (percentile bootstrap of 5 to 20 marks).",
    by_percentiles,
    ["test_statistics.py::test_an_interval_called_95_percent_covers_95_percent"],
)
def _(tmp_path: Path) -> None:
    assert coverage_of_intervals.coverage("lognormal, sigma 1", 10, 400) > 0.9
    assert coverage_of_intervals.coverage_of_shares(0.9, 10) > 0.9


@fault(
    28,
    '"Failures as zero" for a score that is better when lower, or whose scale begins at 1.',
    lambda patch: patch.setattr(Score, "worst", property(lambda self: 0.0)),
    ["test_report.py::test_a_failure_counts_as_the_worst_value_of_the_scores_own_scale_and_is_named_so"],
)
def _(tmp_path: Path) -> None:
    rows = [("a", "c", DONE, {"j": outcome(loss=0.2)}), ("b", "c", DONE, {"j": failed("no")})]
    said, _, text = made(tmp_path, *rows, declared={"j": {"loss": [0, 1, False]}})
    row = said["overall"]["failures_as_zero"]["micro"]
    assert (row["mean"], row["failure_counts_as"]) == (0.6, 1)
    assert "failures as 1" in text


elsewhere(
    29,
    "An instruction cut at 77 tokens without a word.",
    "test_diffusers_editor.py::test_a_prompt_that_is_cut_is_said",
)


class Fades:
    """Makes the image half transparent, and changes no colour."""

    def edit(self, batch: Sequence[EditRequest]) -> list[Image.Image]:
        faded = [request.image.convert("RGBA") for request in batch]
        for image in faded:
            image.putalpha(128)
        return faded


class PaintsOnItsInput(Tint):
    def edit(self, batch: Sequence[EditRequest]) -> list[Any]:
        for request in batch:
            request.image.paste((1, 2, 3), (0, 0, *request.image.size))
        return [request.image for request in batch]


def without_alpha(patch: Patch) -> None:
    """Of a change that is too small for the means over areas, which see alpha too."""
    patch.setattr(stage_work, "largest_change", lambda *_: 0)
    patch.setattr(stage_work, "pixels_digest", lambda image: hashlib.sha256(image.convert("RGB").tobytes()).digest())


@fault(
    30,
    '"Unchanged" told from an image that the editor itself painted on, or with alpha left out.',
    without_alpha,
    ["test_stages.py::test_an_editor_may_paint_on_its_input_and_use_its_buffer_again"],
)
def _(tmp_path: Path) -> None:
    for editor in ("Fades", "PaintsOnItsInput"):
        root = prepare(tmp_path, f"test_field_faults.{editor}", {}, count=2, name=editor)
        work(root)
        assert [record["unchanged"] for record in edits(root).values()] == [False, False]


def test_each_of_the_thirty_is_guarded() -> None:
    assert sorted(FAULTS) == list(range(1, 31))
    assert all(one.check or one.guards for one in FAULTS.values())


@pytest.mark.parametrize("number", range(1, 31))
def test_ours_has_it_right(number: int, tmp_path: Path) -> None:
    one = FAULTS[number]
    if one.check:
        one.check(tmp_path)
    for guard in one.guards:
        file, name = guard.split("::")
        tree = ast.parse((Path(__file__).parent / file).read_text("utf-8"))
        assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)], guard


@pytest.mark.parametrize("number", [number for number, one in FAULTS.items() if one.put_in])
def test_the_fault_would_be_seen(number: int, tmp_path: Path, monkeypatch: Patch) -> None:
    one = FAULTS[number]
    assert one.check is not None
    assert one.put_in is not None
    one.put_in(monkeypatch)
    # A table that isn't the plan's is a ValueError where the page is made of it.
    with pytest.raises((AssertionError, pytest.fail.Exception, ValueError)):
        one.check(tmp_path)
