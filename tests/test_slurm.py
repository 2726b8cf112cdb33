"""The whole toolkit on a real Slurm cluster, and everything that may die on the way."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cluster import SlurmCluster
from helpers import REPO, assert_whole, attempts, hear_interrupts, images, launch, make_config, rows, run_dir, summary

from slurm_bench.run.journal import read_journals
from slurm_bench.run.layout import RunDir
from slurm_bench.run.records import manifests, read_records


class Bed:
    """A run folder on the test cluster, and the words to launch it."""

    def __init__(self, slurm: SlurmCluster, folder: Path, bench: Path) -> None:
        self.slurm, self.folder, self.bench, self.root = slurm, folder, bench, folder / "run"

    @property
    def run(self) -> RunDir:
        return run_dir(self.root)

    def config(self, editor: str = "Tint", params: dict[str, Any] | None = None, **more: Any) -> None:
        make_config(self.folder / "c.yaml", self.bench, editor, params, **more)

    def holds(self, after: int = 0, **more: Any) -> None:
        """A configuration by which each task has done so many samples and has the next one in hand until `go`."""
        self.config("InHand", {"mark": str(self.folder / "go"), "after": after}, **more)

    def go(self) -> None:
        (self.folder / "go").touch()

    def launch(self, *words: object, gpus: int = 6) -> subprocess.CompletedProcess[str]:
        where = ("--config", self.folder / "c.yaml", "--run-dir", self.root, "--partition", "h100")
        return launch(*where, "--gpus", gpus, *words, env=self.slurm.env)

    def popen(self, env: dict[str, str], gpus: int) -> subprocess.Popen[str]:
        where = ("--config", self.folder / "c.yaml", "--run-dir", self.root, "--partition", "h100", "--gpus", gpus)
        words = [sys.executable, "launch.py", *map(str, where)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(words, cwd=REPO, env=env, preexec_fn=hear_interrupts, **pipes)

    def with_before(self, command: str, script: str) -> dict[str, str]:
        """An environment in which a command of Slurm's runs `script` first, unless it is asked for help."""
        folder = self.folder / "bin"
        folder.mkdir()
        real = shutil.which(command, path=self.slurm.env["PATH"])
        (folder / command).write_text(f'#!/bin/sh\n[ "$1" = --help ] || {{ {script}\n}}\nexec {real} "$@"\n')
        (folder / command).chmod(0o755)
        return self.slurm.env | {"PATH": f"{folder}:{self.slurm.env['PATH']}"}

    def stopped_at_sbatch(self, call: int) -> dict[str, str]:
        """An environment in which this call of sbatch never comes to anything; `kill` ends who waits for it, too."""
        here = f"[ $(wc -l < {self.folder}/calls) = {call} ]"
        wait = f"touch {self.folder}/stopped; while [ ! -e {self.folder}/killed ]; do sleep 0.1; done; exit 1"
        return self.with_before("sbatch", f"echo >> {self.folder}/calls\nif {here}; then {wait}; fi")

    def stopped(self) -> bool:
        return (self.folder / "stopped").exists()

    def kill(self, launcher: subprocess.Popen[str]) -> None:
        launcher.kill()
        launcher.wait()
        (self.folder / "killed").touch()

    def submitted(self, *words: object, gpus: int = 6) -> subprocess.CompletedProcess[str]:
        done = self.launch(*words, gpus=gpus)
        assert done.returncode == 0, done.stderr
        return done

    def verb(self, verb: str, *words: object) -> subprocess.CompletedProcess[str]:
        return launch(verb, self.root, *words, env=self.slurm.env)

    def marks(self) -> str:
        (self.folder / "marks").mkdir(exist_ok=True)
        return str(self.folder / "marks")

    def edited(self) -> int:
        return len(images(self.root)) if (self.root / "edit").exists() else 0

    def finish_log(self) -> str:
        job = attempts(self.root)[-1]["finish_job_id"] or attempts(self.root, "score")[-1]["finish_job_id"]
        return "".join(f.read_text() for f in (self.root / "logs" / "submitit").glob(f"{job}_*.err"))

    def states(self) -> list[str]:
        """Of the tasks of the first attempt that are in the queue."""
        return [row[0] for row in self.slurm.squeue("%T", f"--jobs={attempts(self.root)[0]['job_id']}")]

    def exit_code(self, job: str) -> str:
        found = re.search(r"ExitCode=(\S+)", self.slurm.run("scontrol", "show", "job", job))
        assert found is not None
        return found.group(1)


