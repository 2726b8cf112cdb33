"""What Slurm's commands tell, and with the claims and this host's processes: who is at work, who can be stopped."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from slurm_bench.cluster.alive import alive, at_work, attempts_and_jobs, leftovers
from slurm_bench.cluster.cancel import cancel_run
from slurm_bench.cluster.here import GENERATIONS, InJob
from slurm_bench.cluster.job import finish, task
from slurm_bench.cluster.launch import choose_executor
from slurm_bench.cluster.queue import (
    Job,
    broken_nodes,
    cancel_jobs,
    ended_jobs,
    expected_start,
    max_array_size,
    release,
)
from slurm_bench.cluster.requeue import TaskIncomplete, leave
from slurm_bench.cluster.slurm import Slurm
from slurm_bench.config import Config
from slurm_bench.errors import UserError
from slurm_bench.machine import process_start
from slurm_bench.run.attempts import Attempt, claim, claim_draft, close, draft, note_jobs, read_attempts
from slurm_bench.run.journal import Journal
from slurm_bench.run.layout import RunDir
from slurm_bench.run.opened import Run
from slurm_bench.stages.engine import Tally
from slurm_bench.stages.stop import StopSignals

SQUEUE = """#!/bin/sh
for word; do case $word in --name=*) names=",${word#--name=}," ;; esac; done
while IFS="|" read -r id name state reason; do
    case "$names" in *",$name,"*) echo "$id|$name|$state|$reason" ;; esac
done < "$0.txt"
"""
HERE = socket.gethostname()


class Queue:
    """Slurm's commands as far as they are asked here, over a file of jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.command("sbatch", "exit 1")
        gone = f'for id; do sed -i "/^${{id}}[_|]/d" {folder}/squeue.txt; done'
        self.command("scancel", f"echo $* >> {folder}/cancelled\n{gone}")
        self.command("squeue", SQUEUE)
        self.holds()

    def command(self, name: str, text: str) -> None:
        file = self.folder / name
        file.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def holds(self, *jobs: str) -> None:
        (self.folder / "squeue.txt").write_text("".join(f"{job}\n" for job in jobs))

    def cancelled(self) -> list[str]:
        file = self.folder / "cancelled"
        return file.read_text().split() if file.exists() else []


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return Queue(tmp_path / "bin")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    (tmp_path / "run").mkdir()
    return RunDir(tmp_path / "run")


@pytest.fixture
def launcher() -> Iterator[subprocess.Popen[bytes]]:
    """A process that may pass for somebody's launcher."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def claimed(run: RunDir, executor: str, number: int = 1) -> Attempt:
    attempt = claim(run, "edit", ["a"], 1, executor, 0, number)
    assert attempt is not None
    return attempt


def busy(run: RunDir, attempts: Sequence[Attempt]) -> list[str]:
    return alive(attempts, attempts_and_jobs(run)[1])


def by(attempt: Attempt, process: subprocess.Popen[bytes]) -> Attempt:
    start = process_start(process.pid)
    assert start is not None
    return replace(attempt, pid=process.pid, pid_start=start)


@pytest.mark.parametrize("executor", ["local", "slurm"])
def test_a_launcher_of_this_host_is_at_work_as_long_as_it_lives(
    run: RunDir, queue: Queue, launcher: subprocess.Popen[bytes], executor: str
) -> None:
    attempt = by(claimed(run, executor), launcher)
    assert busy(run, [attempt]) == [f"launcher of edit-001 (pid {launcher.pid} on {HERE})"]
    assert busy(run, [replace(attempt, pid_start=attempt.pid_start - 5)]) == [], "another process has its pid now"
    launcher.kill()
    os.waitid(os.P_PID, launcher.pid, os.WEXITED | os.WNOWAIT)
    assert busy(run, [attempt]) == [], "a dead child that nobody has taken note of is dead too"


def test_whoever_ended_its_attempt_is_not_at_work(run: RunDir, queue: Queue) -> None:
    attempt = claimed(run, "local")
    assert busy(run, read_attempts(run))
    close(run, attempt)
    assert busy(run, read_attempts(run)) == []


def test_a_launcher_elsewhere_gets_time_to_submit_and_then_blocks_nobody(run: RunDir, queue: Queue) -> None:
    """It can't be looked into; had it submitted, the queue would know."""
    elsewhere = replace(claimed(run, "slurm"), host="another")
    assert "on another" in busy(run, [elsewhere])[0]
    assert busy(run, [replace(elsewhere, time=time.time() - 600)]) == []
    assert busy(run, [replace(elsewhere, job_id="7", finish_job_id="8")]) == [], "submitted, and over"


