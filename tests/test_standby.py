"""On a real cluster: whatever becomes of the job that follows an attempt, the run goes on by itself (law 11)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import NODES, SlurmCluster
from helpers import assert_whole, attempts, images
from test_slurm import Bed

from slurm_bench.run.journal import read_journals
from slurm_bench.run.records import manifests, read_records


@pytest.fixture
def bed(slurm: SlurmCluster, tmp_path: Path, bench: Path) -> Bed:
    return Bed(slurm, tmp_path, bench)


def slow_judge(delay: float) -> dict[str, object]:
    return {"judge": {"class_path": "tests.plugins.Brightness", "params": {"delay": delay}}}


def finishing(bed: Bed) -> str:
    """The job that follows the first attempt, once it is at work."""
    job = attempts(bed.root)[0]["finish_job_id"]
    bed.slurm.wait_for(lambda: [job, "RUNNING"] in bed.slurm.squeue("%i %T"), 60, "the finishing job at work")
    return str(job)


def scoring(bed: Bed) -> list[int]:
    """The process that scores, once it is there."""
    pattern = f"cluster.worker {bed.root} score"
    found = subprocess.run(["pgrep", "-f", pattern], stdout=subprocess.PIPE, text=True)
    return [int(pid) for pid in found.stdout.split()]


def assert_doubled_nothing(bed: Bed) -> None:
    scored = [r["id"] for r in read_records(bed.run, "score") if r["status"] == "ok"]
    assert len(scored) == len(set(scored)) == 24
    assert bed.slurm.squeue() == []


def test_a_run_that_ends_well_leaves_no_standby_behind(bed: Bed, undisturbed: Path) -> None:
    bed.config()
    bed.submitted()
    standby = attempts(bed.root)[0]["standby_job_id"]
    assert bed.slurm.run("squeue", "-h", "-j", standby, "-o", "%E").startswith("afternotok:")
    bed.slurm.wait_idle(90)
    assert_whole(bed.root, undisturbed)
    assert "JobState=CANCELLED" in bed.slurm.run("scontrol", "show", "job", standby)


def test_the_finishing_job_is_killed_and_its_standby_cancelled_while_they_score(bed: Bed, undisturbed: Path) -> None:
    bed.config(scorers=slow_judge(1), score_batch_size=2)
    bed.submitted()
    job = finishing(bed)
    bed.slurm.wait_for(lambda: (bed.root / "score" / "records").exists(), 60, "scores")
    bed.slurm.kill(f"SLURM_JOB_ID={job}")
    standby = attempts(bed.root)[0]["standby_job_id"]
    bed.slurm.wait_for(lambda: len(manifests(bed.run, "score")) > 1, 60, "the standby at work")
    bed.slurm.run("scancel", standby)
    bed.slurm.wait_idle(120)
    assert_whole(bed.root, undisturbed)
    assert_doubled_nothing(bed)


def test_the_process_that_scores_is_killed_and_the_job_goes_on(bed: Bed, undisturbed: Path) -> None:
    bed.config(scorers=slow_judge(1), score_batch_size=2)
    bed.submitted()
    job = finishing(bed)
    bed.slurm.wait_for(lambda: read_records(bed.run, "score") and scoring(bed), 60, "a score")
    os.kill(scoring(bed)[0], signal.SIGKILL)
    bed.slurm.wait_idle(120)
    assert_whole(bed.root, undisturbed)
    assert bed.exit_code(job) == "0:0"


def test_the_finishing_job_fails_before_python_starts(bed: Bed, undisturbed: Path) -> None:
    mark = bed.folder / "failed-once"
    setup = [f'case "$SLURM_JOB_NAME" in *.finish) [ -e {mark} ] || {{ touch {mark}; exit 9; }};; esac']
    bed.config(score_slurm={"setup": setup})
    bed.submitted()
    bed.slurm.wait_idle(120)
    assert mark.exists()
    assert_whole(bed.root, undisturbed)


def test_a_finishing_job_that_is_requeued_after_it_submitted_submits_nothing_twice(bed: Bed, undisturbed: Path) -> None:
    bed.config("LoadsAtSecond", {"marks": bed.marks(), "delay": 1.5}, takeover="never")
    bed.submitted(gpus=2)
    job = finishing(bed)
    bed.slurm.wait_for(lambda: attempts(bed.root)[-1]["number"] == 2, 60, "the second attempt")
    bed.slurm.wait_for(lambda: attempts(bed.root)[-1]["finish_job_id"], 60, "all of its jobs")
    bed.slurm.run("scontrol", "requeue", job, check=False)
    bed.slurm.wait_hurried(150)
    assert_whole(bed.root, undisturbed)
    assert len(attempts(bed.root)) == 2
    assert_doubled_nothing(bed)


def test_a_finishing_job_that_is_cancelled_while_the_array_works_has_nothing_done_twice(
    bed: Bed, undisturbed: Path
) -> None:
    bed.holds(after=1, takeover="never")
    bed.submitted()
    bed.slurm.wait_for(lambda: bed.edited() >= 1, 60, "some images")
    finish = attempts(bed.root)[0]["finish_job_id"]
    bed.slurm.run("scancel", finish)
    bed.slurm.wait_for(lambda: attempts(bed.root)[0]["finish_job_id"] != finish, 60, "another one that waits")
    bed.go()
    bed.slurm.wait_idle(120)
    assert_whole(bed.root, undisturbed)
    assert len(attempts(bed.root)) == 1
    assert len([r for r in read_records(bed.run, "edit") if r["status"] == "ok"]) == 24


def test_cancel_takes_the_standby_first_and_leaves_nothing(bed: Bed) -> None:
    bed.holds()
    bed.submitted()
    done = bed.verb("cancel")
    assert done.returncode == 0, done.stderr
    ids = [attempts(bed.root)[0][key] for key in ("standby_job_id", "finish_job_id", "job_id")]
    assert [line.split()[2].split("_")[0] for line in done.stdout.splitlines()] == ids
    bed.slurm.wait_idle(60)
    bed.slurm.wait_kept(bed.run.submit_log("edit", 1))
    assert bed.slurm.squeue() == []


def test_what_was_cancelled_is_not_taken_for_lost_where_the_queue_forgets_it(bed: Bed) -> None:
    bed.holds()
    before = bed.slurm.saved_state()
    bed.submitted()
    assert bed.verb("cancel").returncode == 0
    bed.slurm.wait_idle(60)
    bed.slurm.restart_controller(0, before)
    bed.slurm.wait_kept(bed.run.submit_log("edit", 1))
    assert bed.slurm.squeue() == []


def test_what_a_crashed_controller_has_forgotten_of_a_launch_is_submitted_again(bed: Bed, undisturbed: Path) -> None:
    """Before it began: a node would refuse the ids of jobs that it has at work, and Slurm hold these."""
    bed.config()
    before = bed.slurm.saved_state()
    for node in NODES:
        bed.slurm.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    bed.submitted()
    bed.slurm.restart_controller(0, before)
    bed.slurm.wait_kept(bed.run.submit_log("edit", 1))
    assert "has lost jobs of edit-001" in bed.run.submit_log("edit", 1).read_text()
    bed.slurm.wait_idle(120)
    assert_whole(bed.root, undisturbed)
    assert len(attempts(bed.root)) == 1


def test_a_launcher_killed_between_two_sbatch_calls_leaves_nothing_at_work(bed: Bed, undisturbed: Path) -> None:
    """Its array is held; whoever asks next takes it back."""
    bed.config()
    launcher = bed.popen(bed.stopped_at_sbatch(2), gpus=3)
    bed.slurm.wait_for(bed.stopped, 60, "the second sbatch")
    bed.kill(launcher)
    assert {row[1] for row in bed.slurm.squeue("%i %T")} == {"PENDING"}
    assert images(bed.root) == {}
    bed.submitted()
    bed.slurm.wait_idle(90)
    assert_whole(bed.root, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_while_submitting_leaves_all_or_nothing(bed: Bed, number: int) -> None:
    bed.holds()
    launcher = bed.popen(bed.with_before("sbatch", f"touch {bed.folder}/asked\nsleep 1"), gpus=3)
    bed.slurm.wait_for((bed.folder / "asked").exists, 60, "the first sbatch")
    launcher.send_signal(number)
    said = launcher.communicate(timeout=240)[1]
    assert launcher.returncode == 130
    jobs = {row[0].split("_")[0] for row in bed.slurm.squeue("%i")}
    assert ("everything was submitted" in said, len(jobs)) in ((True, 3), (False, 0)), said


def test_a_node_on_which_every_call_fails_loses_no_sample(bed: Bed, undisturbed: Path) -> None:
    bed.config("FailsOnNode", {"node": "n1"})
    bed.submitted(gpus=8)
    bed.slurm.wait_idle(120)
    assert_whole(bed.root, undisturbed)


@pytest.fixture
def no_python_on_n1(slurm: SlurmCluster) -> Iterator[None]:
    if not slurm.lose_python("n1"):
        pytest.skip("covering a file for one node alone needs root")
    yield
    slurm.stop_node("n1")
    slurm.start_node("n1")


@pytest.mark.usefixtures("no_python_on_n1")
def test_a_node_on_which_python_does_not_start_is_left_out_of_the_next_attempt(bed: Bed, undisturbed: Path) -> None:
    bed.config(takeover="never")
    bed.submitted("score_slurm.nodelist=n2")
    bed.slurm.wait_idle(180)
    assert_whole(bed.root, undisturbed)
    assert len(attempts(bed.root)) == 2
    assert {process.node for process in read_journals(bed.run, "edit")} == {"n2"}


def test_who_mends_how_jobs_start_goes_on_with_all_nodes(bed: Bed, undisturbed: Path) -> None:
    bed.config()
    bed.submitted("slurm.python=/nowhere", gpus=2)
    bed.slurm.wait_idle(90)
    assert "left out" not in bed.verb("resubmit", "slurm.python=null").stderr
    bed.slurm.wait_idle(90)
    assert_whole(bed.root, undisturbed)
    assert not any("--exclude" in script.read_text() for script in bed.run.submitit.glob("*_submission.sh"))


@pytest.mark.usefixtures("no_python_on_n1")
def test_such_a_node_that_takes_the_standby_too_is_named_and_left_out_by_who_goes_on(
    bed: Bed, undisturbed: Path
) -> None:
    bed.config()
    bed.slurm.run("scontrol", "update", "nodename=n2", "state=drain", "reason=test")
    bed.submitted(gpus=2)
    bed.slurm.wait_idle(120)
    causes = json.loads(bed.verb("explain", "--json").stdout)["causes"]
    bed.slurm.run("scontrol", "update", "nodename=n2", "state=resume")
    assert {(cause["kind"], *cause["nodes"]) for cause in causes} == {("died_before_python", "n1")}
    assert causes[0]["next"] == f"python launch.py resubmit {bed.root}"
    assert bed.verb("resubmit").returncode == 0
    bed.slurm.wait_idle(180)
    assert_whole(bed.root, undisturbed)
    assert {process.node for process in read_journals(bed.run, "edit")} == {"n2"}
