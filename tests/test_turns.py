"""Samples that follow others: what was made of one is the next one's source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import images, make_benchmark, make_config, rows, run_dir
from msgspec import structs
from plugins import Tint
from tasks import edits, heal, work

from slurm_bench.cluster.chain import first_step, look, propose
from slurm_bench.cluster.here import Debug
from slurm_bench.config import Config, load_config
from slurm_bench.data import read_items
from slurm_bench.editors.base import Edited, EditRequest
from slurm_bench.errors import UserError
from slurm_bench.report.comparable import differ
from slurm_bench.report.compare import compare_runs
from slurm_bench.report.page.compare_page import pictures_in_step
from slurm_bench.report.pairwise import _matches as matches_of
from slurm_bench.report.side import open_sides
from slurm_bench.run import layout
from slurm_bench.run.attempts import claim, close, read_attempt
from slurm_bench.run.create import create_run
from slurm_bench.run.opened import open_run
from slurm_bench.run.plan import Sample, repeated
from slurm_bench.run.records import read_records
from slurm_bench.run.reuse import reusable
from slurm_bench.run.slices import describe_slices
from slurm_bench.run.turns import chains_of, followed, in_turns, less_what_follows
from slurm_bench.stages import takeover
from slurm_bench.stages.engine import Tally
from slurm_bench.stages.stop import StopSignals
from slurm_bench.stages.task import run_task

FOLLOWS = {"a2": "a", "a3": "a2", "c2": "c"}
ORDER = ("a", "b", "a2", "c", "c2", "d", "a3")


class FailsAt(Tint):
    """Fails at `at` while the file `mark` is there; notes the batches that it gets."""

    batches: list[list[str]] = []  # noqa: RUF012

    def __init__(self, at: str = "", mark: str = "/nowhere", strength: int = 1) -> None:
        super().__init__(strength=strength)
        self.at, self.mark = at, Path(mark)

    def edit(self, batch: Sequence[EditRequest]) -> list[Edited | Exception]:
        self.batches.append([request.id for request in batch])
        return super().edit(batch)

    def one(self, request: EditRequest) -> Edited | Exception:
        if request.id == self.at and self.mark.exists():
            return ValueError("not this time")
        return super().one(request)


class Drifts(Tint):
    """Makes another image where the file `mark` is there, as a model on another card may."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        self.mark = Path(mark)

    def one(self, request: EditRequest) -> Edited | Exception:
        self.strength = 3 if self.mark.exists() else 1
        return super().one(request)


def plan(
    tmp_path: Path, editor: str = "Tint", params: dict[str, Any] | None = None, name: str = "run", **more: Any
) -> Path:
    """Chains a → a2 → a3 and c → c2, not side by side, and two samples that follow none."""
    data = make_benchmark(tmp_path / "bench", len(ORDER))
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    for line, sample_id in zip(lines, ORDER, strict=True):
        line["id"] = sample_id
        if sample_id in FOLLOWS:
            line["before"] = FOLLOWS[sample_id]
            del line["image"]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    file = make_config(tmp_path / f"{name}.yaml", data, editor, params, **more)
    class_path = [f"editor.class_path={editor}"] if "." in editor else []
    config = load_config(file, ["data.fields.follows=before", *class_path])
    create_run(tmp_path / name, config, lambda: read_items(config.data), {}, force=False)
    return tmp_path / name


def begin(root: Path, slices: int, executor: str = "local") -> list[Sequence[str]]:
    """An attempt over what is missing; gives its slices."""
    run = open_run(root)
    attempt = claim(
        run.folder, "edit", run.state().to_edit(), slices, executor, 0, 1, run.by, False, followed(run.samples)
    )
    assert attempt is not None
    return [attempt.slice(task) for task in range(attempt.slices)]


def do(root: Path, *ids: str) -> None:
    """An attempt over these alone."""
    run = open_run(root)
    attempt = claim(run.folder, "edit", ids, 1, "debug", 0, 1, run.by)
    assert attempt is not None
    task(root, 0)
    close(run.folder, attempt)


def task(root: Path, number: int) -> Tally:
    return run_task(open_run(root), "edit", 1, number, StopSignals())


def test_each_turn_is_made_of_the_one_before(tmp_path: Path) -> None:
    root = plan(tmp_path)
    begin(root, 1)
    assert task(root, 0) == Tally(ok=7)
    made = edits(root)
    for sample_id, before in FOLLOWS.items():
        assert made[sample_id]["source_sha256"] == made[before]["sha256"]
    assert {i: hashlib.sha256(data).hexdigest() for i, data in images(root).items()} == {
        i: record["sha256"] for i, record in made.items()
    }


def test_neither_batches_nor_slices_show_in_the_images(tmp_path: Path) -> None:
    alone, together = plan(tmp_path), plan(tmp_path, "test_turns.FailsAt", name="together", batch_size=4)
    begin(alone, 3, "debug")
    assert [task(alone, number).ok for number in range(3)] == [4, 1, 2]
    FailsAt.batches.clear()
    begin(together, 1)
    task(together, 0)
    assert images(alone) == images(together)
    assert FailsAt.batches == [["a", "b", "c", "d"], ["a2", "c2"], ["a3"]], "several chains go side by side"