def test_a_local_launcher_elsewhere_may_be_at_work_until_it_is_forgotten(run: RunDir, queue: Queue) -> None:
    elsewhere = replace(claimed(run, "local"), host="another", time=time.time() - 600)
    elsewhere = note_jobs(run, elsewhere, (), None, None)
    assert "on another" in busy(run, [elsewhere])[0]
    (line,) = cancel_run(run)
    assert "another" in line
    assert at_work(run) == []


def test_the_queue_tells_what_its_launcher_could_not_note(run: RunDir, queue: Queue) -> None:
    fresh = claimed(run, "slurm")
    old = replace(fresh, host="another", time=time.time() - 600)
    array, finish, _ = fresh.job_names
    queue.holds(f"41_[0-5]|{array}|PENDING", f"42|{finish}|PENDING", "43|other.edit-001|RUNNING")
    assert busy(run, [old]) == busy(run, [fresh]) == ["job 41_[0-5] (PENDING)", "job 42 (PENDING)"]


def test_the_job_after_an_attempt_that_is_over_is_still_at_work(run: RunDir, queue: Queue) -> None:
    """It scores by itself, or is about to submit the next attempt."""
    over = note_jobs(run, claimed(run, "slurm"), "41", "42", "43")
    close(run, over)
    claim(run, "score", ["a"], 1, "slurm", 0, 1)
    queue.holds(f"42|{over.job_names.finish}|RUNNING")
    elsewhere = [replace(a, host="another", time=time.time() - 600) for a in read_attempts(run)]
    assert busy(run, elsewhere) == ["job 42 (RUNNING)"]
    assert cancel_run(run) == ["cancelled job 42 (RUNNING)"]
    assert queue.cancelled() == ["42"]


def test_all_that_a_dead_launcher_left_is_taken_back_and_what_works_is_not(run: RunDir, queue: Queue) -> None:
    """Its following job isn't held: it waits for an array that is."""
    claimed(run, "slurm")
    old = replace(read_attempts(run)[0], host="another", time=time.time() - 600)
    array, finish, _ = old.job_names
    left = [f"41_[0-5]|{array}|PENDING|JobHeldUser", f"42|{finish}|PENDING|Dependency"]
    queue.holds(*left)
    jobs = attempts_and_jobs(run)[1]
    assert leftovers([old], jobs) == jobs
    assert busy(run, [old]) == []
    queue.holds(*left, f"40_1|{array}|RUNNING|None")
    assert leftovers([old], attempts_and_jobs(run)[1]) == []


