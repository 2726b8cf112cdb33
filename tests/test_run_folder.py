"""Slices, seeds, names, records and claims: the laws of the run folder."""

from __future__ import annotations

import errno
import json
import multiprocessing
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from helpers import REPO
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from slurm_bench.bundled import bundled
from slurm_bench.config import Config, ReportConfig, load_config
from slurm_bench.data.item import Item
from slurm_bench.errors import UserError
from slurm_bench.machine import process_start
from slurm_bench.run.attempts import claim, close, next_number, read_attempts
from slurm_bench.run.create import create_run
from slurm_bench.run.durable import LineWriter, create_once, read_lines, write_atomic, writing
from slurm_bench.run.layout import RunDir, fanned
from slurm_bench.run.ledger import read_state
from slurm_bench.run.plan import Plan, Sample, read_plan
from slurm_bench.run.provenance import git_state
from slurm_bench.run.records import read_records, reserve_manifest
from slurm_bench.run.slices import seed_of, slice_of

PNG = b"\x89PNG\r\n\x1a\n"
HOSTILE = ["a/b", "../../etc/passwd", "/abs", "nul\0byte", "x" * 300, ".", "..", "", "日本", "\udc80", "a\nb", "CON"]


@given(st.integers(0, 300), st.integers(1, 40))
def test_slices_share_nothing_and_leave_nothing(count: int, slices: int) -> None:
    parts = [slice_of(range(count), task, slices) for task in range(slices)]
    assert sorted(i for part in parts for i in part) == list(range(count))
    assert all(i % slices == task for task, part in enumerate(parts) for i in part)


def test_a_seed_is_the_same_in_every_process_and_for_ever() -> None:
    program = "from slurm_bench.run.slices import seed_of; print(seed_of('car-7', 3))"
    seeds = {subprocess.check_output([sys.executable, "-c", program], cwd=REPO) for _ in range(2)}
    assert seeds == {f"{seed_of('car-7', 3)}\n".encode()}
    assert seed_of("car-7", 3) == 4216380784
    assert len({seed_of(f"s-{n}", base) for n in range(500) for base in range(2)}) == 1000


@given(st.text(max_size=400))
def test_no_id_becomes_a_path(sample_id: str) -> None:
    assert_safe(sample_id)


@pytest.mark.parametrize("sample_id", HOSTILE)
def test_no_hostile_id_becomes_a_path(sample_id: str) -> None:
    assert_safe(sample_id)


def assert_safe(sample_id: str) -> None:
    folder, _, name = fanned(sample_id).partition("/")
    assert (len(folder), len(name) < 80) == (2, True)
    assert set(folder + name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
    path = Path("/run") / RunDir(Path("/run")).image(sample_id, "abc")
    assert path.parts[:4] == ("/", "run", "edit", "images")
    assert path.parts[4] == fanned(sample_id)[:2]


def test_ids_that_look_alike_get_different_names() -> None:
    assert len({fanned(i) for i in [*HOSTILE, "a-b", "a b", "A/b", "a/B"]}) == len(HOSTILE) + 4


def samples(*ids: str) -> list[Sample]:
    return [Sample(n, i, "physical", "do", ("x.png",), seed_of(i, 0)) for n, i in enumerate(ids)]


def ok(sample_id: str, attempt: int = 1, sha: str = "aa") -> dict[str, Any]:
    return {
        "id": sample_id,
        "status": "ok",
        "sha256": sha,
        "image": "i.png",
        "attempt": attempt,
        "seconds": 1.0,
        "time": 1.0,
    }


def failed(sample_id: str, message: str, tries: int = 1) -> dict[str, Any]:
    return {"id": sample_id, "status": "error", "error": {"type": "E", "message": message}, "tries": tries}


def write_manifest(run: RunDir, stage: str, attempt: int, *records: dict[str, Any], tail: bytes = b"") -> None:
    restart = reserve_manifest(run, stage, attempt, 0)
    writer = LineWriter(run.manifest(stage, attempt, 0, restart), reserved=True)
    for record in records:
        writer.write(record)
    writer.close()
    with open(run.manifest(stage, attempt, 0, restart), "ab") as file:
        file.write(tail)


def test_a_folder_whose_name_is_no_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="UTF-8"):
        create_run(tmp_path / "r\udce4n", load_config(bundled("demo.yaml")), list, {}, force=False)
    assert not list(tmp_path.iterdir())