@pytest.fixture
def bed(slurm: SlurmCluster, tmp_path: Path, bench: Path) -> Bed:
    return Bed(slurm, tmp_path, bench)


def test_one_command_submits_an_array_and_the_job_that_finishes(bed: Bed, undisturbed: Path) -> None:
    bed.holds(takeover="never")
    done = bed.submitted()
    (attempt,) = attempts(bed.root)
    for expected in (str(bed.root), attempt["job_id"], attempt["finish_job_id"], "idx % 6", "task 5: 4 samples"):
        assert expected in done.stdout
    assert "status" in done.stdout
    assert len([j for j in bed.slurm.squeue("%i") if j[0].startswith(f"{attempt['job_id']}_")]) == 6
    dependency = bed.slurm.run("squeue", "-h", "-j", attempt["finish_job_id"], "-o", "%E")
    assert dependency.startswith("afterany:")
    bed.slurm.wait_for(lambda: bed.states() == ["RUNNING"] * 6, 60, "all at work")
    bed.go()
    bed.slurm.wait_idle(90)
    assert_whole(bed.root, undisturbed)
    records = read_records(run_dir(bed.root), "edit")
    assert {record["task"] for record in records} == set(range(6))
    gpus = {(r["task"], r["node"], r["info"]["gpu"]) for r in records}
    assert {(node, gpu) for _, node, gpu in gpus} <= {(f"n{n}", str(gpu)) for n in (1, 2) for gpu in range(4)}
    assert len({(node, gpu) for _, node, gpu in gpus}) == len(gpus) == 6, "each task sees one GPU of its own"
    assert bed.exit_code(attempt["finish_job_id"]) == "0:0"
    assert json.loads(bed.verb("status", "--json").stdout)["counts"]["scored"] == 24


def test_slurms_options_pass_through(bed: Bed) -> None:
    bed.config()
    done = bed.submitted("--time", "00:12:00", "slurm.comment=for the paper", "slurm.nice=10", "--nodelist", "n2")
    (attempt,) = attempts(bed.root)
    shown = bed.slurm.run("scontrol", "show", "job", attempt["finish_job_id"])
    assert "TimeLimit=00:12:00" in shown
    assert "Comment=for the paper" in shown
    assert "NodeList=n2" in shown
    assert done.returncode == 0


def test_what_was_typed_reaches_sbatch_as_it_is_and_a_shells_variables_do_not(bed: Bed) -> None:
    bed.config()
    words = ["--config", bed.folder / "c.yaml", "--run-dir", bed.root, "--partition", "h100"]
    typed = ["slurm.comment=run #5: [a|b] ${HOME}", "slurm.setup=export MARK='start: now #1'", "slurm.exclusive=false"]
    shell = {"SBATCH_PARTITION": "urgent", "SBATCH_TIMELIMIT": "00:07:00", "SBATCH_EXCLUSIVE": "user"}
    done = launch(*words, *typed, "--time", "00:12:00", env={**bed.slurm.env, **shell})
    assert done.returncode == 0, done.stderr
    assert "SBATCH_PARTITION=urgent" in done.stderr
    shown = bed.slurm.run("scontrol", "show", "job", attempts(bed.root)[0]["finish_job_id"])
    for expected in ("Partition=h100", "TimeLimit=00:12:00", "Comment=run #5: [a|b] ${HOME}", "OverSubscribe=OK"):
        assert expected in shown
    bed.slurm.wait_idle(90)
    assert summary(bed.root)["counts"]["scored"] == 24, "the setup line didn't break the script"


