"""The local and debug executors: the same stages, the same folder, the same bytes; killed and resumed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import stand_in_judge
from helpers import (
    REPO,
    assert_whole,
    attempts,
    hear_interrupts,
    images,
    launch,
    make_benchmark,
    make_config,
    rows,
    run_dir,
    summary,
)

from slurm_bench.cluster.local import Local
from slurm_bench.cluster.sbatch import gpus_of
from slurm_bench.config import Config
from slurm_bench.errors import UserError
from slurm_bench.run.opened import open_run
from slurm_bench.run.records import read_records


@pytest.mark.parametrize("gpus", [1, 2, 6, 7])
def test_any_number_of_slices_gives_the_same_bytes(tmp_path: Path, bench: Path, undisturbed: Path, gpus: int) -> None:
    config = make_config(tmp_path / "c.yaml", bench, batch_size=gpus, score_batch_size=gpus)
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local", "--gpus", gpus)
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path / "run", undisturbed)
    assert attempts(tmp_path / "run")[0]["slices"] == gpus
    assert f"idx % {gpus}" in done.stdout
    assert "report.html" in done.stdout
    assert "physical" in done.stdout


def test_another_order_and_a_filter_change_no_image(tmp_path: Path, bench: Path, undisturbed: Path) -> None:
    lines = bench.read_text().splitlines()
    random.Random(1).shuffle(lines)
    shuffled = bench.with_name("shuffled.jsonl")
    shuffled.write_text("\n".join(lines) + "\n")
    config = make_config(tmp_path / "c.yaml", shuffled)
    words = ("data.categories=[causal,social]", "--executor", "debug")
    assert launch("--config", config, "--run-dir", tmp_path / "run", *words).returncode == 0
    found = images(tmp_path / "run")
    assert 0 < len(found) < 24
    assert found.items() <= images(undisturbed).items()


def test_killed_at_any_moment_it_goes_on_where_it_was(tmp_path: Path, bench: Path, undisturbed: Path) -> None:
    config = make_config(tmp_path / "c.yaml", bench, "Tint", {"delay": 0.1}, takeover="never")
    command = [sys.executable, "launch.py", "--config", config, "--run-dir", tmp_path / "run", "--executor", "local"]
    for patience in (0.3, 1.4, 1.8, 2.2):
        launcher = subprocess.Popen(
            list(map(str, command)), cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(patience)
        launcher.kill()
        launcher.wait()
        wait_for_tasks(tmp_path / "run")
        done_before = images(tmp_path / "run")
    done = launch(*command[2:])
    assert done.returncode == 0, done.stderr
    ok = [r["id"] for r in read_records(run_dir(tmp_path / "run"), "edit") if r["status"] == "ok"]
    assert len(ok) == len(set(ok)), "something was done twice"
    assert done_before.items() <= images(undisturbed).items()
    # the editor's delay is a parameter, the image isn't: compare with the run that had none
    assert images(tmp_path / "run") == images(undisturbed)
    assert rows(tmp_path / "run") == rows(undisturbed)


def test_a_killed_launchers_tasks_stop_with_it(tmp_path: Path, bench: Path) -> None:
    config = make_config(tmp_path / "c.yaml", bench, "InHand", {"mark": str(tmp_path / "never"), "after": 1})
    command = [sys.executable, "launch.py", "--config", config, "--run-dir", tmp_path / "run", "--executor", "local"]
    launcher = subprocess.Popen(list(map(str, command)), cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "run").glob("edit/images/*/*.png"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(tasks_of(tmp_path / "run")) == 2
    launcher.kill()
    launcher.wait()
    wait_for_tasks(tmp_path / "run")
    assert 0 < len(images(tmp_path / "run")) < 24, "they went on to the end"


def wait_for_tasks(root: Path) -> None:
    """The launcher's death reaches its tasks by a signal; they finish what they have in hand."""
    deadline = time.monotonic() + 120
    while tasks_of(root):
        assert time.monotonic() < deadline, "a task outlived its launcher"
        time.sleep(0.1)


