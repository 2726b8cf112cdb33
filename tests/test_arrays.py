"""On a real cluster whose arrays are short: more tasks than an array may have, fewer at once than there are, several in
one job, and Python started by another command."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
from cluster import SlurmCluster
from helpers import assert_whole, attempts, images, launch, make_config, run_dir
from test_slurm import Bed

from slurm_bench.config import load_config
from slurm_bench.errors import UserError
from slurm_bench.run.journal import DONE, STOPPED, read_journals
from slurm_bench.run.layout import RunDir
from slurm_bench.run.records import read_records


@pytest.fixture
def bed(slurm: SlurmCluster, tmp_path: Path, bench: Path) -> Bed:
    return Bed(slurm, tmp_path, bench)


def most_at_once(run: RunDir) -> int:
    """Tasks of the first attempt, from a worker's start to its end."""
    spans = []
    for file in run.journals.glob("edit-001-*.jsonl"):
        times = [json.loads(line)["time"] for line in file.read_text().splitlines()]
        spans.append((times[0], times[-1]))
    return max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)


def test_more_slices_than_gpus_and_than_an_array_may_have(bed: Bed, undisturbed: Path) -> None:
    bed.holds(takeover="never")
    done = bed.submitted("--slices", 9, gpus=3)
    (attempt,) = attempts(bed.root)
    arrays = [attempt["job_id"], *attempt["more_job_ids"]]
    assert len(arrays) == 2
    for expected in (*arrays, "2 arrays, of 4, 5", "task 8: 2 samples"):
        assert expected in done.stdout
    assert set(bed.verb("status").stdout.split()) >= {f"{arrays[0]},", arrays[1]}
    depends = bed.slurm.run("squeue", "-h", "-j", attempt["finish_job_id"], "-o", "%E")
    assert all(f"afterany:{array}_*" in depends for array in arrays)
    again = bed.verb("resubmit")
    assert again.returncode == 1
    assert all(array in again.stderr for array in arrays)
    bed.slurm.run("scancel", f"{arrays[1]}_4")  # task 8, which waits: the chain takes it over
    bed.go()
    bed.slurm.wait_idle(120)
    assert_whole(bed.root, undisturbed)
    assert most_at_once(bed.run) <= 3
    assert {record["task"] for record in read_records(bed.run, "edit") if record["attempt"] == 1} == set(range(8))
    assert attempts(bed.root)[1]["samples"] == ["s-8", "s-17"]


def test_all_arrays_are_cancelled_and_none_begins_meanwhile(bed: Bed) -> None:
    bed.holds()
    bed.submitted("--slices", 9, "--parallel", 1)
    (attempt,) = attempts(bed.root)
    bed.slurm.wait_for(lambda: read_journals(bed.run, "edit"), 60, "a task at work")
    said = bed.verb("cancel").stdout.splitlines()
    last_to_first = [attempt[key] for key in ("standby_job_id", "finish_job_id")]
    last_to_first += [*reversed(attempt["more_job_ids"]), attempt["job_id"]]
    assert list(dict.fromkeys(line.split()[2].split("_")[0] for line in said)) == last_to_first
    bed.slurm.wait_idle(60)
    assert {process.task for process in read_journals(bed.run, "edit")} == {0}


def test_a_launcher_killed_with_its_arrays_submitted_leaves_nothing_at_work(bed: Bed, undisturbed: Path) -> None:
    """At the last sbatch, the standby's: the following job isn't held, it waits for the arrays."""
    bed.config(takeover="never")
    launcher = bed.popen(bed.stopped_at_sbatch(4), gpus=9)
    bed.slurm.wait_for(bed.stopped, 60, "the last sbatch")
    bed.kill(launcher)
    assert {row[1] for row in bed.slurm.squeue("%i %T")} == {"PENDING"}
    left = {row[0].split("_")[0] for row in bed.slurm.squeue("%i")}
    assert len(left) == 3
    bed.submitted(gpus=2)
    assert left.isdisjoint(row[0].split("_")[0] for row in bed.slurm.squeue("%i %T") if row[1] != "COMPLETING")
    bed.slurm.wait_idle(90)
    assert_whole(bed.root, undisturbed)
    assert len(read_records(bed.run, "edit")) == 24


