"""What Slurm does to a run, each cause made to happen on a real cluster and told by `explain`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster import SlurmCluster
from helpers import attempts, launch, make_benchmark, make_config, run_dir

from slurm_bench.run.journal import STOPPED, read_journals


class Bed:
    """Several runs side by side."""

    def __init__(self, slurm: SlurmCluster, folder: Path) -> None:
        self.slurm, self.folder = slurm, folder
        self.data = make_benchmark(folder / "bench", 6)

    def submit(self, name: str, *words: str, editor: str = "Tint", params: dict[str, Any] | None = None) -> Path:
        config = make_config(self.folder / f"{name}.yaml", self.data, editor, params, retries=0)
        done = self.launch(name, config, *words)
        assert done.returncode == 0, done.stderr
        return self.folder / name

    def holds(self, name: str, *words: str) -> Path:
        """A run whose tasks have a sample in hand until they are told to leave."""
        return self.submit(name, *words, editor="InHand", params={"mark": str(self.folder / "never")})

    def launch(self, name: str, config: Path, *words: str, path: str = "") -> subprocess.CompletedProcess[str]:
        env = {**self.slurm.env, "PATH": path + self.slurm.env["PATH"]}
        return launch("--config", config, "--run-dir", self.folder / name, "--gpus", 2, *words, env=env)

    def explain(self, root: Path) -> dict[str, dict[str, Any]]:
        return {cause["kind"]: cause for cause in self.told(root) if not cause["past"]}

    def told(self, root: Path) -> list[dict[str, Any]]:
        done = launch("explain", root, "--json", env=self.slurm.env)
        assert done.returncode == 0, done.stderr
        causes: list[dict[str, Any]] = json.loads(done.stdout)["causes"]
        return causes

    def scontrol(self, *words: str) -> None:
        self.slurm.run("scontrol", *words)

    def waits_with(self, job: str, reason: str) -> None:
        def met() -> bool:
            return any(row[0].startswith(reason) for row in self.slurm.squeue("%r", f"--jobs={job}"))

        self.slurm.wait_for(met, 120, reason)


@pytest.fixture
def bed(slurm: SlurmCluster, tmp_path: Path) -> Bed:
    return Bed(slurm, tmp_path)


def test_what_a_job_waits_for(bed: Bed) -> None:
    for partition in ("PartitionName=dead State=DOWN", "PartitionName=short MaxTime=1"):
        bed.scontrol("create", *partition.split(), "Nodes=n1,n2")
    try:
        dead = bed.submit("dead", "--partition", "dead")
        short = bed.submit("short", "--partition", "short", "--time", "10")
        full = bed.submit("full", "slurm.exclusive=true", "--nodelist", "n1", editor="WaitsFor", params={"mark": "/no"})
        killer = bed.folder / "bin"
        killer.mkdir()
        (killer / "scontrol").write_text(
            '#!/bin/sh\n[ "$1" = release ] && kill -9 $PPID && exit\nPATH=${PATH#*:} exec scontrol "$@"\n'
        )
        (killer / "scontrol").chmod(0o755)
        config = make_config(bed.folder / "c.yaml", bed.data)
        assert bed.launch("noted", config, path=f"{killer}{os.pathsep}").returncode == -9
        jobs = {root: attempts(root)[0]["job_id"] for root in (dead, short, full)}
        bed.waits_with(jobs[dead], "PartitionDown")
        bed.waits_with(jobs[short], "PartitionTimeLimit")
        bed.waits_with(jobs[full], "Resources")
        assert set(bed.explain(dead)) == {"pending_partition_down"}
        assert set(bed.explain(short)) == {"pending_partition_time_limit"}
        assert set(bed.explain(full)) == {"pending_resources"}
        assert bed.explain(bed.folder / "noted")["held"]["samples"]
        status = launch("status", full, env=bed.slurm.env).stdout
        assert "pending (Resources)" in status
        assert "working on n1" in status

        bed.slurm.wait_kept(run_dir(short).submit_log("edit", 1))
        bed.scontrol("hold", jobs[short])
        cause = bed.explain(short)["held"]
        assert cause["next"] == f"scontrol release {jobs[short]}"
        assert len(cause["samples"]) == 6
        failed = bed.slurm.run("sbatch", "--parsable", "--output=/dev/null", "--wrap", "exit 1").strip()
        bed.slurm.wait_for(lambda: not bed.slurm.squeue("%i", f"--jobs={failed}"), 120, "the failing job's end")
        follower = attempts(dead)[0]["finish_job_id"]
        bed.scontrol("update", f"jobid={follower}", f"dependency=afterok:{failed}")
        bed.waits_with(follower, "DependencyNeverSatisfied")
        cause = bed.explain(dead)["dependency_never_satisfied"]
        assert "cancel" in cause["next"]
        assert "resubmit" in cause["next"]
    finally:
        bed.slurm.clear()
        for partition in ("dead", "short"):
            bed.scontrol("delete", f"PartitionName={partition}")


def test_a_launcher_that_died_between_two_sbatch_calls(bed: Bed) -> None:
    killer = bed.folder / "bin"
    killer.mkdir()
    attempt = bed.folder / "half" / "attempts" / "edit-001.json"
    lines = [
        "#!/bin/sh",
        f'[ "$1" = --help ] || mkdir "{bed.folder}/once" 2>/dev/null && PATH=${{PATH#*:}} exec sbatch "$@"',
        f"kill -9 $(sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p' {attempt})",
    ]
    (killer / "sbatch").write_text("\n".join(lines))
    (killer / "sbatch").chmod(0o755)
    config = make_config(bed.folder / "c.yaml", bed.data)
    assert bed.launch("half", config, path=f"{killer}{os.pathsep}").returncode == -9
    cause = bed.explain(bed.folder / "half")["launcher_died"]
    assert len(cause["samples"]) == 6
    assert "are held" in cause["what"]
    assert cause["next"] == f"python launch.py resubmit {bed.folder / 'half'}"


def test_what_slurm_does_to_a_task(bed: Bed) -> None:
    timed = bed.holds("timed", "--nodelist", "n1", "--time", "60", "slurm.signal_delay_s=60")
    moved = bed.holds("moved", "--nodelist", "n2")
    broken = bed.holds("broken", "--nodelist", "n1")
    setup = bed.submit("setup", "slurm.setup=exit 3", "score_slurm.setup=exit 4")
    stepless = bed.submit("stepless", "slurm.setup=export SRUN_CPUS_PER_TASK=999", "--nodelist", "n1")

    def requeued(root: Path) -> Callable[[], bool]:
        job = attempts(root)[0]["job_id"]
        return lambda: ["PENDING", "BeginTime"] in bed.slurm.squeue("%T %r", f"--jobs={job}")

    def stopped(root: Path) -> Callable[[], bool]:
        ended = lambda: [p for p in read_journals(run_dir(root), "edit") if (p.attempt, p.end) == (1, STOPPED)]  # noqa: E731
        return lambda: {process.task for process in ended()} == {0, 1}

    def begun(root: Path) -> Callable[[], bool]:
        return lambda: len(read_journals(run_dir(root), "edit")) == 2

    bed.slurm.wait_for(begun(timed), 60, "the tasks at work")
    bed.slurm.end_soon(attempts(timed)[0]["job_id"])
    bed.slurm.wait_for(begun(moved), 60, "the tasks at work")
    urgent = ("--partition=urgent", "--nodelist=n2", "--exclusive", "--output=/dev/null")
    bed.slurm.run("sbatch", *urgent, "--wrap", "sleep 30")
    bed.slurm.wait_for(requeued(moved), 60, "the preempted tasks waiting")
    cause = bed.explain(moved)["preempted"]
    assert cause["nodes"] == ["n2"]
    assert "status" in cause["next"]
    assert "requeued (BeginTime) on n2" in launch("status", moved, env=bed.slurm.env).stdout
    bed.slurm.wait_for(stopped(timed), 240, "the end of the timed tasks")
    told = [
        cause for cause in bed.told(timed) if cause["kind"] == "time_limit"
    ]  # the next attempt may be at it already
    assert {task for cause in told for task in cause["tasks"]} >= {"edit-001/0", "edit-001/1"}, bed.told(timed)

    over = {job for root in (setup, stepless) for job in (attempts(root)[0]["job_id"],)}
    bed.slurm.wait_for(lambda: not bed.slurm.squeue("%i", f"--jobs={','.join(over)}"), 60, "the stillborn tasks' end")
    cause = bed.explain(setup)["died_before_python"]
    assert len(cause["samples"]) == 6
    assert cause["log"].endswith("_log.err")
    cause = bed.explain(stepless)["died_before_python"]
    assert "srun: error: Unable to create step" in cause["what"]

    bed.slurm.wait_for(begun(broken), 60, "the tasks at work")
    bed.scontrol("update", "nodename=n1", "state=down", "reason=no answer")
    bed.slurm.wait_for(requeued(broken), 60, "the tasks of the broken node waiting")
    cause = bed.explain(broken)["node_failed"]
    assert cause["nodes"] == ["n1"]
    assert cause["samples"]