def test_a_queue_that_does_not_answer_is_no_empty_queue(run: RunDir, queue: Queue) -> None:
    claimed(run, "slurm")
    queue.command("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(UserError, match="Unable to contact"):
        busy(run, read_attempts(run))


def handed_over(run: RunDir, queue: Queue) -> None:
    """A queue that answers late: meanwhile the job after attempt 1 submits attempt 2 and ends."""
    over = note_jobs(run, claimed(run, "slurm"), "41", "42", "43")
    queue.holds(f"42|{over.job_names.finish}|RUNNING")
    later = note_jobs(run, claimed(run, "slurm", 2), "51", "52", "53")
    file, aside = run.attempt("edit", 2), run.root / "aside.json"
    file.rename(aside)
    jobs = f"51_0|{later.job_names.array}|RUNNING\n52|{later.job_names.finish}|PENDING\n"
    (queue.folder / "late.txt").write_text(jobs)
    late = f"[ -e {aside} ] && mv {aside} {file} && mv {queue.folder}/late.txt {queue.folder}/squeue.txt && exit 0"
    queue.command("squeue", SQUEUE.replace("#!/bin/sh\n", f"#!/bin/sh\n{late}\n"))


def test_what_is_submitted_while_the_queue_answers_is_at_work(run: RunDir, queue: Queue) -> None:
    handed_over(run, queue)
    assert at_work(run) == ["job 51_0 (RUNNING)", "job 52 (PENDING)"]


def test_what_is_submitted_while_the_queue_answers_is_cancelled(run: RunDir, queue: Queue) -> None:
    handed_over(run, queue)
    cancel_run(run)
    assert queue.cancelled() == ["52", "51"]


def test_without_slurm_a_submitted_job_counts_as_alive(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_jobs(run, claimed(run, "slurm"), "7", "8", "9")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "job 7 of edit-001" in busy(run, read_attempts(run))[0]


def test_slurm_is_taken_where_it_is(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [choose_executor(asked).name for asked in (None, "local", "slurm")] == ["slurm", "local", "slurm"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert choose_executor(None).name == "local"
    with pytest.raises(UserError, match="no sbatch on the PATH"):
        choose_executor("slurm")


@pytest.mark.parametrize(
    ("said", "most"),
    [
        ("MaxArraySize            = 4", 4),
        ("MaxArraySize = 4\nSchedulerParameters = sched_interval=2,max_array_tasks=3,bf_interval=2", 3),
        ("MaxArraySize = 0", 1),
        ("", 1001),
    ],
)
def test_how_long_an_array_may_be_is_asked_of_the_cluster(queue: Queue, said: str, most: int) -> None:
    queue.command("scontrol", f"printf '{said}'")
    assert max_array_size() == most


def test_the_tasks_of_an_array_are_told_in_spans_and_steps(queue: Queue) -> None:
    waiting = Job("41_[0-12:4,15,20-22%2]", "a", "PENDING")
    assert [task for task in range(30) if waiting.has_task(task)] == [0, 4, 8, 12, 15, 20, 21, 22]
    assert [task for task in range(9) if Job("41_3", "a", "RUNNING").has_task(task)] == [3]
    assert Job("41", "a", "RUNNING").has_task(7), "a job that is no array has every task"
    queue.command("sacct", "printf '41_[0-4:2,7%%2]|CANCELLED|0:0\\n42|COMPLETED|0:0\\n'")
    ended = ended_jobs(["41", "42"], 0.0)
    assert [job_id for job_id, _ in ended] == ["41_0", "41_2", "41_4", "41_7", "42"]


@pytest.mark.parametrize("name", ["squeue", "scancel", "scontrol", "sbatch", "sbatch --test-only"])
def test_a_controller_that_does_not_answer_is_waited_for_so_long(
    run: RunDir, queue: Queue, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("slurm_bench.cluster.queue.PATIENCE", 1)
    monkeypatch.setattr("slurm_bench.cluster.slurm.SBATCH_TIMEOUT", 1)
    queue.command("scontrol", "true")
    queue.command(name.split()[0], "sleep 30")
    acts = {
        "squeue": lambda: at_work(run),
        "scancel": lambda: cancel_jobs(["41"]),
        "scontrol": lambda: release(["41"]),
        "sbatch": lambda: Slurm(task, finish).execute(Run(run, Config(), []), claimed(run, "slurm", 2)),
        "sbatch --test-only": lambda: expected_start("#!/bin/sh"),
    }
    claimed(run, "slurm")
    with pytest.raises(UserError, match="did not answer within 1 s"):
        acts[name]()


@pytest.mark.parametrize(
    ("reason", "ok", "again"), [("SIGUSR2", 3, True), ("SIGUSR2", 0, False), ("SIGTERM", 3, False)]
)
def test_a_task_asks_to_be_run_again_only_in_time_and_when_it_gets_further(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, reason: str, ok: int, again: bool
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    queue.command("scontrol", f"echo $* >> {queue.folder}/asked; exit 1")
    stop = StopSignals()
    stop.reason = reason
    with pytest.raises(TaskIncomplete, match=reason):
        leave(stop, Tally(ok=ok, stopped=reason))
    asked = queue.folder / "asked"
    assert (asked.read_text() if asked.exists() else "") == ("requeue 41\n" if again else "")


def test_a_job_that_was_told_to_stop_submits_nothing_more(run: RunDir, queue: Queue) -> None:
    stop = StopSignals()
    stop.reason = "SIGTERM"
    queue.command("sbatch", f"touch {queue.folder}/submitted")
    with pytest.raises(TaskIncomplete, match="SIGTERM"):
        InJob(task, finish, stop, 90, 0).execute(Run(run, Config(), []), claimed(run, "slurm"))
    assert not (queue.folder / "submitted").exists()


def test_what_was_submitted_while_the_run_was_cancelled_is_taken_back(run: RunDir, queue: Queue) -> None:
    stop = StopSignals()
    attempt = claimed(run, "slurm")
    for name in ("srun", "sinfo", "scontrol"):
        queue.command(name, "true")
    queue.command("sbatch", f'kill -TERM {os.getpid()}; echo "Submitted batch job 41"')
    queue.holds(f"41|{attempt.job_names.finish}|PENDING|JobHeldUser")
    with stop, pytest.raises(TaskIncomplete, match="SIGTERM"):
        InJob(task, finish, stop, 90, 0).execute(Run(run, Config(), []), attempt)
    assert "41" in queue.cancelled()


def standing_by(run: RunDir, queue: Queue, monkeypatch: pytest.MonkeyPatch, refuses: str) -> tuple[Attempt, InJob]:
    """A standby, job 43, that came before its time: its array is at work, and the job that waited for it is gone.
    sbatch refuses where `refuses` says so; else its calls give 61, 62, and so on."""
    monkeypatch.setenv("SLURM_JOB_ID", "43")
    monkeypatch.setattr("slurm_bench.cluster.here.PATIENCE", (0,))
    for name in ("srun", "sinfo", "scontrol"):
        queue.command(name, "true")
    calls = queue.folder / "calls"
    refusal = f"{refuses} && {{ echo 'sbatch: error: try later' >&2; exit 1; }}"
    queue.command("sbatch", f"echo >> {calls}\n{refusal}\necho Submitted batch job 6$(wc -l < {calls})")
    attempt = note_jobs(run, claimed(run, "slurm"), ["41"], "42", "43")
    queue.holds(f"41_0|{attempt.job_names.array}|RUNNING|None", f"43|{attempt.job_names.standby}|RUNNING|None")
    return attempt, InJob(task, finish, StopSignals(), 90, 1)


@pytest.mark.parametrize(("refused", "ids"), [(1, ("63", "64")), (2, ("63", "64")), (3, ("62", "64"))])
def test_one_refusal_of_sbatch_costs_no_job_of_the_chain(
    run: RunDir, queue: Queue, monkeypatch: pytest.MonkeyPatch, refused: int, ids: tuple[str, str]
) -> None:
    """The standby's own standby comes first, then the job that waits for the array, then that one's standby."""
    attempt, executor = standing_by(run, queue, monkeypatch, f"[ $(wc -l < {queue.folder}/calls) = {refused} ]")
    executor.stand_by(Run(run, Config(), []), attempt)
    assert executor.waits_again(Run(run, Config(), []), attempt)
    (noted,) = read_attempts(run)
    assert noted.job_ids == ("41", *ids)
    assert len((queue.folder / "calls").read_text()) == 4


def test_where_no_job_can_be_submitted_that_waits_the_standby_waits_itself(
    run: RunDir, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slurm_bench.cluster.here.QUEUE_POLL", 0)
    attempt, executor = standing_by(run, queue, monkeypatch, "true")
    looks, jobs = queue.folder / "looks", queue.folder / "squeue.txt"
    over = f"echo >> {looks}; [ $(wc -l < {looks}) -gt 3 ] && : > {jobs}"
    queue.command("squeue", SQUEUE.replace("#!/bin/sh\n", f"#!/bin/sh\n{over}\n"))
    assert not executor.waits_again(Run(run, Config(), []), attempt), "it goes on, once the array has ended"
    assert jobs.read_text() == ""


def test_who_stands_behind_a_job_that_took_over_is_noted_beside_those_before(
    run: RunDir, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("srun", "sinfo", "scontrol"):
        queue.command(name, "true")
    attempt = note_jobs(run, claimed(run, "slurm"), ["41"], "42", "43")
    for generation in (1, 2):
        monkeypatch.setenv("SLURM_JOB_ID", str(42 + generation))
        queue.command("sbatch", f'echo "Submitted batch job {43 + generation}"')
        queue.holds(f"{42 + generation}|{attempt.job_names.standby}|RUNNING")
        attempt = InJob(task, finish, StopSignals(), 90, generation).stand_by(Run(run, Config(), []), attempt)
    assert read_attempts(run) == [attempt]
    assert attempt.job_ids == ("41", "42", "43", "44", "45")


@pytest.mark.parametrize("anew", [False, True])
def test_what_a_node_did_to_jobs_that_were_started_otherwise_leaves_it_out_no_more(
    run: RunDir, queue: Queue, monkeypatch: pytest.MonkeyPatch, anew: bool
) -> None:
    queue.command("sinfo", "echo 'n1|(null)'; echo 'n2|(null)'")
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    close(run, claimed(run, "slurm"))
    for n in range(2):
        journal = Journal(run.journal("edit", 1, n, 0))
        journal.start()
        journal.end("failed", "no such GPU")
    second = draft(run, "edit", ["a"], 1, "slurm", 0, 2)
    assert claim_draft(run, replace(second, anew=anew))
    assert Slurm(task, finish)._exclude(Run(run, Config(), []), {}) == ([] if anew else ["n1"])


def test_jobs_that_die_one_after_the_other_come_to_an_end(
    run: RunDir, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt, _ = standing_by(run, queue, monkeypatch, "false")
    for generation in (GENERATIONS, GENERATIONS - 1):
        attempt = InJob(task, finish, StopSignals(), 90, generation).stand_by(Run(run, Config(), []), attempt)
        assert (queue.folder / "calls").exists() == (generation < GENERATIONS)
    assert attempt.job_ids == ("41", "42", "43", "61")


@pytest.mark.parametrize("lost", [False, True])
def test_jobs_that_a_crashed_controller_forgot_are_submitted_again(
    run: RunDir, queue: Queue, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    monkeypatch.setattr("slurm_bench.cluster.kept.CONTROLLER_SAVES", 0)
    count = queue.folder / "count"
    queue.command("srun", "true")
    queue.command("sinfo", "true")
    queue.command("sbatch", f'echo x >> {count}\necho "Submitted batch job $(wc -l < {count})"')
    queue.command("scontrol", f"echo $* >> {queue.folder}/asked")
    attempt = claimed(run, "slurm")
    if not lost:
        queue.holds(f"1_[0]|{attempt.job_names.array}|PENDING|JobHeldUser", f"2|{attempt.job_names.finish}|PENDING")
    assert not InJob(task, finish, StopSignals(), 90, 0).execute(Run(run, Config(), []), attempt)
    assert len(count.read_text().split()) == (6 if lost else 3)
    (noted,) = read_attempts(run)
    assert noted.job_ids == (("4", "5", "6") if lost else ("1", "2", "3"))
    asked = (queue.folder / "asked").read_text().splitlines()
    released = [line for line in asked if line.startswith("release")]
    assert released == (["release 1", "release 4"] if lost else ["release 1", "release 1"])


def test_what_was_submitted_is_not_done_by_the_submitter_too(
    run: RunDir, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the queue can't be asked afterwards; the standby will ask it."""
    monkeypatch.setattr("slurm_bench.cluster.kept.CONTROLLER_SAVES", 0)
    monkeypatch.setattr("slurm_bench.cluster.here.PATIENCE", ())
    for name in ("srun", "sinfo", "scontrol"):
        queue.command(name, "true")
    queue.command("sbatch", 'echo "Submitted batch job 7"')
    queue.command("squeue", "exit 1")
    with pytest.raises(TaskIncomplete, match="nobody knows"):
        InJob(task, finish, StopSignals(), 90, 0).execute(Run(run, Config(), []), claimed(run, "slurm"))
    assert not run.journals.exists()


def test_cancel_stops_first_what_would_heal(run: RunDir, queue: Queue) -> None:
    array, finish, standby = note_jobs(run, claimed(run, "slurm"), "41", "42", "44").job_names
    jobs = [f"41_0|{array}|RUNNING", f"41_1|{array}|RUNNING", f"42|{finish}|PENDING", f"44|{standby}|PENDING"]
    queue.holds(*jobs, "43|other|RUNNING")
    cancelled = [line.split()[2].split("_")[0] for line in cancel_run(run)]
    assert list(dict.fromkeys(cancelled)) == ["44", "42", "41"]
    assert list(dict.fromkeys(queue.cancelled())) == ["44", "42", "41"]


def test_cancel_goes_on_until_what_would_heal_has_ended(
    run: RunDir, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that was told to stop while it submits finishes that first."""
    monkeypatch.setattr("slurm_bench.cluster.cancel.PAUSE", 0)
    names, later = claimed(run, "slurm").job_names, claimed(run, "slurm", 2).job_names
    looks, jobs = queue.folder / "looks", queue.folder / "squeue.txt"
    third = f'echo >> {looks}; [ $(wc -l < {looks}) = 3 ] && echo "51_0|{later.array}|RUNNING" > {jobs}'
    queue.command("squeue", SQUEUE.replace("#!/bin/sh\n", f"#!/bin/sh\n{third}\n"))
    queue.command("scancel", f"echo $* >> {queue.folder}/cancelled\nsed -i 's/RUNNING/COMPLETING/; /^51/d' {jobs}")
    queue.holds(f"42|{names.finish}|RUNNING")
    assert cancel_run(run) == ["cancelled job 42 (RUNNING)", "cancelled job 51 (RUNNING)"]
    assert queue.cancelled() == ["42", "51"]


def test_a_job_that_does_not_end_holds_cancel_up_only_so_long(
    run: RunDir, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slurm_bench.cluster.cancel.ENDING", 0)
    queue.command("scancel", "true")
    queue.holds(f"42|{claimed(run, 'slurm').job_names.finish}|COMPLETING")
    first, second = cancel_run(run)
    assert first == "cancelled job 42 (COMPLETING)"
    assert "has not ended yet" in second


def test_jobs_that_are_ending_are_waited_for_and_none_that_work(
    run: RunDir, queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a `cancel`, behind which a person types `resubmit`."""
    monkeypatch.setattr("slurm_bench.cluster.alive.PAUSE", 0)
    name, jobs = claimed(run, "slurm").job_names.array, queue.folder / "squeue.txt"
    note_jobs(run, read_attempts(run)[0], "41", "42", "44")
    queue.holds(f"41_0|{name}|COMPLETING", f"41_1|{name}|RUNNING")
    assert len(at_work(run, 60)) == 2
    assert "ending" not in caplog.text
    looks = f"echo >> {jobs}.looks; [ $(wc -l < {jobs}.looks) = 3 ] && : > {jobs}"
    queue.command("squeue", SQUEUE.replace("#!/bin/sh\n", f"#!/bin/sh\n{looks}\n"))
    queue.holds(f"41_0|{name}|COMPLETING")
    assert at_work(run, 60) == []
    assert caplog.text.count("its last jobs are ending (41)") == 1


def test_a_copy_of_a_run_that_is_at_work_has_none_of_its_jobs(run: RunDir, queue: Queue, tmp_path: Path) -> None:
    """Else it is told to be at work, and its `cancel` ends the other's."""
    attempt = note_jobs(run, claimed(run, "slurm"), ["41"], "42", "43")
    run.config.touch()
    copy, moved = RunDir(Path(shutil.copytree(run.root, tmp_path / "copy"))), RunDir(tmp_path / "moved")
    queue.holds(*(f"41_{n}|{attempt.job_names.array}|RUNNING|None|{run.submitit}/a | b.sh" for n in range(2)))
    assert at_work(run) == ["job 41_0 (RUNNING)", "job 41_1 (RUNNING)"]
    assert at_work(copy) == cancel_run(copy) == queue.cancelled() == []
    run.root.rename(moved.root)
    assert at_work(moved) == ["job 41_0 (RUNNING)", "job 41_1 (RUNNING)"], "nobody else has them"
    assert cancel_run(moved) == ["cancelled job 41 (RUNNING)"]


def test_a_copy_of_a_run_has_not_its_local_launcher(
    run: RunDir, launcher: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    run.config.touch()
    note_jobs(run, by(claimed(run, "local"), launcher), (), None, None)
    copy, moved = RunDir(Path(shutil.copytree(run.root, tmp_path / "copy"))), RunDir(tmp_path / "moved")
    assert at_work(copy) == cancel_run(copy) == []
    assert launcher.poll() is None
    run.root.rename(moved.root)
    assert len(at_work(moved)) == 1


def test_a_job_that_has_an_old_id_of_the_runs_is_somebody_elses(run: RunDir, queue: Queue) -> None:
    attempt = note_jobs(run, claimed(run, "slurm"), ["41"], "42", "43")
    queue.command("squeue", "echo '42|train-my-thesis|RUNNING|None'")
    assert [job.belongs_to(attempt) for job in attempts_and_jobs(run)[1]] == [False]
    queue.command("squeue", "case $* in *--jobs*) echo '42|train-my-thesis|RUNNING|None' ;; esac")
    close(run, attempt)
    assert at_work(run) == []
    assert cancel_run(run) == []
    assert queue.cancelled() == []
    note_jobs(run, replace(attempt, key=""), ["41"], "42", "43")
    assert at_work(run) == ["job 42 (RUNNING)"], "of runs of the first version nothing else is known"


def test_what_a_shell_would_tell_squeue_and_scancel_hides_no_job(
    run: RunDir, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`SQUEUE_PARTITION`, in somebody's .bashrc, had what is at work submitted once more."""
    name = note_jobs(run, claimed(run, "slurm"), ["41"], "42", "43").job_names.array
    for variable, program in (("SQUEUE_PARTITION", "squeue"), ("SCANCEL_STATE", "scancel")):
        monkeypatch.setenv(variable, "another")
        queue.command(program, f'[ -z "${variable}" ] && echo "41|{name}|RUNNING|None" || exit 1')
    assert at_work(run) == ["job 41 (RUNNING)"]
    cancel_jobs(["41"])


def test_squeue_is_asked_for_all_indices_of_an_array(
    run: RunDir, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is told otherwise it cuts them at 64 characters."""
    monkeypatch.setenv("SLURM_BITSTR_LEN", "64")
    name = note_jobs(run, claimed(run, "slurm"), ["41"], "42", "43").job_names.array
    queue.command("squeue", f'[ "$SLURM_BITSTR_LEN" = 0 ] && echo "41|{name}|RUNNING|None"')
    assert at_work(run) == ["job 41 (RUNNING)"]


def test_what_waits_for_another_is_cancelled_before_it(queue: Queue) -> None:
    cancel_jobs(["9", "41_3", "41_4", "100"])
    assert queue.cancelled() == ["100", "41", "9"]


def test_cancel_stops_the_local_launcher(run: RunDir, queue: Queue, launcher: subprocess.Popen[bytes]) -> None:
    note_jobs(run, by(claimed(run, "local"), launcher), (), None, None)
    launcher.send_signal(signal.SIGSTOP)  # by Ctrl-Z
    assert cancel_run(run) == [f"stopped the launcher of edit-001 (pid {launcher.pid} on {HERE})"]
    assert launcher.wait(120) == -signal.SIGTERM
    assert cancel_run(run) == []


def test_cancel_says_that_a_launcher_is_somebody_elses(
    run: RunDir, queue: Queue, launcher: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    note_jobs(run, by(claimed(run, "local"), launcher), (), None, None)
    with monkeypatch.context() as patched:
        patched.setattr("os.kill", Mock(side_effect=PermissionError))
        with pytest.raises(UserError, match="somebody else's process"):
            cancel_run(run)
        patched.setattr("os.kill", Mock(side_effect=ProcessLookupError))
        assert cancel_run(run) == [], "it has ended since"


def test_cancel_leaves_alone_who_has_the_pid_of_a_dead_launcher(
    run: RunDir, queue: Queue, launcher: subprocess.Popen[bytes]
) -> None:
    attempt = by(claimed(run, "local"), launcher)
    note_jobs(run, replace(attempt, pid_start=attempt.pid_start - 5), (), None, None)
    assert cancel_run(run) == []
    assert launcher.poll() is None


def test_why_a_node_is_drained_may_be_said_in_any_encoding(queue: Queue) -> None:
    queue.command("sinfo", r"printf 'n1|drained|L\374fter\n'")
    assert broken_nodes() == {"n1": "drained: L\N{REPLACEMENT CHARACTER}fter"}
