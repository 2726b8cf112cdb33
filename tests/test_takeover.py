"""A task that is done takes over what others haven't begun; nothing is lost by it, whoever dies."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import REPO, assert_whole, attempts, images, launch, make_benchmark, make_config, run_dir
from plugins import Tint, once
from tasks import prepare, work

from slurm_bench.config import PluginConfig, identity
from slurm_bench.editors.base import Edited, EditRequest
from slurm_bench.run import claims as claims_file
from slurm_bench.run.attempts import Attempt, claim, draft
from slurm_bench.run.claims import BLOCKS, Claims, Holder, blocks_of
from slurm_bench.run.create import store
from slurm_bench.run.journal import DONE, Journal, TaskProcess, read_journals
from slurm_bench.run.opened import open_run
from slurm_bench.run.provenance import read_provenance
from slurm_bench.run.records import read_records, reserve_manifest
from slurm_bench.stages import takeover
from slurm_bench.stages.engine import Tally
from slurm_bench.stages.peer import Peer
from slurm_bench.stages.stop import StopSignals
from slurm_bench.stages.task import run_task


class Looks(Tint):
    """Notes that it was loaded; may keep to its slice."""

    def __init__(self, marks: str, takes_over: bool = True) -> None:
        super().__init__()
        self.marks, self.takes_over = Path(marks), takes_over

    def load(self) -> None:
        (self.marks / "loaded").touch()


class WorksWhile(Tint):
    """At its own first sample another task of the attempt does whatever is there to be done."""

    def __init__(self, root: str, meanwhile: int) -> None:
        super().__init__()
        self.root, self.meanwhile = Path(root), meanwhile

    def edit(self, batch: Sequence[EditRequest]) -> list[Edited | Exception]:
        if batch[0].id == "s-0":
            task(self.root, self.meanwhile)
        return super().edit(batch)


class PreparesWhile(Tint):
    """While it gets ready another task of the attempt does whatever is there to be done."""

    def __init__(self, root: str, meanwhile: int) -> None:
        super().__init__()
        self.root, self.meanwhile = Path(root), meanwhile

    def prepare(self, requests: Iterable[EditRequest]) -> None:
        if once(str(self.root), "prepares"):
            task(self.root, self.meanwhile)


@pytest.fixture(autouse=True)
def _however_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples that take no time are taken too."""
    monkeypatch.setattr(takeover, "WORTH", -1.0)


def begin(root: Path, slices: int, stage: str = "edit", number: int = 1) -> Attempt:
    run = open_run(root)
    state = run.state()
    attempt = claim(
        run.folder, stage, state.to_edit() if stage == "edit" else state.to_score(), slices, "local", 0, number, run.by
    )
    assert attempt is not None
    return attempt


def task(root: Path, number: int, stage: str = "edit") -> Tally:
    return run_task(open_run(root), stage, 1, number, StopSignals())


def by_task(root: Path, stage: str = "edit") -> dict[int, int]:
    return dict(Counter(record["task"] for record in read_records(run_dir(root), stage)))


def test_a_waiting_tasks_whole_slice_is_done_by_others_and_it_ends_without_a_model(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_takeover.Looks", {"marks": str(tmp_path)}, count=12)
    begin(root, 3)
    assert task(root, 0) == Tally(ok=12)
    (tmp_path / "loaded").unlink()
    assert (task(root, 1), task(root, 2)) == (Tally(), Tally())
    assert not (tmp_path / "loaded").exists()
    ids = [record["id"] for record in read_records(run_dir(root), "edit")]
    assert sorted(ids) == sorted(f"s-{n}" for n in range(12))


PROBE = """
import os, sys
from slurm_bench.cluster import worker
assert worker.main([{root!r}, "edit", "1", "1", "0", "90", str(os.getppid())]) == 0
print(sorted({{"torch", "diffusers", "transformers"}} & sys.modules.keys()))
"""


def test_a_task_that_is_left_nothing_ends_before_its_heavy_imports(tmp_path: Path) -> None:
    """With the editor that takes longest to get ready, whose load would wait for its turn."""
    root = prepare(tmp_path, "Tint", {}, count=12)
    begin(root, 2)
    assert task(root, 0) == Tally(ok=12)
    run = open_run(root)
    editor = PluginConfig("slurm_bench.editors.qwen.QwenImageEditor", {"model_name": "Qwen/Qwen-Image-Edit"})
    config = replace(run.config, editor=editor)
    store(replace(run, config=config, unstored=read_provenance(run.folder) | {"config": identity(config)}))
    reserve_manifest(run_dir(root), "edit", 1, 1)
    probe = [sys.executable, "-c", PROBE.format(root=str(root))]
    done = subprocess.run(probe, cwd=REPO, capture_output=True, text=True, timeout=240)
    assert done.stdout == "[]\n", done.stderr
    (process,) = [process for process in read_journals(run_dir(root), "edit") if process.task == 1]
    assert (process.end, process.load_seconds) == (DONE, None)


def test_what_is_done_in_no_time_stays_in_its_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "WORTH", 60.0)
    root = prepare(tmp_path, "Tint", {}, count=12)
    begin(root, 3)
    assert [task(root, number) for number in range(3)] == [Tally(ok=4)] * 3