def test_a_mistyped_option_of_slurm_is_refused_with_the_right_one(bed: Bed) -> None:
    bed.config()
    done = bed.launch("slurm.qoss=high", "slurm.cpus_per_taks=2")
    assert done.returncode == 1
    assert "did you mean 'slurm.qos'" in done.stderr
    assert not bed.root.exists()


def test_wait_stays_until_the_end_and_gives_the_runs_exit_code(bed: Bed, undisturbed: Path) -> None:
    """Also where the queue answers late: between two attempts it may name no job that was known before."""
    bed.config("Tint", {"fail": ["s-3"]}, retries=0)
    where = ("--config", bed.folder / "c.yaml", "--run-dir", bed.root, "--partition", "h100", "--gpus", 2)
    done = launch(*where, "--wait", env=bed.with_before("squeue", "sleep 2"))
    assert done.returncode == 3
    assert "'s-3'" in done.stderr
    assert "by category" in done.stdout
    assert summary(bed.root)["counts"] | {"unchanged": 0} == {
        "planned": 24,
        "edited": 23,
        "scored": 23,
        "failed": 1,
        "missing": 0,
        "unchanged": 0,
    }


def test_a_node_that_kills_its_tasks_is_left_out_next_time(bed: Bed, undisturbed: Path) -> None:
    bed.config("DiesOnNode", {"node": "n1"}, takeover="never")
    bed.submitted()
    bed.slurm.wait_idle(120)
    assert_whole(bed.root, undisturbed)
    ends = read_journals(run_dir(bed.root), "edit")
    assert sum(end.node == "n1" for end in ends if end.attempt == 1) >= 2
    assert {end.node for end in ends if end.attempt == 2} == {"n2"}


def test_a_cancelled_task_is_healed(bed: Bed, undisturbed: Path) -> None:
    bed.holds(after=1, takeover="never")
    bed.submitted()
    bed.slurm.wait_for(lambda: bed.edited() >= 6, 60, "some images")
    bed.slurm.run("scancel", f"{attempts(bed.root)[0]['job_id']}_3")
    bed.slurm.wait_for(lambda: len(bed.states()) == 5, 60, "the end of one task")
    bed.go()
    bed.slurm.wait_idle(120)
    assert_whole(bed.root, undisturbed)
    assert set(attempts(bed.root)[1]["samples"]) <= {"s-3", "s-9", "s-15", "s-21"}


def test_preempted_tasks_are_requeued_and_nothing_is_done_twice(bed: Bed, undisturbed: Path) -> None:
    bed.holds(after=1, takeover="never")
    bed.submitted()
    bed.slurm.wait_for(lambda: bed.edited() >= 6, 60, "some images")
    bed.slurm.run("sbatch", "-p", "urgent", "--array=0-7", "--gres=gpu:1", "-o", "/dev/null", "--wrap", "sleep 1")
    bed.slurm.wait_for(lambda: "PENDING" in bed.states(), 60, "preemption")
    bed.go()
    bed.slurm.wait_hurried(180)
    assert_whole(bed.root, undisturbed)
    restarted = [f for f in manifests(run_dir(bed.root), "edit") if "-r1" in f.name]
    assert restarted
    ok = [r["id"] for r in read_records(run_dir(bed.root), "edit") if r["status"] == "ok"]
    assert len(ok) == len(set(ok)) == 24