def test_a_slice_has_whole_chains_and_without_chains_it_is_what_it_was(tmp_path: Path) -> None:
    assert begin(plan(tmp_path), 2) == [["a", "a2", "a3", "c", "c2"], ["b", "d"]]
    root = plan(tmp_path, name="again")
    run = open_run(root)
    plain = claim(run.folder, "edit", [f"s-{n}" for n in range(5)], 2, "local", 0, 1, run.by, False, {})
    assert plain is not None
    assert [plain.slice(0), plain.slice(1)] == [["s-0", "s-2", "s-4"], ["s-1", "s-3"]]
    assert '"chains"' not in run.folder.attempt("edit", 1).read_text()
    assert describe_slices([[0, 2], [1]]) == ["task 0: 2 samples, indices 0, 2", "task 1: 1 samples, indices 1"]


def test_of_thousands_of_slices_the_first_and_the_last_are_told() -> None:
    lines = describe_slices([range(task, 9000, 4096) for task in range(4096)])
    assert len(lines) == 10
    assert lines[0] == "task 0: 3 samples, indices 0, 4096, 8192"
    assert lines[8] == "tasks 8 to 4094: 2 to 3 samples each, every 4096th sample likewise"
    assert lines[9] == "task 4095: 2 samples, indices 4095, 8191"


def test_the_launcher_cuts_between_chains(tmp_path: Path) -> None:
    run = open_run(plan(tmp_path))
    step = first_step(run.state())
    assert step is not None
    attempt = propose(run, step, [], Debug())
    assert [attempt.slice(0), attempt.slice(1)] == [["a", "a2", "a3", "c", "c2"], ["b", "d"]]


def test_a_failed_turn_fails_the_rest_by_name_and_is_healed_with_them(tmp_path: Path) -> None:
    (tmp_path / "mark").touch()
    params = {"at": "a2", "mark": str(tmp_path / "mark")}
    root = plan(tmp_path, "test_turns.FailsAt", params, retries=0)
    heal(root)
    errors = {row["id"]: row["error"] for row in rows(root) if row["error"]}
    assert set(errors) == {"a2", "a3"}
    assert "its turn before, 'a2', has no image" in errors["a3"]
    (tmp_path / "mark").unlink()
    assert heal(root) == 0
    whole = plan(tmp_path, name="whole")
    heal(whole)
    assert images(root) == images(whole)


def test_what_waits_for_a_turn_that_fails_for_good_is_not_tried_for_ever(tmp_path: Path) -> None:
    root = plan(tmp_path, "Tint", {"fail": ["a"]}, retries=9)
    heal(root)
    tried = [record["id"] for record in read_records(run_dir(root), "edit") if record["status"] == "error"]
    assert sorted(tried) == ["a", "a", "a2", "a2", "a3", "a3"], "as often as the turn that fails"


def test_what_was_begun_is_gone_on_with(tmp_path: Path) -> None:
    root, whole = plan(tmp_path), plan(tmp_path, name="whole")
    do(root, "a", "c")
    heal(root)
    heal(whole)
    assert images(root) == images(whole)
    assert len(edits(root)) == len(read_records(run_dir(root), "edit")) == 7, "nothing was made twice"


@pytest.mark.parametrize(("drifts", "again"), [(False, ["a"]), (True, ["a", "a2", "a3"])])
def test_a_lost_turn_costs_what_follows_only_if_it_comes_out_otherwise(
    tmp_path: Path, drifts: bool, again: list[str]
) -> None:
    root = plan(tmp_path, "test_turns.Drifts", {"mark": str(tmp_path / "mark")})
    heal(root)
    before = edits(root)
    (root / before["a"]["image"]).unlink()
    if drifts:
        (tmp_path / "mark").touch()
    assert look(open_run(root)).to_edit() == ["a"]
    assert heal(root) == 0
    records = read_records(run_dir(root), "edit")
    assert [record["id"] for record in records[7:]] == again
    made = edits(root)
    assert made["a3"]["source_sha256"] == made["a2"]["sha256"]
    assert made["a2"]["source_sha256"] == made["a"]["sha256"]
    scored = [record["id"] for record in read_records(run_dir(root), "score")]
    assert sorted(scored[7:]) == (again if drifts else []), "a score holds for an image and its source"


def test_a_turn_whose_image_was_changed_is_noticed_and_made_again(tmp_path: Path) -> None:
    root, whole = plan(tmp_path), plan(tmp_path, name="whole")
    do(root, "a")
    image = root / edits(root)["a"]["image"]
    image.write_bytes(bytes(len(image.read_bytes())))
    assert heal(root) == 0
    heal(whole)
    assert images(root)["a3"] == images(whole)["a3"]


def test_a_chain_is_taken_over_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "WORTH", -1.0)
    root, whole = plan(tmp_path), plan(tmp_path, name="whole")
    begin(root, 4)
    assert task(root, 1) == Tally(ok=7)
    assert task(root, 0) == Tally()
    heal(whole)
    assert images(root) == images(whole)