def test_a_mistyped_fact_to_report_by_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = replace(load_config(bundled("demo.yaml")), report=ReportConfig(by=["difficulti", "tags"]))
    items = [Item(id="a", category="c", instruction="i", source=b"x", facts={"difficulty": "hard", "tags": ["t"]})]
    create_run(tmp_path / "run", config, lambda: items, {}, force=False)
    (said,) = caplog.messages
    assert "'difficulti'" in said
    assert "did you mean 'difficulty'?" in said


def test_a_torn_last_line_and_repeats_are_passed_over(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_manifest(run, "edit", 1, ok("a"), ok("a", sha="bb"), tail=b'{"id": "b", "status": "ok", "sha')
    write_manifest(run, "edit", 2, failed("a", "later"), tail=b"\xff\xfe\n[1]\nnull\n")
    state = read_state(run, samples("a", "b"), ["s"], {})
    assert state.edits["a"].ok is not None
    assert state.edits["a"].ok["sha256"] == "bb"
    assert state.edits["a"].error is None
    assert state.to_edit() == ["b"]


def test_the_newest_ok_record_wins(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_manifest(run, "edit", 10, ok("a", 10, "new"))
    write_manifest(run, "edit", 9, ok("a", 9, "old"))
    outcome = read_state(run, samples("a"), ["s"], {}).edits["a"].ok
    assert outcome is not None
    assert outcome["sha256"] == "new"


def test_a_score_of_another_image_does_not_count(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    score = {"id": "a", "status": "ok", "scores": {"q": 1.0}, "scorer": "s", "edit_sha256": "aa"}
    write_manifest(run, "edit", 1, ok("a", sha="aa"))
    write_manifest(run, "score", 1, score)
    assert read_state(run, samples("a"), ["s"], {}).to_score() == []
    assert read_state(run, samples("a"), ["s", "another"], {}).to_score() == ["a"]
    write_manifest(run, "edit", 2, ok("a", sha="bb"))
    assert read_state(run, samples("a"), ["s"], {}).to_score() == ["a"]


@pytest.mark.parametrize(
    ("errors", "settled"),
    [
        ([failed("a", "x")], False),
        ([failed("a", "x", tries=2)], False),
        ([{**failed("a", "x"), "final": True}], True),
        ([failed("a", "x"), failed("a", "x")], True),
        ([failed("a", "x"), failed("a", "y")], False),
        ([failed("a", "tried to allocate 2.1 GiB"), failed("a", "tried to allocate 33 GiB")], False),
        ([failed("a", "freed 21 bytes"), failed("a", "freed 3 bytes")], True),
    ],
)
def test_two_processes_that_fail_in_the_same_way_settle_it(
    tmp_path: Path, errors: list[dict[str, Any]], settled: bool
) -> None:
    run = RunDir(tmp_path)
    for number, record in enumerate(errors, 1):
        write_manifest(run, "edit", number, record)
    assert read_state(run, samples("a"), ["s"], {}).edits["a"].settled is settled


def test_a_restarted_task_speaks_last(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for sha in ("first", *(f"restart-{n}" for n in range(1, 11))):
        write_manifest(run, "edit", 999, ok("a", sha=sha))
    assert read_state(run, samples("a"), ["s"], {}).edits["a"].ok["sha256"] == "restart-10"  # type: ignore[index]
    write_manifest(run, "edit", 1000, ok("a", sha="newest"))
    assert read_state(run, samples("a"), ["s"], {}).edits["a"].ok["sha256"] == "newest"  # type: ignore[index]


def test_records_of_no_sample_and_of_no_use_are_passed_over(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    bare = [{"id": "a", "status": "ok"}, {"id": "a", "status": "error"}, {"id": 7, "status": "ok", "sha256": "x"}]
    write_manifest(run, "edit", 1, ok("stranger"), *bare, {"id": "a", "status": "?", "sha256": "x"})
    write_manifest(run, "score", 1, {"id": "stranger", "status": "ok", "scores": {}, "scorer": "s"})
    state = read_state(run, samples("a"), ["s"], {})
    assert state.to_edit() == ["a"]
    assert not state.edits["a"].errors


def test_each_process_writes_a_manifest_of_its_own(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    restarts = [reserve_manifest(run, "edit", 1, 3) for _ in range(2)]
    assert restarts == [0, 1]
    for restart, sample_id in zip(restarts, "ab", strict=True):
        LineWriter(run.manifest("edit", 1, 3, restart), reserved=True).write(ok(sample_id))
    assert (run.records("edit") / "001-0003.jsonl").exists()
    assert {record["id"] for record in read_records(run, "edit")} == {"a", "b"}


def test_a_record_is_whole_on_disk_when_write_returns(tmp_path: Path) -> None:
    writer = LineWriter(tmp_path / "r.jsonl")
    writer.write({"id": "a\nb\u2028", "n": 1.5})
    assert read_lines(tmp_path / "r.jsonl") == [{"id": "a\nb\u2028", "n": 1.5}]
    with pytest.raises(ValueError, match="JSON"):
        writer.write({"id": "a", "score": float("nan")})


def test_an_atomic_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_atomic(tmp_path / "deep" / "f", b"old")
    write_atomic(tmp_path / "deep" / "f", b"new")
    assert (tmp_path / "deep" / "f").read_bytes() == b"new"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["f"]


def test_what_is_written_bit_by_bit_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    for fails in (False, True):
        with suppress(ZeroDivisionError), writing(tmp_path / "f") as file:
            file.writelines([b"a", b"b"])
            assert not fails or 1 / 0
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("f", b"ab")]
    with pytest.raises(FileNotFoundError, match="elsewhere"), writing(tmp_path / "f"):
        (tmp_path / "elsewhere").read_bytes()


def test_who_reads_an_old_file_is_not_disturbed_by_the_new_one(tmp_path: Path) -> None:
    write_atomic(tmp_path / "f", b"old")
    with open(tmp_path / "f", "rb") as reader:
        write_atomic(tmp_path / "f", b"new")
        assert reader.read() == b"old"
    assert not create_once(tmp_path / "f", b"newest")
    assert (tmp_path / "f").read_bytes() == b"new"


def _race(folder: str, barrier: Any, won: Any) -> None:
    barrier.wait()
    if claim(RunDir(Path(folder)), "edit", ["a"], 1, "local", 0, 1) is not None:
        with won.get_lock():
            won.value += 1


def test_of_many_that_claim_at_once_one_wins(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, won = context.Barrier(8), context.Value("i", 0)
    racers = [context.Process(target=_race, args=(str(tmp_path), barrier, won)) for _ in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert won.value == 1
    assert not create_once(tmp_path / "attempts" / "edit-001.json", b"{}")
    assert [p.name for p in (tmp_path / "attempts").iterdir()] == ["edit-001.json"]


def test_an_attempt_is_read_back_with_its_end(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    first = claim(run, "edit", ["a", "b", "c"], 7, "local", 0, 1)
    assert first is not None
    assert first.slices == 3
    assert first.launcher_lives() is True
    close(run, first)
    (attempt,) = read_attempts(run)
    assert attempt.closed
    assert attempt.samples == ("a", "b", "c")
    assert next_number([attempt], "edit") == 2
    assert next_number([attempt], "score") == 1
    assert next_number([replace(attempt, number=7)], "edit") == 8, "whatever became of the others"


def test_a_dead_process_is_told_from_its_pids_next_owner() -> None:
    child = subprocess.Popen(["sleep", "600"])
    start = process_start(child.pid)
    child.kill()
    child.wait()
    assert start is not None
    assert process_start(child.pid) != start


def planned(folder: Path, *ids: str, seed: int) -> list[Sample]:
    items = [Item(i, "c", "do", PNG) for i in ids]
    models = {"editor": {"revision": "abc"}}
    return list(create_run(folder, demo(seed), lambda: items, models, force=False).samples)


def demo(seed: int = 0) -> Config:
    return load_config(bundled("demo.yaml"), [f"seed={seed}"])


def unreadable() -> Iterator[Item]:
    raise UserError("the data is gone")
    yield


def test_a_plans_seeds_hang_on_id_and_base_seed_alone(tmp_path: Path) -> None:
    first = {s.id: s.seed for s in planned(tmp_path / "1", "a", "b", "c", seed=5)}
    assert first == {i: seed_of(i, 5) for i in "abc"}
    assert {s.id: s.seed for s in planned(tmp_path / "2", "c", "a", seed=5)}.items() <= first.items()
    assert {s.seed for s in planned(tmp_path / "3", "a", "b", "c", seed=6)}.isdisjoint(first.values())


def test_a_file_server_that_is_away_is_no_folder_that_was_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="moved"):
        RunDir(tmp_path).check_there()
    monkeypatch.setattr("pathlib.Path.exists", Mock(side_effect=OSError(errno.ESTALE, "Stale file handle")))
    RunDir(tmp_path).check_there()


def test_a_plan_never_changes(tmp_path: Path) -> None:
    first = planned(tmp_path, "a", "b", seed=0)
    frozen = (tmp_path / "plan.jsonl").read_bytes()
    assert json.loads((tmp_path / "provenance.json").read_text())["models"] == {"editor": {"revision": "abc"}}
    assert planned(tmp_path, "x", seed=0) == first
    assert create_run(tmp_path, demo(), unreadable, {}, force=False).samples == first, "its data may be gone"
    late = Plan(RunDir(tmp_path))
    late.add([Item("y", "c", "do", None)], 0)
    assert late.freeze() == first, "another planned at the same time"
    assert (tmp_path / "plan.jsonl").read_bytes() == frozen
    (source,) = first[0].sources
    assert (tmp_path / source).read_bytes().startswith(b"\x89PNG")


def test_a_launcher_that_fails_takes_no_image_from_the_one_that_made_the_run_meanwhile(tmp_path: Path) -> None:
    def overtaken() -> Iterator[Item]:
        yield Item("a", "c", "do", PNG)
        planned(tmp_path, "a", seed=0)
        raise UserError("the data is gone")

    with pytest.raises(UserError, match="gone"):
        create_run(tmp_path, demo(), overtaken, {}, force=False)
    (sample,) = read_plan(RunDir(tmp_path))
    assert (tmp_path / sample.sources[0]).exists()


def test_a_launcher_that_fails_takes_no_image_from_one_that_still_plans(tmp_path: Path) -> None:
    killed = tmp_path / f".sources.{socket.gethostname()}-{2**22 + 1}-7.tmp" / "3f"
    killed.mkdir(parents=True)
    failing, other = Plan(RunDir(tmp_path)), Plan(RunDir(tmp_path))
    for plan in (failing, other):
        plan.add([Item("a", "c", "do", PNG)], 0)
    failing.withdraw()
    (sample,) = other.freeze()
    assert (tmp_path / sample.sources[0]).read_bytes() == PNG
    assert not list(tmp_path.glob(".*")), "nor is anything left of it, or of one that was killed"


def test_of_two_that_plan_at_once_the_first_ones_images_stay(tmp_path: Path) -> None:
    first, second = Plan(RunDir(tmp_path)), Plan(RunDir(tmp_path))
    first.add([Item("a", "c", "do", PNG)], 0)
    second.add([Item("a", "c", "do", PNG + b"another")], 0)
    (sample,) = first.freeze()
    assert second.freeze() == [sample]
    assert (tmp_path / sample.sources[0]).read_bytes() == PNG


def test_a_launcher_that_is_refused_replaces_no_image(tmp_path: Path) -> None:
    def late() -> Iterator[Item]:
        planned(tmp_path, "a", seed=0)
        yield Item("a", "c", "do", PNG + b"another")

    with pytest.raises(UserError, match="begun with another configuration"):
        create_run(tmp_path, demo(seed=1), late, {}, force=False)
    (sample,) = read_plan(RunDir(tmp_path))
    assert (tmp_path / sample.sources[0]).read_bytes() == PNG


def test_who_wants_one_more_scorer_is_told_of_score(tmp_path: Path) -> None:
    planned(tmp_path, "a", seed=0)
    told = {}
    for key in ("scorers.more.class_path=plugins.Grey", "editor.params.strength=2"):
        with pytest.raises(UserError) as refused:
            create_run(tmp_path, load_config(bundled("demo.yaml"), ["seed=0", key]), list, {}, force=False)
        told[key.partition(".")[0]] = str(refused.value)
    assert f"score {tmp_path} key=value" in told["scorers"]
    assert "score" not in told["editor"].partition(" was begun with ")[2]


def test_images_that_a_killed_launcher_left_are_replaced(tmp_path: Path) -> None:
    place = tmp_path / RunDir(tmp_path).source("a", "", "png")
    write_atomic(place, b"of older data")
    planned(tmp_path, "a", "b", seed=0)
    assert place.read_bytes() == PNG


@pytest.mark.parametrize("name", ["index", "seed", "repeat"])
def test_a_number_that_no_table_holds_makes_a_plan_a_damaged_one(tmp_path: Path, name: str) -> None:
    planned(tmp_path, "a", seed=0)
    file = tmp_path / "plan.jsonl"
    line = json.loads(file.read_bytes())
    file.write_text(json.dumps(line | {"seed": 2**63 - 1}) + "\n")
    assert read_plan(RunDir(tmp_path))[0].seed == 2**63 - 1
    file.write_text(json.dumps(line | {name: 2**63}) + "\n")
    with pytest.raises(UserError, match=rf"plan\.jsonl: damaged: .*{name}"):
        read_plan(RunDir(tmp_path))


@pytest.mark.parametrize(("file", "read"), [("plan.jsonl", read_plan), ("attempts/edit-001.json", read_attempts)])
def test_a_damaged_file_is_one_line_that_names_it(tmp_path: Path, file: str, read: Callable[[RunDir], Any]) -> None:
    run = RunDir(tmp_path)
    planned(tmp_path, "a", seed=0)
    assert claim(run, "edit", ["a"], 1, "local", 0, 1)
    for damage in (b"{", b"[]\n", b'{"id": "a"}\n'):
        (tmp_path / file).write_bytes(damage)
        with pytest.raises(UserError, match="damaged") as caught:
            read(run)
        assert file in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_a_launcher_goes_on_with_is_the_plan_as_it_is_read(tmp_path: Path) -> None:
    facts = {"tags": ["a", "b"], "difficulty": 0.1 + 0.2, "flags": {"hard": True}}
    several = (Path("/data/a.png"), Path("/data/half\udce4.png"))
    items = [
        Item("a", "physical", "färbe es", Path("/data/a.png"), facts=facts, mask=Path("/data/m.png")),
        Item("b", "causal", "both", several, description="d", rationale="r", problem="is too large"),
        Item("c", "causal", "and then", None, follows="a"),
    ]
    first, second = Plan(RunDir(tmp_path)), Plan(RunDir(tmp_path))
    first.add(items, 3, repeats=2)
    frozen = first.freeze()
    assert frozen == read_plan(RunDir(tmp_path))
    second.add(items[:1], 4)
    assert second.freeze() == frozen, "whoever comes second has the first one's plan"


def test_a_plan_line_has_the_contracts_fields() -> None:
    row = json.loads(json.dumps(samples("a")[0].to_json()))
    assert {"index", "id", "category", "instruction", "source", "seed"} <= row.keys()
    assert Sample.from_json(row) == samples("a")[0]
    assert not {"mask", "sample", "repeat"} & row.keys(), "a plan has them only where the data and `repeats` ask for it"
    masked = structs.replace(samples("a")[0], mask="m.png", sample="a", repeat=1)
    assert Sample.from_json(json.loads(json.dumps(masked.to_json()))) == masked


def test_the_revision_is_that_of_our_own_checkout(tmp_path: Path) -> None:
    """Not of the project that has our installation in its folder."""
    for name in (".gitignore", "ours.py"):
        (tmp_path / name).write_text(".venv\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "installed.py").touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    found = git_state(tmp_path / "ours.py")
    assert found is not None
    assert len(found["revision"]) == 40
    assert found["dirty"] is False
    assert git_state(tmp_path / ".venv" / "installed.py") is None