def test_a_task_near_its_time_limit_leaves_in_order_and_goes_on_later(bed: Bed, undisturbed: Path) -> None:
    bed.holds(after=5)
    bed.submitted("--time", "60", "slurm.signal_delay_s=60", gpus=1)
    bed.slurm.wait_for(lambda: bed.edited() >= 5, 60, "some images")
    job = attempts(bed.root)[0]["job_id"]
    bed.slurm.end_soon(job)
    bed.slurm.wait_for(lambda: any(end.message for end in read_journals(bed.run, "edit")), 240, "the signal")
    bed.slurm.run("scontrol", "update", f"jobid={job}", "TimeLimit=60")
    bed.go()
    bed.slurm.wait_hurried(240)
    assert_whole(bed.root, undisturbed)
    assert len(attempts(bed.root)) == 1
    assert [end.message for end in read_journals(run_dir(bed.root), "edit")] == ["SIGUSR2", ""]


def test_a_node_that_goes_down_loses_nothing(bed: Bed, undisturbed: Path) -> None:
    bed.holds(after=1)
    bed.submitted()
    bed.slurm.wait_for(lambda: bed.edited() >= 6, 60, "some images")
    bed.slurm.kill_node("n1")
    bed.go()
    bed.slurm.wait_hurried(180)
    bed.slurm.start_node("n1")
    assert_whole(bed.root, undisturbed)
    assert {end.node for end in read_journals(run_dir(bed.root), "score")} == {"n2"}


def test_a_full_disk_loses_nothing_and_the_run_goes_on_once_there_is_room(
    bed: Bed, small_disk: Path, undisturbed: Path
) -> None:
    bed.root = small_disk / "run"
    bed.holds(after=2)
    bed.submitted(gpus=1)
    (attempt,) = attempts(bed.root)
    bed.slurm.wait_for(lambda: bed.edited() >= 2, 60, "some images")
    bed.slurm.wait_kept(bed.run.submit_log("edit", 1))
    bed.slurm.run("scontrol", "hold", attempt["finish_job_id"])
    fill = f"cat /dev/zero > {small_disk}/ballast"
    assert subprocess.run(fill, shell=True, stderr=subprocess.DEVNULL).returncode != 0
    bed.go()
    bed.slurm.wait_for(lambda: attempt["job_id"] not in {job[0] for job in bed.slurm.squeue()}, 60, "the array's end")
    before = images(bed.root)
    assert 2 <= len(before) < 24
    (small_disk / "ballast").unlink()
    bed.slurm.run("scontrol", "release", attempt["finish_job_id"])
    bed.slurm.wait_idle(120)
    assert_whole(bed.root, undisturbed)
    assert set(attempts(bed.root)[1]["samples"]).isdisjoint(before)


def test_a_torn_line_costs_one_sample_and_a_single_task_is_no_array(bed: Bed, undisturbed: Path) -> None:
    shutil.copytree(undisturbed, bed.root)
    (manifest,) = manifests(run_dir(bed.root), "edit")
    manifest.write_bytes(manifest.read_bytes()[:-40])
    done = bed.verb("resubmit", "--gpus", 6, "--partition", "h100", "--executor", "slurm")
    assert done.returncode == 0, done.stderr
    bed.slurm.wait_idle(90)
    assert_whole(bed.root, undisturbed)
    (_, attempt) = attempts(bed.root)
    assert attempt["samples"] == ["s-23"]
    assert attempt["slices"] == 1
    assert len(read_records(run_dir(bed.root), "edit")) == 24


def test_six_gpus_then_two_then_one(bed: Bed, undisturbed: Path) -> None:
    bed.holds(after=1)
    for gpus in (6, 2):
        enough = bed.edited() + gpus  # what was in hand at a cancel may have come too late
        bed.submitted(gpus=gpus) if gpus == 6 else bed.verb("resubmit", "--gpus", gpus)
        bed.slurm.wait_for(lambda enough=enough: bed.edited() >= enough, 90, f"{enough} images")
        assert bed.verb("cancel").returncode == 0
    bed.go()
    bed.submitted(gpus=1)
    bed.slurm.wait_idle(90)
    assert_whole(bed.root, undisturbed)
    found = attempts(bed.root)
    assert [a["slices"] for a in found] == [6, 2, 1]
    ok = [r["id"] for r in read_records(run_dir(bed.root), "edit") if r["status"] == "ok"]
    assert len(ok) == len(set(ok))