def test_what_follows_a_suspect_comes_after_it() -> None:
    samples = [line(i, FOLLOWS.get(i, "")) for i in ORDER]
    suspect = [sample for sample in samples if sample.id == "a2"]
    first, behind = less_what_follows([sample for sample in samples if sample.id != "a2"], suspect)
    assert [sample.id for sample in first] == ["a", "b", "c", "c2", "d"]
    assert [sample.id for sample in behind] == ["a3"]


def test_chains_and_turns() -> None:
    chains = chains_of(ORDER, FOLLOWS)
    assert chains == [["a", "a2", "a3"], ["b"], ["c", "c2"], ["d"]]
    assert chains_of(["a3", "c2", "d"], FOLLOWS) == [["a3"], ["c2"], ["d"]]
    assert in_turns(chains) == ["a", "b", "c", "d", "a2", "c2", "a3"]


def line(sample_id: str, follows: str = "") -> Sample:
    return Sample(0, sample_id, "all", "do", (), 1, follows=follows)


def test_an_earlier_version_refuses_a_run_that_it_would_do_out_of_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = plan(tmp_path)
    begin(root, 2)
    file = run_dir(root).attempt("edit", 1)
    assert read_attempt(file).slice(1) == ["b", "d"]
    monkeypatch.setattr(layout, "CHAINED", layout.VERSION)
    with pytest.raises(UserError, match="newer slurm_bench"):
        open_run(root)
    with pytest.raises(UserError, match="newer slurm_bench"):
        read_attempt(file)


def test_a_plan_without_turns_says_nothing_of_them() -> None:
    row = line("a").to_json()
    assert "follows" not in row
    assert row["v"] == layout.VERSION
    assert line("b", "a").to_json()["follows"] == "a"


def test_under_another_seed_a_turn_follows_that_seeds_turn() -> None:
    found = {sample.id: sample.follows for sample in repeated([line("a"), line("a2", "a")], 0, 2)}
    assert found == {"a": "", "a2": "a", "a@2": "", "a2@2": "a@2"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"before": "nobody"}, "it follows 'nobody', which isn't before it in the data"),
        ({"before": "a2"}, "it follows 'a2', which isn't before it"),
        ({"image": "0.png"}, "it follows 'a' and has a source image of its own"),
    ],
)
def test_what_can_follow_nothing_is_told_at_launch(tmp_path: Path, change: dict[str, str], said: str) -> None:
    root = plan(tmp_path)
    data = tmp_path / "bench" / "bench.jsonl"
    lines = [json.loads(text) for text in data.read_text().splitlines()]
    lines[2] |= change
    data.write_text("".join(json.dumps(row) + "\n" for row in lines))
    config: Config = open_run(root).config
    items = {item.id: item for item in read_items(config.data)}
    assert said in items["a2"].problem
    assert items["a3"].follows == "a2"


def whole(tmp_path: Path, name: str, strength: int, fail: Sequence[str] = ()) -> Path:
    params = {"strength": strength, "fail": list(fail)}
    root = plan(tmp_path, params=params, name=name, scorers={"judge": {"class_path": "plugins.Brightness"}})
    for stage in ("edit", "score"):
        work(root, stage)
    return root


def test_two_runs_of_chains_are_compared_turn_by_turn(tmp_path: Path) -> None:
    """A turn's source is each run's own; one that failed costs the turns behind it, and counts for all of them."""
    a, b = whole(tmp_path, "A", 1), whole(tmp_path, "B", 9, fail=["a2"])
    found = compare_runs([a, b])["comparisons"][0]
    assert (found["n"], found["left_out"]) == (5, {"failed in B": 2})
    assert found["failures_as_zero"]["n"] == len(ORDER)
    sides = open_sides([a, b])
    roles = [picture.role for picture in pictures_in_step(sides, "c2")]
    assert roles == ["source, A", "edited, A", "source, B", "edited, B"]
    _, left_out = matches_of(sides)
    assert left_out == {"not edited in B": 2, "each run has a turn before of its own as its source, in A and B": 1}


def test_chains_that_began_otherwise_are_no_pairs(tmp_path: Path) -> None:
    one, two = open_sides([plan(tmp_path, name="A"), plan(tmp_path, name="B")])
    two.samples["a"] = structs.replace(two.samples["a"], instruction="something else")
    two.samples["c2"] = structs.replace(two.samples["c2"], follows="b")
    assert {i: why for i in ORDER if (why := differ(one, two, i))} == {
        "a": "the instruction differs",
        "a2": "the instruction of a turn before differs",
        "a3": "the instruction of a turn before differs",
        "c2": "the sample that it follows differs",
    }


def test_a_turn_that_follows_is_not_taken_over_but_made_of_what_was(tmp_path: Path) -> None:
    """Nor is it told, by `plan`, that it would be."""
    old, new = (open_run(plan(tmp_path, name=name)) for name in ("old", "new"))
    begin(old.root, 1, "debug")
    run_task(old, "edit", 1, 0, StopSignals())
    assert set(reusable(new, old, new.state())) == set(ORDER) - FOLLOWS.keys()
