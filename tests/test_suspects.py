"""A sample that ends its process is found, gets its record, and starves nobody (law 13)."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import attempts, images, launch, make_benchmark, make_config, rows, run_dir, summary
from tasks import prepare, work

from slurm_bench.config import load_config
from slurm_bench.run.attempts import claim
from slurm_bench.run.create import reconfigure, store
from slurm_bench.run.durable import LineWriter
from slurm_bench.run.journal import LOST, Journal, TaskProcess, node_name, read_journals
from slurm_bench.run.opened import open_run
from slurm_bench.run.suspects import find_suspects
from slurm_bench.stages.engine import Tally

KILLED = [(int(signal.SIGKILL), "SIGKILL"), (int(signal.SIGSEGV), "SIGSEGV"), ("exit", "exit code 7")]


@pytest.mark.parametrize(("how", "said"), [*KILLED, ("words", "please set FOO")])
def test_a_sample_that_ends_its_process_costs_itself_alone(tmp_path: Path, how: Any, said: str) -> None:
    data = make_benchmark(tmp_path / "bench", 12)
    config = make_config(tmp_path / "c.yaml", data, "Kills", {"at": "s-0", "how": how}, gpus=1)
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local")
    assert done.returncode == 3, done.stderr
    assert summary(tmp_path / "run")["counts"]["scored"] == 11
    (row,) = [row for row in rows(tmp_path / "run") if row["status"] == "error"]
    assert row["id"] == "s-0"
    assert said in row["error"]
    assert said in done.stderr
    if how != "words":
        assert len(attempts(tmp_path / "run")) == 1, "it was found in the task itself"
    left = [p for p in read_journals(run_dir(tmp_path / "run"), "edit") if p.end is None and p.exit is None]
    assert left == []


def test_it_is_found_where_all_that_is_left_is_in_hand_at_once(tmp_path: Path) -> None:
    """Three samples are read ahead together, and nothing has come right before the first one kills."""
    data = make_benchmark(tmp_path / "bench", 3)
    config = make_config(tmp_path / "c.yaml", data, "Kills", {"at": "s-0", "how": int(signal.SIGKILL)}, gpus=1)
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local")
    assert done.returncode == 3, done.stderr
    assert set(images(tmp_path / "run")) == {"s-1", "s-2"}
    assert "SIGKILL" in rows(tmp_path / "run")[0]["error"]


def test_two_of_them_in_one_task_cost_two(tmp_path: Path) -> None:
    data = make_benchmark(tmp_path / "bench", 6)
    scorer = {"judge": {"class_path": "tests.plugins.Brightness"}}
    config = make_config(tmp_path / "c.yaml", data, "KillsTwo", gpus=1, scorers=scorer)
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local")
    assert done.returncode == 3, done.stderr
    assert set(images(tmp_path / "run")) == {"s-1", "s-2", "s-4", "s-5"}
    assert {row["id"] for row in rows(tmp_path / "run") if "SIGKILL" in row["error"]} == {"s-0", "s-3"}


@pytest.mark.parametrize("count", [1, 2])
def test_where_nothing_comes_right_it_gets_its_record_in_the_end(tmp_path: Path, count: int) -> None:
    """It may have been the node, as long as another was tried."""
    data = make_benchmark(tmp_path / "bench", count)
    config = make_config(tmp_path / "c.yaml", data, "Unlicensed", gpus=count, retries=1)
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local")
    assert done.returncode == 3, done.stderr
    assert [row["status"] for row in rows(tmp_path / "run")] == ["error"] * count
    assert all("left with exit code" in row["error"] for row in rows(tmp_path / "run"))


def test_where_nothing_comes_right_a_failure_is_no_reason_to_start_processes_for_ever(tmp_path: Path) -> None:
    """Each process failed on s-0 anew, which was taken for progress, and none can tell of what it died."""
    config = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 3), "FailsOrDies", gpus=1)
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local", timeout=240)
    assert done.returncode == 3, done.stderr
    assert summary(tmp_path / "run")["counts"]["failed"] == 3
    assert len(read_journals(run_dir(tmp_path / "run"), "edit")) < 30


def process(
    in_hand: tuple[str, ...], node: str = "n1", end: str | None = None, started: float = 1.0, code: int | None = -9
) -> TaskProcess:
    return TaskProcess("edit", 1, 0, 0, node, started, end, "", 0, 0, code, "editor", in_hand, [])


def ok(node: str) -> dict[str, Any]:
    image = {"sha256": "", "image": "i.png", "seconds": 0.1}
    return {"id": "other", "status": "ok", "node": node, "attempt": 1, "time": 1.0, **image}


def test_a_sample_is_given_up_after_two_deaths_alone() -> None:
    deaths = [process(("a",)), process(("a",), end=LOST)]
    (suspect,) = find_suspects(deaths, [ok("n1")], "editor", {"a"})
    assert suspect.convicted
    assert "SIGKILL" in suspect.sentence
    for fewer in (deaths[:1], [deaths[0], process(("a", "b"))], [deaths[0], process(("a",), end="stopped")]):
        (suspect,) = find_suspects(fewer, [ok("n1")], "editor", {"a"})
        assert not suspect.convicted


def test_a_death_with_its_supervisor_weighs_less() -> None:
    """A node that went down, or a job that was killed: nobody has seen the process's own end."""
    unseen = [process(("a",), code=None)] * 3
    for deaths, convicted in ((unseen[:2], False), ([unseen[0], process(("a",))], False), (unseen, True)):
        (suspect,) = find_suspects(deaths, [ok("n1")], "editor", {"a"})
        assert suspect.convicted is convicted