def test_tasks_share_a_node_each_with_a_gpu_of_its_own(bed: Bed, undisturbed: Path) -> None:
    """One's death hurts no other, and what tells the job to leave in time reaches all; no log is overwritten when it
    runs again."""
    held = {"mark": str(bed.folder / "go"), "after": 1}
    bed.config("DiesOnce", {"marks": bed.marks(), "at": "s-1", **held}, takeover="never")
    done = bed.submitted("--pack", 4, gpus=8)
    assert "an array of 2, 4 tasks with a GPU of their own in each" in done.stdout
    array = attempts(bed.root)[0]["job_id"]
    bed.slurm.wait_for(lambda: len({r["task"] for r in read_records(bed.run, "edit")}) == 8, 60, "all at work")
    bed.slurm.run("scancel", "--signal=USR2", f"{array}_0")
    told = lambda: {p.task for p in read_journals(bed.run, "edit") if p.end == STOPPED}  # noqa: E731
    bed.slurm.wait_for(lambda: told() == {0, 1, 2, 3}, 60, "the end of those that were told")
    bed.go()
    bed.slurm.wait_hurried(120)
    assert_whole(bed.root, undisturbed)
    assert len(attempts(bed.root)) == 1
    records = read_records(bed.run, "edit")
    seen = {(r["task"], r["node"], r["info"]["gpu"]) for r in records}
    tasks = {node: {task for task, where, _ in seen if where == node} for _, node, _ in seen}
    assert Counter(task for task, _, _ in seen) == Counter(range(8)) or len(tasks) == 1, "none has seen two"
    for job in (range(4), range(4, 8)):
        for node in tasks:
            gpus = [gpu for task, where, gpu in seen if task in job and where == node]
            assert sorted(gpus) in ([], ["0", "1", "2", "3"])
    ended = read_journals(bed.run, "edit")
    assert sorted(p.task for p in ended if p.end == STOPPED) == [0, 1, 2, 3]
    assert next(p.how for p in ended if p.task == 1) == "killed by SIGKILL"
    first = (bed.root / "logs" / "submitit" / f"{array}_0_0_log.err").read_text()
    assert first.count("asked Slurm to run this job again") == 1
    for task in range(8):
        said = (bed.root / "logs" / f"edit-001-{task:04d}.out").read_text()
        assert said.count(f"task {task} of 8") == sum(process.task == task for process in ended)


def test_packed_tasks_take_over_from_one_another_and_from_a_job_that_waits(bed: Bed, undisturbed: Path) -> None:
    """One job at a time: the first one's four tasks do the work of the second, which ends without loading a model."""
    marks = bed.marks()
    bed.config("Loads", {"seconds": 0, "marks": marks, "delay": 1})
    bed.submitted("--pack", 4, "--parallel", 4, gpus=8)
    bed.slurm.wait_idle(150)
    assert_whole(bed.root, undisturbed)
    records = read_records(bed.run, "edit")
    assert len(records) == 24, "none is done twice"
    assert len(attempts(bed.root)) == 1
    assert {record["task"] for record in records} <= set(range(4))
    late = [process for process in read_journals(bed.run, "edit") if process.task >= 4]
    assert [(process.end, process.load_seconds) for process in late] == [(DONE, None)] * 4


def test_a_job_with_fewer_gpus_than_tasks_says_so_and_is_not_tried_again(bed: Bed) -> None:
    bed.config()
    bed.submitted("--pack", 4, "slurm.gres=gpu:2", gpus=4)
    bed.slurm.wait_idle(60)
    assert len(attempts(bed.root)) == 1
    assert "given 2 GPUs (0,1) for 4 tasks" in bed.verb("explain").stdout
    assert images(bed.root) == {}


def test_jobs_run_in_a_container_that_has_no_slurm(bed: Bed, undisturbed: Path) -> None:
    """Played by a command that hides all others; where it may not submit, the following job does the work itself."""
    inside, marks = bed.folder / "my container", bed.folder / "started"
    inside.write_text(f'#!/bin/sh\necho "$1 $*" >> {marks}\nshift\nPATH=/nowhere IN_IT=yes exec "$@"\n')
    inside.chmod(0o755)
    typed = {"python": f"'{inside}' exec '{sys.executable}'", "srun_args": ["--label"]}
    bed.config("LoadsAtSecond", {"marks": bed.marks()}, slurm=typed, takeover="never")
    bed.submitted(gpus=2)
    bed.slurm.wait_idle(120)
    assert_whole(bed.root, undisturbed)
    assert len(marks.read_text().splitlines()) == 3, "two tasks, and the job that follows"
    assert len(attempts(bed.root)) == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"slices": 0}, "'slices' is 0; it must be at least 1"),
        ({"parallel": 4, "gpus": 8, "pack": 8}, "'parallel' is 4, but by 'pack' 8 tasks of a job work at once"),
        ({"slices": 8, "gpus": 2, "pack": 4}, "make 'gpus' at least 4, or 'pack' at most 2"),
    ],
)
def test_what_can_not_be_kept_is_refused(tmp_path: Path, bench: Path, more: dict[str, int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_config(make_config(tmp_path / "c.yaml", bench, **more))


def test_here_too_slices_queue_for_places(tmp_path: Path, bench: Path, undisturbed: Path) -> None:
    config = make_config(tmp_path / "c.yaml", bench)
    where = ("--config", config, "--run-dir", tmp_path / "run", "--executor", "local")
    done = launch(*where, "--gpus", 3, "--slices", 3, "--parallel", 1)
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path / "run", undisturbed)
    (attempt,) = attempts(tmp_path / "run")
    assert attempt["slices"] == 3
    assert most_at_once(run_dir(tmp_path / "run")) == 1