def tasks_of(root: Path) -> list[str]:
    listed = subprocess.check_output(["ps", "-eww", "-o", "args"], text=True).splitlines()
    return [line for line in listed if "slurm_bench.cluster.worker" in line and str(root) in line]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_stops_its_tasks_and_says_how_to_go_on(tmp_path: Path, bench: Path, number: int) -> None:
    config = make_config(tmp_path / "c.yaml", bench, "InHand", {"mark": str(tmp_path / "never"), "after": 1})
    command = [sys.executable, "launch.py", "--config", config, "--run-dir", tmp_path / "run", "--executor", "local"]
    launcher = subprocess.Popen(
        list(map(str, command)),
        cwd=REPO,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=hear_interrupts,
    )
    while not list((tmp_path / "run").glob("edit/images/*/*.png")):
        time.sleep(0.1)
    launcher.send_signal(number)
    _, said = launcher.communicate(timeout=240)
    assert launcher.returncode == 130
    assert f"to go on, type: python launch.py resubmit {tmp_path / 'run'}" in said
    assert tasks_of(tmp_path / "run") == []


@pytest.mark.parametrize("executor", ["local", "debug"])
def test_a_run_folder_that_is_renamed_under_its_launcher_is_not_made_again(
    tmp_path: Path, bench: Path, undisturbed: Path, executor: str
) -> None:
    mark = tmp_path / "go on"
    config = make_config(tmp_path / "c.yaml", bench, "InHand", {"mark": str(mark), "after": 1})
    root, moved = tmp_path / "run", tmp_path / "moved"
    command = [sys.executable, "launch.py", "--config", config, "--run-dir", root, "--executor", executor]
    launcher = subprocess.Popen(list(map(str, command)), cwd=REPO, stderr=subprocess.PIPE, text=True)
    while not list(root.glob("edit/images/*/*.png")):
        time.sleep(0.1)
    root.rename(moved)
    if executor == "debug":  # it has the sample in hand itself
        mark.touch()
    _, said = launcher.communicate(timeout=240)
    assert launcher.returncode == 1
    assert f"{root}: the run folder was moved, renamed or deleted" in said.splitlines()[-1]
    assert not root.exists()
    mark.touch()
    assert launch("resubmit", moved).returncode == 0
    assert_whole(moved, undisturbed)


def test_a_task_that_dies_is_healed(tmp_path: Path, bench: Path, undisturbed: Path) -> None:
    config = make_config(tmp_path / "c.yaml", bench, "DiesOnce", {"marks": str(tmp_path), "at": "s-7"})
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local")
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path / "run", undisturbed)
    assert len(attempts(tmp_path / "run")) == 1, "in the task itself"


def test_what_always_fails_ends_with_3_a_report_and_an_empty_cell(tmp_path: Path, bench: Path) -> None:
    config = make_config(tmp_path / "c.yaml", bench, "Tint", {"fail": ["s-2"]})
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local")
    assert done.returncode == 3
    assert "'s-2'" in done.stderr
    (row,) = [row for row in rows(tmp_path / "run") if row["id"] == "s-2"]
    assert (row["status"], row["brightness"]) == ("error", "")
    assert "s-2 fails always" in row["error"]
    counts = summary(tmp_path / "run")["counts"]
    assert (counts["planned"], counts["scored"], counts["failed"], counts["missing"]) == (24, 23, 1, 0)
    assert launch("report", tmp_path / "run").returncode == 3


def test_a_judge_that_cannot_be_understood_is_counted_and_not_asked_for_ever(tmp_path: Path, bench: Path) -> None:
    judge = {"class_path": "tests.plugins.Judge", "params": {"answers": {"s-3": "no idea"}}}
    scorers = {"judge": judge, "light": {"class_path": "tests.plugins.Brightness"}}
    config = make_config(tmp_path / "c.yaml", bench, scorers=scorers)
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local")
    assert done.returncode == 3
    assert "'s-3': score (judge): ParseFailure: no score in the reply" in done.stderr
    counts = summary(tmp_path / "run")["counts"]
    assert (counts["scored"], counts["failed"], counts["missing"]) == (23, 1, 0)
    assert summary(tmp_path / "run")["headline"] == "judge.overall"
    (row,) = [row for row in rows(tmp_path / "run") if row["id"] == "s-3"]
    assert (row["status"], row["judge.overall"]) == ("error", "")
    assert row["light.brightness"] != ""
    assert len(attempts(tmp_path / "run", "score")) == 1


def test_a_model_that_cannot_load_is_explained(tmp_path: Path, bench: Path) -> None:
    config = make_config(tmp_path / "c.yaml", bench, "Unloadable", retries=1)
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local")
    assert done.returncode == 3
    assert "no such weights" in done.stderr
    assert len(attempts(tmp_path / "run")) == 2