def test_a_live_run_is_not_submitted_again(bed: Bed) -> None:
    bed.holds()
    bed.submitted()
    (attempt,) = attempts(bed.root)
    for again in (bed.launch(), bed.verb("resubmit")):
        assert again.returncode == 1
        assert attempt["job_id"] in again.stderr
        assert attempt["finish_job_id"] in again.stderr
    assert len(attempts(bed.root)) == 1
    assert attempt["finish_job_id"] in bed.verb("cancel").stdout


def test_a_run_that_is_scoring_is_alive_and_can_be_cancelled(bed: Bed) -> None:
    slow = {"judge": {"class_path": "tests.plugins.Brightness", "params": {"delay": 2}}}
    bed.config(scorers=slow, score_batch_size=1)
    bed.submitted()
    finish = attempts(bed.root)[0]["finish_job_id"]
    bed.slurm.wait_for(lambda: read_records(bed.run, "score"), 90, "a score")
    again = bed.launch()
    assert again.returncode == 1
    assert finish in again.stderr
    assert finish in bed.verb("cancel").stdout
    bed.slurm.wait_idle(60)
    assert len(attempts(bed.root)) == len(attempts(bed.root, "score")) == 1
    assert 0 < len(read_records(run_dir(bed.root), "score")) < 24


def test_of_two_launchers_at_once_one_submits(bed: Bed, undisturbed: Path) -> None:
    bed.holds()
    both = [bed.popen(bed.slurm.env, gpus=6) for _ in range(2)]
    said = [process.communicate(timeout=240) for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], said
    assert any("another launcher" in err or "still at work" in err for _, err in said)
    assert len({job[0].split("_")[0] for job in bed.slurm.squeue()}) == 3, "the array, its follower, and a standby"
    bed.go()
    bed.slurm.wait_idle(90)
    assert_whole(bed.root, undisturbed)


def test_a_launcher_that_died_after_sbatch_is_told_by_the_queue(bed: Bed) -> None:
    bed.holds()
    bed.submitted()
    (file,) = (bed.root / "attempts").glob("edit-001.json")
    row = json.loads(file.read_text())
    file.write_text(json.dumps({**row, "job_id": None, "finish_job_id": None, "pid": 1, "pid_start": 1}))
    again = bed.launch()
    assert again.returncode == 1
    assert row["job_id"] in again.stderr


def test_with_healing_off_it_exits_3_and_names_every_missing_id(bed: Bed) -> None:
    bed.config("Unloadable", retries=0)
    bed.submitted(gpus=2)
    bed.slurm.wait_idle(90)
    log = bed.finish_log()
    missing = {f"s-{n}" for n in range(24)}
    for sample_id in missing:
        assert f"'{sample_id}'" in log
    assert f"resubmit {bed.root}" in log
    assert bed.exit_code(attempts(bed.root)[0]["finish_job_id"]) == "3:0"
    assert {row["id"] for row in rows(bed.root) if row["status"] == "missing"} == missing
    assert "tasks 0, 1 of edit-001" in log
    assert "no such weights" in log


