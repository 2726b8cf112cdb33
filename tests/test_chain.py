"""The chain from attempt to attempt, in this process: what is tried again, what isn't, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from copy import deepcopy
from pathlib import Path

import pytest
from helpers import REPO, attempts, images, run_dir, summary
from PIL import Image
from plugins import Tint
from tasks import edits, heal, prepare, work

from slurm_bench.cli import main
from slurm_bench.cluster import alive, chain
from slurm_bench.cluster.chain import carry_on, start
from slurm_bench.cluster.here import Debug, InJob
from slurm_bench.cluster.job import finish, task
from slurm_bench.cluster.launch import launch
from slurm_bench.cluster.queue import Job
from slurm_bench.cluster.requeue import TaskIncomplete
from slurm_bench.config import Config, dump
from slurm_bench.errors import UserError
from slurm_bench.logs import log
from slurm_bench.run.attempts import Attempt, claim, close, read_attempts
from slurm_bench.run.create import reconfigure
from slurm_bench.run.layout import RunDir
from slurm_bench.run.opened import Run, open_run
from slurm_bench.run.records import manifests, read_records
from slurm_bench.stages.stop import StopSignals


class Refuses(Tint):
    def load(self) -> None:
        raise UserError("'editor.params.model_name': no folder here; download it first")


class NoMore(Debug):
    """A cluster that takes one submission, and no other."""

    def execute(self, run: Run, attempt: Attempt) -> bool:
        if len(read_attempts(run.folder)) > 1:
            raise UserError("sbatch refused: not from a compute node")
        return super().execute(run, attempt)


def test_a_dead_task_stops_no_other_and_what_it_left_is_tried_again(tmp_path: Path) -> None:
    root = prepare(tmp_path, "LoadsAtSecond", {"marks": str(tmp_path)})
    assert heal(root) == 0
    first, second = attempts(root)
    assert (first["slices"], len(first["samples"])) == (2, 6)
    assert second["samples"] == ["s-0", "s-2", "s-4"], "the other task's samples were done meanwhile"
    assert summary(root)["counts"]["scored"] == len(images(root)) == 6
    assert all(attempt.closed for attempt in read_attempts(run_dir(root)))


def test_what_fails_alike_but_for_its_numbers_is_one_line_at_the_end(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "handlers", [])  # whatever other tests have left of them
    root = prepare(tmp_path, "Tint", {"fail": [f"s-{n}" for n in range(1, 35)]}, 36, retries=0)
    assert heal(root) == 3
    (said,) = (line for line in capfd.readouterr().err.splitlines() if "edit: ValueError" in line)
    assert said.startswith("  34 samples ('s-1', 's-2', ")
    assert said.endswith(", 's-30', …): edit: ValueError: s-1 fails always")


def test_no_task_is_asked_to_read_again_what_cannot_be_read_here_either(tmp_path: Path) -> None:
    """It would load its model for nothing."""
    root = prepare(tmp_path, "Tint", {"fail": ["s-3"]})
    (tmp_path / "bench" / "1.png").write_bytes((tmp_path / "bench" / "1.png").read_bytes()[:700])
    (tmp_path / "bench" / "2.png").unlink()
    assert heal(root) == 3
    assert [attempt["samples"] for attempt in attempts(root)[1:]] == [["s-3"]]
    errors = Counter(r["id"] for r in read_records(run_dir(root), "edit") if r["status"] == "error")
    assert errors == {"s-1": 2, "s-2": 2, "s-3": 2}


def test_a_task_that_ended_at_its_first_samples_begins_elsewhere_next_time(tmp_path: Path) -> None:
    """The first ones were all that fail: two attempts more began with them, and the others were never tried."""
    root = prepare(tmp_path, "Tint", {"fail": [f"s-{n}" for n in range(12)]}, 30, gpus=1)
    assert heal(root) == 3
    assert set(images(root)) == {f"s-{n}" for n in range(12, 30)}
    assert [len(attempt["samples"]) for attempt in attempts(root)] == [30, 30, 2]


def test_a_file_that_is_back_is_tried_by_the_next_attempt(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    file, away = tmp_path / "bench" / "1.png", tmp_path / "away.png"
    file.rename(away)

    class Mounts(Debug):
        def execute(self, run: Run, attempt: Attempt) -> bool:
            over = super().execute(run, attempt)
            if away.exists():
                away.rename(file)
            return over

    assert heal(root, Mounts()) == 0
    assert [attempt["samples"] for attempt in attempts(root)[1:]] == [["s-1"]]


def test_what_a_file_server_refuses_is_left_to_another_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_trouble(path: Path) -> bytes:
        if path.name == "1.png":
            raise OSError(errno.EIO, "Input/output error")
        return whole(path)

    whole = Path.read_bytes
    root = prepare(tmp_path, "Tint", {})
    monkeypatch.setattr(Path, "read_bytes", in_trouble)
    assert heal(root) == 3
    assert [attempt["samples"] for attempt in attempts(root)[1:]] == [["s-1"]]


def test_a_judge_is_not_loaded_again_for_what_it_cannot_be_shown(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})

    class Replaces(Debug):
        def execute(self, run: Run, attempt: Attempt) -> bool:
            over = super().execute(run, attempt)
            Image.new("RGB", (48, 32)).save(tmp_path / "bench" / "1.png")
            return over

    assert heal(root, Replaces()) == 3
    assert len(attempts(root, "score")) == 1
    assert summary(root)["counts"]["scored"] == 5


def test_a_person_who_asks_again_gets_what_is_missing_and_nothing_else(tmp_path: Path) -> None:
    root = prepare(tmp_path, "LoadsAtSecond", {"marks": str(tmp_path)}, retries=0)
    run, executor = open_run(root), Debug()
    attempt = start(run, executor, force=False)
    assert attempt is not None
    executor.execute(run, attempt)
    close(run.folder, attempt)
    before = images(root)
    assert set(before) == {"s-1", "s-3", "s-5"}
    assert heal(root) == 0
    assert attempts(root)[1]["samples"] == ["s-0", "s-2", "s-4"]
    assert before.items() <= images(root).items()
    for stage in ("edit", "score"):
        assert sorted(record["id"] for record in read_records(run_dir(root), stage)) == [f"s-{n}" for n in range(6)]
    assert start(open_run(root), Debug(), force=False) is None


def test_a_chain_that_lost_its_claim_does_nothing_more(tmp_path: Path) -> None:
    """Another launcher has claimed the next attempt in between: two would work on the same samples."""
    root = prepare(tmp_path, "LoadsAtSecond", {"marks": str(tmp_path)})
    executed: list[str] = []

    class Slower(Debug):
        def slices(self, stage: str, config: Config) -> int:
            if executed:
                assert claim(run_dir(root), stage, ["s-0"], 1, "debug", 0, 2)
            return super().slices(stage, config)

        def execute(self, run: Run, attempt: Attempt) -> bool:
            executed.append(attempt.name)
            return super().execute(run, attempt)

    assert heal(root, Slower()) is None
    assert executed == ["edit-001"]
    assert not (root / "report").exists()


def test_attempts_follow_one_another_also_where_a_clock_is_behind(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    work(root)
    (first,) = read_attempts(run_dir(root))
    file = run_dir(root).attempt("edit", 1)
    file.write_text(json.dumps({**json.loads(file.read_text()), "time": first.time + 3600}))
    close(run_dir(root), first)
    assert heal(root) == 0
    assert [attempt.name for attempt in read_attempts(run_dir(root))] == ["edit-001", "score-001"]


def test_scoring_in_the_job_that_follows_stops_when_it_is_told_to(tmp_path: Path) -> None:
    judge = {"judge": {"class_path": "tests.plugins.Brightness", "params": {"delay": 1.5}}}
    root = prepare(tmp_path, "Tint", {}, scorers=judge, score_batch_size=1)
    work(root)
    attempt = claim(run_dir(root), "score", [f"s-{n}" for n in range(6)], 1, "slurm", 0, 1)
    assert attempt is not None
    stop = StopSignals()

    def tell() -> None:
        patience = time.monotonic() + 600
        while not read_records(run_dir(root), "score") and time.monotonic() < patience:
            time.sleep(0.05)
        stop.reason = "SIGTERM"

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    run, executor = open_run(root), InJob(task, finish, stop, 90, 0)
    with pytest.raises(TaskIncomplete, match="SIGTERM"):
        carry_on(run, attempt, executor) if executor.execute(run, attempt) else None
    teller.join()
    assert 0 < len(read_records(run_dir(root), "score")) < 6
    assert len(attempts(root, "score")) == 1


@pytest.mark.parametrize(("stage", "number"), [("edit", 2), ("score", 1)])
def test_of_two_launchers_that_look_at_once_one_has_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, number: int
) -> None:
    """Also of a run that was at work before. The other one claims as soon as this one has looked; it may be `score`."""
    root, real = prepare(tmp_path, "Tint", {}), alive.attempts_and_jobs
    run = open_run(root)
    files = [run.folder.config, run.folder.provenance]
    before = [file.read_bytes() for file in files]
    other = deepcopy(run.config)
    other.editor.params["delay"] = 1
    run = reconfigure(run, other, {}, force=True)
    first = claim(run.folder, "edit", ["s-0"], 1, "debug", 0, 1)
    assert first is not None
    close(run.folder, first)

    def look(folder: RunDir) -> tuple[list[Attempt], list[Job]]:
        found = real(folder)
        claim(folder, stage, ["s-1"], 1, "debug", 0, number)
        return found

    monkeypatch.setattr(alive, "attempts_and_jobs", look)
    monkeypatch.setattr(chain, "attempts_and_jobs", look)
    with pytest.raises(UserError, match="another launcher"):
        start(run, Debug(), force=False)
    open_ones = [attempt.samples for attempt in read_attempts(run.folder) if not attempt.closed]
    assert open_ones == [("s-1",)], "the other one's"
    assert [file.read_bytes() for file in files] == before, "and by the other one's configuration"
    monkeypatch.undo()
    assert start(run, Debug(), force=True) is not None
    assert (open_run(root).config, open_run(root).by) == (run.config, run.by), "who has the run goes on by his own"


def test_a_refusal_is_not_tried_again(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_chain.Refuses", {}, retries=5)
    assert heal(root) == 3
    assert len(attempts(root)) == 1
    assert summary(root)["counts"]["missing"] == 6
    assert heal(root) == 3, "a person may ask again"
    assert len(attempts(root)) == 2


def test_a_model_that_never_loads_is_tried_as_often_as_asked(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Unloadable", {}, retries=2)
    assert heal(root) == 3
    assert [attempt["retry"] for attempt in attempts(root)] == [0, 1, 2]


def test_where_nothing_more_can_be_submitted_the_report_is_written(tmp_path: Path) -> None:
    root = prepare(tmp_path, "LoadsAtSecond", {"marks": str(tmp_path)})
    assert heal(root, NoMore()) == 3
    assert summary(root)["counts"]["edited"] == 3
    assert all(attempt.closed for attempt in read_attempts(run_dir(root))), "it blocks nobody"
    assert heal(root) == 0


def test_what_a_cluster_refused_blocks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(Debug):
        def execute(self, run: Run, attempt: Attempt) -> bool:
            raise UserError("sbatch refused: no such partition")

    root = prepare(tmp_path, "Tint", {})
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the suite keeps its own handlers
    with pytest.raises(UserError, match="no such partition"):
        launch(open_run(root), Full(), force=False, wait=False)
    assert [attempt.closed for attempt in read_attempts(run_dir(root))] == [True]
    assert launch(open_run(root), Debug(), force=False, wait=False) == 0
    assert launch(open_run(root), Debug(), force=False, wait=False) == 0, "nothing is missing"
    assert len(attempts(root)) == 2


def test_a_run_at_work_is_not_begun_again(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    attempt = start(open_run(root), Debug(), force=False)
    assert attempt is not None
    with pytest.raises(UserError, match=r"still at work.*edit-001.*cancel"):
        start(open_run(root), Debug(), force=False)
    close(run_dir(root), attempt)
    assert heal(root) == 0


def test_all_is_derived_from_plan_and_records(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {"fail": ["s-1"]})
    assert heal(root) == 3
    report = {file.name: file.read_bytes() for file in (root / "report").iterdir() if file.is_file()}
    for folder in (root / "report", root / "logs" / "tasks", root / "attempts"):
        shutil.rmtree(folder)
    done = subprocess.run([sys.executable, "launch.py", "report", root], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 3
    again = {file.name: file.read_bytes() for file in (root / "report").iterdir() if file.is_file()}
    assert again["scores.csv"] == report["scores.csv"]
    assert json.loads(again["summary.json"]) == json.loads(report["summary.json"])


def test_the_report_tells_the_machines_and_the_configuration(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    heal(root)
    provenance = json.loads((root / "provenance.json").read_text())
    (end,) = {row["node"] for row in provenance["machines"]}
    text = (root / "report" / "report.md").read_text()
    assert end in text
    assert provenance["config_hash"] in text
    assert provenance["packages"]["pillow"] in text


def in_a_job(call: str, root: Path) -> subprocess.CompletedProcess[str]:
    """What a job on a node does, in a process of its own."""
    program = f"from slurm_bench.cluster.job import finish, task; {call.replace('ROOT', repr(str(root)))}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    return subprocess.run([sys.executable, "-c", program], cwd=REPO, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("fail", "code"), [([], 0), (["s-1"], 3)])
def test_the_job_after_an_attempt_ends_with_the_runs_exit_code(tmp_path: Path, fail: list[str], code: int) -> None:
    root = prepare(tmp_path, "Tint", {"fail": fail})
    work(root)
    if fail:
        work(root, number=2)  # two processes had the same: it isn't tried a third time
    work(root, "score")
    done = in_a_job("finish(ROOT, 'score', 1, 90, 0)", root)
    assert done.returncode == code, done.stderr
    assert ("'s-1': edit: ValueError: s-1 fails always" in done.stderr) is bool(fail)
    assert len(manifests(run_dir(root), "score")) == 2, "it scores itself, before it looks"
    assert summary(root)["counts"]["scored"] == 6 - len(fail)


def test_what_killed_a_task_is_said_at_the_end(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Unloadable", {}, retries=0)
    with pytest.raises(RuntimeError, match="no such weights"):
        work(root)
    done = in_a_job("finish(ROOT, 'edit', 1, 90, 0)", root)
    assert done.returncode == 3, done.stderr
    assert "task 0 of edit-001 on" in done.stderr
    assert "RuntimeError: no such weights" in done.stderr
    for n in range(6):
        assert f"'s-{n}': no record" in done.stderr
    assert f"resubmit {root}" in done.stderr


@pytest.mark.parametrize(("strict", "code"), [(False, 0), (True, 1)])
def test_a_task_with_a_failed_sample_fails_only_where_all_must_succeed(tmp_path: Path, strict: bool, code: int) -> None:
    root = prepare(tmp_path, "Tint", {"fail": ["s-1"]}, strict=strict)
    assert start(open_run(root), Debug(), force=False)
    done = in_a_job("task(ROOT, 'edit', 1, 1, 90)", root)
    assert done.returncode == code, done.stderr
    assert set(edits(root)) == {"s-1", "s-3", "s-5"}


def test_a_configuration_edited_by_hand_makes_nothing_under_the_mark_of_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Who goes on is told what differs, as where it was typed; --force makes the rest by it, under its own mark."""
    root = prepare(tmp_path, "Tint", {}, retries=0)
    run = open_run(root)
    was, begun = run.config, dict(run.by)
    edited = deepcopy(was)
    edited.editor.params["delay"], edited.seed, edited.batch_size = 0.001, 7, 3
    run.folder.config.write_text(dump(edited))
    caplog.clear()
    run = open_run(root)
    assert (run.config.editor, run.config.seed, dict(run.by)) == (was.editor, was.seed, begun)
    assert run.config.batch_size == 3, "how the work is done hangs on no mark"
    assert "editor.params.delay: '(not set)' → 0.001; seed: 0 → 7" in caplog.text
    assert main(["resubmit", str(root), "executor=debug"]) == 1
    assert "was begun with another configuration (editor.params.delay" in capfd.readouterr().err
    assert not images(root)
    caplog.clear()
    assert main(["resubmit", str(root), "executor=debug", "--force"]) == 0
    marks = {record["by"] for record in read_records(run.folder, "edit")}
    assert len(marks) == 1
    assert marks.isdisjoint(begun.values())
    run = open_run(root)
    assert run.config.editor.params == {"delay": 0.001}
    assert run.config.seed == 0, "the plan's seeds came from it"


def test_a_run_of_before_this_was_kept_is_taken_at_its_configuration(tmp_path: Path) -> None:
    run = open_run(prepare(tmp_path, "Tint", {}))
    facts = json.loads(run.folder.provenance.read_bytes())
    assert facts.pop("config")
    run.folder.provenance.write_text(json.dumps(facts))
    edited = deepcopy(run.config)
    edited.editor.params["delay"] = 0.001
    run.folder.config.write_text(dump(edited))
    assert open_run(run.root).config.editor == edited.editor