def test_run_on_a_finished_run_does_nothing_again(tmp_path: Path, bench: Path) -> None:
    config = make_config(tmp_path / "c.yaml", bench, "Tint")
    words = ("--config", config, "--run-dir", tmp_path / "run", "--executor", "local")
    assert launch(*words).returncode == 0
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").glob("*/records/*")}
    again = launch("--run-dir", tmp_path / "run", "--executor", "local")
    assert again.returncode == 0
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "run").glob("*/records/*")}
    assert len(attempts(tmp_path / "run")) == 1


def test_another_configuration_is_refused_with_the_difference_unless_forced(tmp_path: Path, bench: Path) -> None:
    config = make_config(tmp_path / "c.yaml", bench, "Tint", {"fail": ["s-2"]})
    words = ("--config", config, "--run-dir", tmp_path / "run", "--executor", "local")
    assert launch(*words).returncode == 3
    plan = (tmp_path / "run" / "plan.jsonl").read_bytes()
    refused = launch(*words, "editor.params.fail=[]", "seed=5")
    assert refused.returncode == 1
    assert "editor.params.fail: ['s-2'] → []" in refused.stderr
    assert "seed: 0 → 5" in refused.stderr
    assert "the plan is frozen" in refused.stderr
    assert refused.stderr.count("\n") == 1
    forced = launch(*words, "editor.params.fail=[]", "seed=5", "--force")
    assert forced.returncode == 0, forced.stderr
    assert (tmp_path / "run" / "plan.jsonl").read_bytes() == plan
    assert len({row["id"] for row in rows(tmp_path / "run")}) == 24


def test_of_two_local_launchers_at_once_one_works(tmp_path: Path, bench: Path, undisturbed: Path) -> None:
    config = make_config(tmp_path / "c.yaml", bench, "WaitsFor", {"mark": str(tmp_path / "go")})
    command = [sys.executable, "launch.py", "--config", config, "--run-dir", tmp_path / "run", "--executor", "local"]
    both = [
        subprocess.Popen(
            list(map(str, command)), cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    while all(process.poll() is None for process in both):
        time.sleep(0.1)
    (tmp_path / "go").touch()
    said = [process.communicate(timeout=240)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], said
    assert any("another launcher" in text or "still at work" in text for text in said)
    assert images(tmp_path / "run") == images(undisturbed)


def with_gpus(folder: Path, count: int) -> dict[str, str]:
    """The environment of a machine that has so many, by what nvidia-smi says."""
    folder.mkdir()
    lines = "\n".join(f"GPU-{n}, NVIDIA H100, 81559 MiB, 580.1" for n in range(count))
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'X'\n{lines}\nX\n")
    (folder / "nvidia-smi").chmod(0o755)
    rest = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    return rest | {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_each_process_sees_its_own_gpu(tmp_path: Path, bench: Path) -> None:
    config = make_config(tmp_path / "c.yaml", bench, takeover="never")
    words = ("--config", config, "--run-dir", tmp_path / "run", "--executor", "local", "--gpus", 6)
    done = launch(*words, env=with_gpus(tmp_path / "bin", 2))
    assert done.returncode == 0, done.stderr
    records = read_records(run_dir(tmp_path / "run"), "edit")
    assert {(r["task"], r["info"]["gpu"]) for r in records} == {(0, "GPU-0"), (1, "GPU-1")}


@pytest.mark.parametrize(("asked", "given"), [("gpu:2", "GPU-0,GPU-1"), ("gpu:h100:8", "GPU-0,GPU-1,GPU-2")])
def test_a_served_judge_sees_as_many_gpus_as_its_job_would(tmp_path: Path, bench: Path, asked: str, given: str) -> None:
    serve = f"{sys.executable} {stand_in_judge.__file__} --port {{port}} --folder {tmp_path}"
    judge = {"class_path": "slurm_bench.scorers.openai_api.OpenAIScorer", "params": {"model": "m", "serve": serve}}
    config = make_config(tmp_path / "c.yaml", bench, scorers={"judge": judge}, score_slurm={"gres": asked})
    words = ("--config", config, "--run-dir", tmp_path / "run", "--executor", "local", "--gpus", 3)
    done = launch(*words, env=with_gpus(tmp_path / "bin", 3))
    assert done.returncode == 0, done.stderr
    (start,) = tmp_path.glob("start-*")
    assert json.loads(start.read_text())["gpus"] == given


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 1),
        ({"gres": "gpu"}, 1),
        ({"gres": "gpu:4"}, 4),
        ({"gres": "tmpfs:10,gpu:h100:2,shard:8"}, 2),
        ({"gpus-per-node": 8}, 8),
        ({"gpus": "a100:3"}, 3),
    ],
)
def test_what_a_job_asks_for_is_counted_as_slurm_does(options: dict[str, object], count: int) -> None:
    assert gpus_of(options) == count


def test_without_gpus_there_are_as_many_slots_as_asked_for(tmp_path: Path, bench: Path) -> None:
    assert Local().slices("edit", Config(gpus=5)) == 5
    config = make_config(tmp_path / "c.yaml", bench, "InHand", {"mark": str(tmp_path / "mark"), "after": 1}, gpus=3)
    command = [sys.executable, "launch.py", "--config", config, "--run-dir", tmp_path / "run", "--executor", "local"]
    launcher = subprocess.Popen(list(map(str, command)), cwd=REPO, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "run").glob("edit/images/*/*.png"))) < 3:
        assert time.monotonic() < deadline, "not all are at work at once"
        time.sleep(0.1)
    (tmp_path / "mark").touch()
    assert launcher.wait(120) == 0