def test_a_job_that_may_not_submit_does_the_work_itself(bed: Bed, undisturbed: Path) -> None:
    fake = bed.folder / "bin"
    fake.mkdir()
    (fake / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: not from a compute node' >&2\nexit 1\n")
    (fake / "sbatch").chmod(0o755)
    setup = {"setup": [f"export PATH={fake}:$PATH"]}
    bed.config("LoadsAtSecond", {"marks": bed.marks()}, slurm=setup, takeover="never")
    bed.submitted()
    bed.slurm.wait_idle(150)
    assert_whole(bed.root, undisturbed)
    log = "".join(f.read_text() for f in (bed.root / "logs" / "submitit").glob("*.err"))
    assert "not from a compute node" in log
    assert "does its work itself" in log
    assert len(attempts(bed.root)) == 2


def test_a_sample_that_always_fails_is_no_reason_to_loop(bed: Bed) -> None:
    bed.config("Tint", {"fail": ["s-1"]}, retries=5)
    bed.submitted()
    bed.slurm.wait_idle(90)
    assert [a["retry"] for a in attempts(bed.root)] == [0, 0], "a second process had the same"
    (failed,) = [row for row in rows(bed.root) if row["status"] == "error"]
    assert failed["id"] == "s-1"
    assert "s-1 fails always" in failed["error"]


def test_scoring_is_cut_into_slices_too(bed: Bed, undisturbed: Path) -> None:
    bed.config(takeover="never")
    bed.submitted("--score-gpus", 3)
    bed.slurm.wait_idle(120)
    assert_whole(bed.root, undisturbed)
    (attempt,) = attempts(bed.root, "score")
    assert attempt["slices"] == 3
    assert {record["task"] for record in read_records(run_dir(bed.root), "score")} == {0, 1, 2}


def test_strict_scores_only_what_is_whole(bed: Bed) -> None:
    bed.config("Tint", {"fail": ["s-1"]})
    bed.submitted("--strict")
    bed.slurm.wait_idle(90)
    assert not (bed.root / "report").exists()
    assert not (bed.root / "score").exists()


def test_what_sbatch_refuses_is_one_line_and_blocks_nobody(bed: Bed) -> None:
    bed.config()
    done = bed.launch("slurm.partition=nowhere")
    assert done.returncode == 1
    assert "invalid partition" in done.stderr
    assert "this cluster's partitions: h100, urgent;" in done.stderr
    assert done.stderr.count("\n") == 1
    assert f"when that is mended, type: python launch.py resubmit {bed.root}" in done.stderr
    (cause,) = json.loads(bed.verb("explain", "--json").stdout)["causes"]
    assert (cause["kind"], cause["next"]) == ("not_submitted", f"python launch.py resubmit {bed.root}")
    assert "Traceback" not in done.stderr
    assert bed.slurm.squeue() == []
    assert bed.submitted("slurm.partition=h100").returncode == 0


def test_a_clusters_own_sbatch_may_speak_of_other_jobs(bed: Bed, undisturbed: Path) -> None:
    bed.config()
    launcher = bed.popen(bed.with_before("sbatch", "echo This job costs as much as job 64 did"), gpus=2)
    assert launcher.wait(240) == 0, launcher.communicate()
    bed.slurm.wait_idle(90)
    assert_whole(bed.root, undisturbed)


def test_a_run_folder_with_blanks_and_quotes(bed: Bed, undisturbed: Path) -> None:
    bed.root = bed.folder / 'my run\'s "first" 变😀 $HOME; `x` # &'
    bed.config()
    assert bed.launch("--wait", gpus=2).returncode == 0
    assert_whole(bed.root, undisturbed)


def test_a_finished_old_run_is_scored_again_without_a_dependency(bed: Bed, undisturbed: Path) -> None:
    shutil.copytree(undisturbed, bed.root)
    shutil.rmtree(bed.root / "score")
    shutil.rmtree(bed.root / "report")
    done = bed.verb("resubmit", "--wait", "--executor", "slurm")
    assert done.returncode == 0, done.stderr
    assert_whole(bed.root, undisturbed)
    assert len(attempts(bed.root)) == 1


def test_nothing_missing_submits_nothing(bed: Bed, undisturbed: Path) -> None:
    shutil.copytree(undisturbed, bed.root)
    start = time.time()
    done = bed.verb("resubmit", "--executor", "slurm")
    assert done.returncode == 0
    assert bed.slurm.squeue() == []
    assert len(attempts(bed.root)) == 1
    assert (bed.root / "report" / "summary.json").stat().st_mtime >= start - 1