def test_a_waiting_task_is_left_nothing_of_what_was_worth_taking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "WORTH", 0.1)
    root = prepare(tmp_path, "Tint", {"delay": 0.05}, count=8)
    begin(root, 2)
    assert task(root, 0) == Tally(ok=8)


def test_what_others_have_taken_is_not_done_again_by_its_own_task(tmp_path: Path) -> None:
    """The slow one notices while it works, and is left what it has read ahead."""
    params = {"root": str(tmp_path / "run"), "meanwhile": 1}
    root = prepare(tmp_path, "test_takeover.WorksWhile", params, count=40)
    begin(root, 2)
    claims_file.LOOK, before = 0.0, claims_file.LOOK
    try:
        task(root, 0)
    finally:
        claims_file.LOOK = before
    ids = [record["id"] for record in read_records(run_dir(root), "edit")]
    assert len(ids) == len(set(ids)) == 40
    assert by_task(root)[1] > 30


def test_what_others_took_while_it_got_ready_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However soon it is."""
    monkeypatch.setattr(claims_file, "LOOK", 1e9)
    root = prepare(tmp_path, "test_takeover.PreparesWhile", {"root": str(tmp_path / "run"), "meanwhile": 1}, count=12)
    begin(root, 2)
    assert task(root, 0) == Tally()
    assert by_task(root) == {1: 12}


@pytest.mark.parametrize(
    ("executor", "setting", "params"),
    [("debug", "auto", {}), ("local", "never", {}), ("local", "always", {"takes_over": False})],
)
def test_where_it_is_off_each_does_its_slice(tmp_path: Path, executor: str, setting: str, params: Any) -> None:
    root = prepare(tmp_path, "test_takeover.Looks", {"marks": str(tmp_path), **params}, takeover=setting)
    run = open_run(root)
    assert claim(run.folder, "edit", run.state().to_edit(), 3, executor, 0, 1, run.by)
    assert [task(root, number) for number in range(3)] == [Tally(ok=2)] * 3


@pytest.mark.parametrize(("setting", "taken"), [("auto", 0), ("always", 2)])
def test_what_another_kind_of_card_has_begun_is_left_to_it(tmp_path: Path, setting: str, taken: int) -> None:
    root = prepare(tmp_path, "Tint", {}, takeover=setting)
    begin(root, 2)
    other = Journal(run_dir(root).journal("edit", 1, 1, 0))
    other.note("start", time=time.time(), node="n", gpus=[{"name": "NVIDIA Other"}])
    other.close()
    run_dir(root).records("edit").mkdir(parents=True)
    run_dir(root).manifest("edit", 1, 1, 0).touch()
    assert task(root, 0) == Tally(ok=3 + (3 if taken else 0))


def test_a_scoring_task_takes_over_too(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {}, count=12, score_batch_size=2)
    work(root)
    begin(root, 3, "score")
    assert task(root, 1, "score") == Tally(ok=12)
    assert task(root, 0, "score") == Tally()
    assert open_run(root).state().to_score() == []


def test_who_fails_spoils_nobody_elses(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {"fail": [f"s-{n}" for n in range(0, 12, 3)]}, count=12)
    begin(root, 3)
    assert task(root, 0) == Tally(failed=4)
    assert task(root, 1) == Tally(ok=8)


def test_what_a_dead_taker_had_claimed_is_taken_again_but_for_what_it_had_in_hand(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {}, count=8)
    attempt = begin(root, 2)
    folder = run_dir(root)
    dead = Claims(folder.slice_claims("edit", 1, "editor", 0), Holder(1, 0))
    assert dead.take(2)  # s-4
    assert dead.take(3)  # s-6
    journal = Journal(folder.journal("edit", 1, 1, 0))
    journal.note("spawn")
    journal.hold("editor", ["s-6"])
    folder.records("edit").mkdir(parents=True)
    folder.manifest("edit", 1, 1, 0).touch()
    assert task(root, 0) == Tally(ok=6), "its holder may live"
    journal.note("exit", code=-9)
    journal.close()
    assert task(root, 0) == Tally(ok=1)
    assert "s-4" in images(root)
    assert "s-6" not in images(root), "a suspect stays with the task whose process it killed"
    assert task(root, 1) == Tally(ok=1), "which goes on with it when it is started again"
    assert set(images(root)) == set(attempt.samples)


def test_who_says_nothing_for_ten_of_its_slowest_samples_is_dead(tmp_path: Path) -> None:
    """With its node, which notes no end."""
    attempt = draft(run_dir(tmp_path), "edit", ["s-0"], 1, "slurm", 0, 1)
    peer = Peer(run_dir(tmp_path), attempt, 0, "editor", processes=[TaskProcess("edit", 1, 0, 0, "n1")], slowest=60.0)
    for silent, dead in ((0.0, False), (599.0, False), (601.0, True)):
        peer.heard = time.time() - silent
        assert peer.is_dead() is dead
    peer.slowest, peer.heard = 1.0, time.time() - 200
    assert not peer.is_dead(), "a load, or a file server, may take as long"


def test_what_a_process_of_an_earlier_attempt_died_with_stays_in_its_slice(tmp_path: Path) -> None:
    """Whoever takes it would do it beside others, and its own task, which keeps it for the end, once more."""
    root = prepare(tmp_path, "Tint", {}, count=8)
    begin(root, 1)
    folder = run_dir(root)
    journal = Journal(folder.journal("edit", 1, 0, 0))
    journal.note("spawn")
    journal.hold("editor", ["s-4", "s-6"])
    journal.note("exit", code=-9)
    journal.close()
    begin(root, 2, number=2)
    claims = Claims(folder.slice_claims("edit", 2, "editor", 0), Holder(0, 0))
    assert claims.take(3)  # s-6: a process of its own task has claimed its block, and died before it began it
    died = Journal(folder.journal("edit", 2, 0, 0))
    died.note("spawn")
    died.note("exit", code=-9)
    died.close()
    folder.records("edit").mkdir(parents=True)
    folder.manifest("edit", 2, 0, 0).touch()
    assert run_task(open_run(root), "edit", 2, 1, StopSignals()) == Tally(ok=6)
    assert set(images(root)) == {"s-0", "s-1", "s-2", "s-3", "s-5", "s-7"}
    assert run_task(open_run(root), "edit", 2, 0, StopSignals()) == Tally(ok=2)
    done = Counter(record["id"] for record in read_records(folder, "edit"))
    assert done == dict.fromkeys((f"s-{n}" for n in range(8)), 1), "each of them once"


def test_a_taker_and_the_one_it_takes_from_are_killed_and_no_sample_is_lost(tmp_path: Path) -> None:
    data = make_benchmark(tmp_path / "bench", 24)
    config = make_config(tmp_path / "c.yaml", data, "DiesOnBothSides", {"marks": str(tmp_path)})
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local")
    assert done.returncode == 0, done.stderr
    assert {file.name for file in tmp_path.iterdir()} >= {"taker", "owner"}, "both died"
    plain = make_config(tmp_path / "p.yaml", data)
    assert launch("--config", plain, "--run-dir", tmp_path / "plain", "--executor", "debug").returncode == 0
    assert_whole(tmp_path / "run", tmp_path / "plain")
    assert len(attempts(tmp_path / "run")) == 1, "all of it was done by the tasks that were there"


def test_of_many_who_claim_a_block_one_gets_it(tmp_path: Path) -> None:
    takers = [Claims(tmp_path / "slice", Holder(n, 0)) for n in range(5)]
    assert [taker.take(7) for taker in takers] == [True, False, False, False, False]
    assert takers[3].look(now=True)
    assert takers[3].holders(7) == [Holder(0, 0)]
    assert takers[3].take(7, turn=1)
    assert takers[4].look(now=True)
    assert takers[4].holders(7) == [Holder(0, 0), Holder(3, 0)]


def test_nothing_is_listed_while_nobody_takes_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_file, "LOOK", 0.0)
    mine = Claims(tmp_path, Holder(0, 0))
    listed: list[int] = []
    monkeypatch.setattr(claims_file.os, "listdir", lambda folder: listed.append(1) or [])
    for _ in range(5):
        assert not mine.look()
    assert len(listed) == 2


@pytest.mark.parametrize(("count", "batch"), [(1, 1), (256, 1), (257, 1), (10_000, 1), (10_000, 32), (5, 8)])
def test_blocks_are_whole_batches_and_few(count: int, batch: int) -> None:
    blocks = blocks_of([(n,) for n in range(count)], batch)
    assert [n for block in blocks for n in block] == list(range(count))
    assert len(blocks) <= BLOCKS
    assert all(len(block) % batch == 0 for block in blocks[:-1])


def test_a_large_array_is_looked_at_in_parts_and_by_all_together_whole() -> None:
    attempt = Attempt("edit", 1, tuple(map(str, range(2000))), 1000, "slurm", 0, 0.0, "", 1, 0.0)
    seen: set[int] = set()
    for number in range(200):
        window = takeover.window_of(attempt, number)
        assert len(window) == takeover.LOOKS_AT
        assert number not in window
        seen |= set(window)
    assert len(seen) > 990