def test_a_breakpoint_works_in_debug(tmp_path: Path, bench: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class Mine:\n    def edit(self, batch):\n        breakpoint()\n        return [r.image for r in batch]\n"
    )
    config = make_config(tmp_path / "c.yaml", bench)
    words = ["--config", config, "--run-dir", tmp_path / "run", "--executor", "debug"]
    words += ["editor.class_path=mine.Mine", "editor.params={}", "data.limit=1"]
    done = subprocess.run(
        [sys.executable, str(REPO / "launch.py"), *map(str, words)],
        input="p 'here is ' + batch[0].id\nc\n",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "here is s-0" in done.stdout
    assert done.returncode == 0, done.stderr
    assert summary(tmp_path / "run")["counts"]["unchanged"] == 1


def test_a_plug_in_in_the_current_folder_runs_in_local_slots(tmp_path: Path) -> None:
    bench = make_benchmark(tmp_path / "bench", 4)
    (tmp_path / "mine.py").write_text(
        "class Mine:\n    def edit(self, batch):\n        return [r.image.rotate(180) for r in batch]\n"
    )
    config = make_config(tmp_path / "c.yaml", Path("bench/bench.jsonl"))
    command = [
        sys.executable,
        str(REPO / "launch.py"),
        "--config",
        config.name,
        "--executor",
        "local",
        "--run-dir",
        "out",
    ]
    command += ["editor.class_path=mine.Mine", "scorers.judge.class_path=mine.Judge"]
    (tmp_path / "mine.py").open("a").write(
        "class Judge:\n    def score(self, batch):\n        return [{'quality': 0.5} for r in batch]\n"
    )
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert bench.exists()
    assert summary(tmp_path / "out")["categories"]["physical"]["mean"] == 0.5


def test_status_counts_by_stage_and_task(undisturbed: Path) -> None:
    found = json.loads(launch("status", undisturbed, "--json").stdout)
    assert found["counts"] == {"planned": 24, "edited": 24, "scored": 24, "failed": 0, "missing": 0}
    (edit, score) = found["attempts"]
    assert [task["ok"] for task in edit["tasks"]] == [24]
    assert score["attempt"] == "score-001"
    assert "24/24" in launch("status", undisturbed).stdout


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path) -> None:
    for verb in ("status", "report", "resubmit", "cancel"):
        done = launch(verb, tmp_path)
        assert done.returncode == 1
        assert "not a run folder" in done.stderr
        assert done.stderr.count("\n") == 1


def test_links_that_lead_in_a_circle_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for words in (("status", tmp_path / "a"), ("--run-dir", tmp_path / "a", "--executor", "debug")):
        done = launch(*words)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "",
            "not a run folder (it has no config.yaml); runs in it, the newest first: demo-3, demo-2, demo-1 and 1 more",
        ),
        ("demmo-2", "no such folder; did you mean 'demo-2'?"),
        ("elsewhere", "no such folder"),
        ("demo-1/report", "not a run folder (it has no config.yaml); it lies in the run {}/demo-1"),
        ("notes.txt", "not a run folder, but a file"),
    ],
)
def test_a_folder_that_is_no_run_says_which_may_be_meant(tmp_path: Path, name: str, said: str) -> None:
    for n in range(4):
        (tmp_path / f"demo-{n}" / "report").mkdir(parents=True)
        (tmp_path / f"demo-{n}" / "plan.jsonl").touch()
        os.utime(tmp_path / f"demo-{n}" / "plan.jsonl", (n, n))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError) as caught:
        open_run(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: {said.format(tmp_path)}"