def test_kills_that_come_after_different_times_come_from_elsewhere() -> None:
    def after(seconds: float, code: int = -signal.SIGKILL) -> TaskProcess:
        return replace(process(("a",), code=code), worked=seconds)

    segfault = -signal.SIGSEGV
    for deaths, convicted in (
        ([after(0.01), after(0.1)], True),
        ([after(30), after(32)], True),
        ([after(3), after(12)], False),
        ([after(3), after(12), after(12.5)], True),
        ([after(3, segfault), after(12, segfault)], True),
        ([after(3), after(12, segfault)], True),
    ):
        (suspect,) = find_suspects(deaths, [ok("n1")], "editor", {"a"})
        assert suspect.convicted is convicted


def test_a_node_on_which_everything_dies_says_nothing_about_a_sample() -> None:
    deaths = [process(("a",)), process(("a",))]
    (suspect,) = find_suspects(deaths, [ok("n2")], "editor", {"a"})
    assert not suspect.convicted
    (suspect,) = find_suspects([*deaths, process(("a",), "n2")], [], "editor", {"a"})
    assert suspect.convicted, "on two nodes it is the sample"


def test_a_person_who_asks_again_has_it_tried_again() -> None:
    given_up = {"id": "a", "status": "error", "error": {"type": "ProcessDied"}, "time": 5.0}
    deaths = [process(("a",)), process(("a",)), process(("a",), started=6.0)]
    (suspect,) = find_suspects(deaths, [ok("n1"), given_up], "editor", {"a"})
    assert len(suspect.alone) == 1


def test_a_sample_that_came_right_after_a_death_is_none() -> None:
    """Where its image is lost later."""
    came_right = {"id": "a", "status": "ok", "node": "n1", "time": 5.0}
    deaths = [process(("a",)), process(("a",))]
    assert find_suspects(deaths, [came_right], "editor", {"a"}) == []
    (suspect,) = find_suspects([*deaths, process(("a",), started=6.0)], [came_right], "editor", {"a"})
    assert len(suspect.alone) == 1
    scored = {**came_right, "scorer": "another"}
    (suspect,) = find_suspects([replace(p, plugin="scorers.judge") for p in deaths], [scored], "scorers.judge", {"a"})
    assert suspect.convicted


def test_what_another_plug_in_died_of_is_no_suspicion() -> None:
    assert find_suspects([process(("a",))], [], "scorers.judge", {"a"}) == []


@pytest.mark.parametrize("replaced", [False, True])
def test_what_an_editor_died_of_that_was_replaced_is_no_suspicion(tmp_path: Path, replaced: bool) -> None:
    root = prepare(tmp_path, "Tint", {}, 3)
    run = open_run(root)
    assert claim(run.folder, "edit", ["s-0"], 1, "debug", 0, 1, run.by)
    for restart in range(2):
        journal = Journal(run.folder.journal("edit", 1, 0, restart))
        journal.start()
        journal.hold("editor", ["s-0"])
        journal.note("exit", code=-9)
    LineWriter(run.folder.manifest("edit", 1, 0, 0)).write(ok(node_name()))
    if replaced:
        another = load_config(run.folder.config, ["editor.params.fail=[s-9]"])
        store(reconfigure(run, another, {}, force=True))
    assert work(root, number=2) == [Tally(ok=3) if replaced else Tally(ok=2, failed=1)]
