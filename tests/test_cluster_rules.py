"""What sbatch is asked for, what the chain does next, which nodes are left out: pure, without a cluster."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slurm_bench.cluster.chain import Step, first_step, next_step
from slurm_bench.cluster.pack import deal
from slurm_bench.cluster.queue import outside_a_job
from slurm_bench.cluster.sbatch import NODE_LINE, check_options, sbatch_parameters
from slurm_bench.cluster.slurm import after_arrays
from slurm_bench.config import Config
from slurm_bench.errors import UserError
from slurm_bench.run.attempts import Attempt, claim, note_jobs, spread
from slurm_bench.run.health import bad_nodes
from slurm_bench.run.journal import DONE, FAILED, LOST, STOPPED, TaskProcess
from slurm_bench.run.layout import RunDir
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import Outcome, State
from slurm_bench.watch.job_logs import unborn_processes


def ask(options: dict[str, Any], **more: Any) -> dict[str, Any]:
    return sbatch_parameters(options, job_name="r.edit-001", python_path="/opt/my bench", **more)


def test_an_array_asks_for_one_gpu_a_task_and_all_tasks_at_once() -> None:
    assert ask({"partition": "h100", "time": "04:00:00"}, at_once=600) == {
        "job_name": "r.edit-001",
        "time": None,
        "wckey": None,
        "signal_delay_s": 90,
        "array_parallelism": 600,
        "setup": [NODE_LINE, "export PYTHONPATH='/opt/my bench'${PYTHONPATH:+:$PYTHONPATH}"],
        "additional_parameters": {"partition": "h100", "time": "04:00:00", "gres": "gpu:1"},
    }


def test_the_finishing_job_waits_for_the_whole_array() -> None:
    assert after_arrays(Config(), ["42", "43"]) == {"dependency": "afterany:42:43"}
    assert after_arrays(Config(), []) == {"hold": True}, "until it is noted"


def test_strict_waits_for_success_and_does_not_hang() -> None:
    assert after_arrays(Config(strict=True), ["42"]) == {"dependency": "afterok:42", "kill_on_invalid_dep": "yes"}


@pytest.mark.parametrize("option", ["gres", "gpus", "gpus_per_node", "gpus_per_task", "gpus-per-node"])
def test_the_users_own_way_to_ask_for_a_gpu_is_kept(option: str) -> None:
    flags = ask({option: "h100:1"})["additional_parameters"]
    assert flags == {option.replace("_", "-"): "h100:1"}


def test_every_other_option_goes_through() -> None:
    options = {
        "account": "0012",
        "exclusive": True,
        "requeue": False,
        "mem": None,
        "cpus_per_task": 8,
        "setup": ["module load x"],
    }
    parameters = ask(options)
    flags = {"account": "0012", "exclusive": True, "cpus-per-task": 8, "gres": "gpu:1"}
    assert parameters["additional_parameters"] == flags
    assert parameters["setup"][-1] == "module load x"
    one_line = sbatch_parameters({"setup": "module load x"}, job_name="r.edit-001", python_path="/b")
    assert one_line["setup"][2:] == ["module load x"]
    assert parameters["srun_args"] == ["--cpus-per-task=8"]


def test_how_python_is_started_and_what_srun_is_told() -> None:
    """By these a job runs in a container."""
    typed = {"python": "apptainer exec --nv my.sif python", "srun_args": "--container-image='a b' --label"}
    parameters = ask({**typed, "cpus_per_task": 2})
    assert parameters["python"] == typed["python"]
    assert parameters["srun_args"] == ["--cpus-per-task=2", "--container-image=a b", "--label"]
    assert ask({"srun_args": ["--container-image=a b"]})["srun_args"] == ["--container-image=a b"]
    assert {"python", "srun_args"}.isdisjoint(parameters["additional_parameters"])


def test_a_job_of_several_tasks_asks_for_a_gpu_each() -> None:
    assert ask({}, gpus=8)["additional_parameters"] == {"gres": "gpu:8"}
    assert ask({"gpus_per_node": "h100:8"}, gpus=8)["additional_parameters"] == {"gpus-per-node": "h100:8"}


def test_as_many_jobs_run_at_once_as_asked_for_at_most() -> None:
    for option, at_once, expected in ((None, 6, 6), (4, 6, 4), (8, 6, 6)):
        assert ask({"array_parallelism": option}, at_once=at_once)["array_parallelism"] == expected


@pytest.mark.parametrize(("jobs", "arrays"), [(1, 1), (9, 2), (10, 3), (1001, 1), (5, 5)])
def test_jobs_are_spread_over_arrays_evenly(jobs: int, arrays: int) -> None:
    parts = spread(jobs, arrays)
    assert [job for part in parts for job in part] == list(range(jobs))
    sizes = {len(part) for part in parts}
    assert max(sizes) - min(sizes) <= 1


def test_each_task_is_found_in_its_job_and_each_job_has_its_tasks() -> None:
    packed = replace(attempt("edit", ["s"]), slices=10, pack=4, job_id="41", more_job_ids=("42",))
    assert [packed.job_of(task) for task in range(10)] == ["41"] * 4 + ["42_0"] * 4 + ["42_1"] * 2
    assert [list(packed.tasks_of(job)) for job in range(packed.jobs)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert packed.job_ids == ("41", "42", "7")
    assert replace(packed, job_id=None, more_job_ids=()).job_of(3) == "7", "the finishing job does it itself"


def test_each_task_of_a_job_gets_a_gpu_of_its_own_or_the_job_is_refused() -> None:
    assert deal(["GPU-a", " GPU-b", "GPU-c"], 2) == ["GPU-a", "GPU-b"]
    assert deal(["NoDevFiles"], 2) == deal([], 2) == [None, None], "tasks that need none"
    with pytest.raises(UserError, match=r"given 1 GPUs \(3\) for 2 tasks"):
        deal(["3"], 2)


def test_left_out_nodes_join_those_of_the_user() -> None:
    assert ask({"exclude": "n7"}, exclude=["n1", "n2"])["additional_parameters"]["exclude"] == "n7,n1,n2"


def test_a_job_that_submits_hands_down_nothing_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    with outside_a_job():
        assert "SLURM_JOB_ID" not in os.environ
        assert os.environ["SLURM_CONF"] == "/etc/slurm.conf"
    assert os.environ["SLURM_JOB_ID"] == "7"


def test_what_a_shell_would_tell_sbatch_does_not_reach_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("slurm_bench.logs.log.propagate", True)
    monkeypatch.setenv("SBATCH_PARTITION", "debug")
    for _ in range(2):
        with outside_a_job():
            assert "SBATCH_PARTITION" not in os.environ
    assert os.environ["SBATCH_PARTITION"] == "debug"
    said = {id(record) for record in caplog.records if "SBATCH_PARTITION=debug" in record.message}
    assert len(said) == 1, "said once"


def test_a_mistyped_option_of_slurm_is_refused_and_an_unknown_one_left_to_sbatch() -> None:
    known = ["partition", "exclude", "gpus", "time"]

    def check(known: list[str], **options: Any) -> None:
        check_options(Config(score_slurm=options), known)

    with pytest.raises(UserError, match=r"'score_slurm\.partitoin'.*did you mean 'score_slurm\.partition'"):
        check(known, partitoin="h100")
    check(known, partition="h100", container_image="x", setup="module load a", time="1")
    check([], partitoin="h100")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("array", "0-3"),
        ("job_name", "mine"),
        ("job-name", "mine"),
        ("signal_delay_s", "soon"),
        ("array_parallelism", "0"),
        ("hold", True),
        ("srun_args", "--label 'a b"),
        ("nodes", "2"),
        ("ntasks", "8"),
        ("ntasks-per-node", "2"),
    ],
)
def test_an_option_that_would_break_the_run_is_refused(option: str, value: str) -> None:
    with pytest.raises(UserError, match=f"'slurm.{option}'"):
        check_options(Config(slurm={option: value}), [])


def test_one_process_of_a_job_may_be_asked_for() -> None:
    check_options(Config(slurm={"nodes": "1", "ntasks": "1", "ntasks_per_node": None}), [])


def test_a_job_without_its_users_environment_still_hands_its_own_to_srun() -> None:
    assert ask({"export": "NONE"})["srun_args"] == ["--export=ALL"]


OK, ONCE = {"status": "ok", "sha256": "x"}, {"error": {"type": "E", "message": "m"}, "tries": 1}


def state(edits: list[Outcome], scores: list[Outcome] | None = None) -> State:
    samples = [Sample(n, f"s-{n}", "c", "i", ("x",), n) for n in range(len(edits))]
    scores = scores or [Outcome() for _ in edits]
    return State(samples, {s.id: edits[s.index] for s in samples}, {s.id: {"j": scores[s.index]} for s in samples})


def attempt(stage: str, samples: list[str], retry: int = 0, number: int = 1) -> Attempt:
    return Attempt(stage, number, tuple(samples), 1, "slurm", retry, 0.0, "h", 1, 1, finish_job_id="7")


def test_a_person_who_asks_gets_all_that_is_missing_also_what_failed() -> None:
    twice = Outcome(errors=[ONCE, ONCE])
    assert first_step(state([Outcome(ok=OK), twice, Outcome()])) == Step("edit", ["s-1", "s-2"], 0)
    assert first_step(state([Outcome(ok=OK)] * 2)) == Step("score", ["s-0", "s-1"], 0)
    assert first_step(state([Outcome(ok=OK)], [Outcome(ok=OK)])) is None


def test_retries_bound_the_attempts_that_brought_no_sample_forward() -> None:
    """Others are free, whatever ended them (law 12)."""
    now = state([Outcome(ok=OK), Outcome(), Outcome(errors=[ONCE])])
    config, missing = Config(retries=2), ["s-1", "s-2"]
    assert next_step(now, [attempt("edit", ["s-0", *missing], 2)], [], config) == Step("edit", missing, 2)
    assert next_step(now, [attempt("edit", missing, 1)], [], config) == Step("edit", missing, 2)
    assert next_step(now, [attempt("edit", missing, 2)], [], config) == Step("score", ["s-0"], 0)
    void = replace(attempt("edit", missing, 0, 2), closed=True, finish_job_id=None)
    assert next_step(now, [attempt("edit", missing, 1), void], [], config) == Step("edit", missing, 2)


def test_only_scores_edits_nothing() -> None:
    now = state([Outcome(ok=OK), Outcome()])
    assert first_step(now, only_scores=True) == Step("score", ["s-0"], 0, True)
    assert next_step(now, [attempt("score", ["s-0"], 1)], [], Config(), True) == Step("score", ["s-0"], 2, True)
    assert next_step(now, [attempt("score", ["s-0"], 2)], [], Config(), True) is None


def test_a_strict_run_neither_heals_nor_scores_a_part() -> None:
    config = Config(strict=True)
    assert next_step(state([Outcome(ok=OK), Outcome()]), [attempt("edit", ["s-0", "s-1"])], [], config) is None
    assert next_step(state([Outcome(ok=OK)]), [attempt("edit", ["s-0"])], [], config) == Step("score", ["s-0"], 0)


def test_what_failed_the_same_way_twice_is_left_alone() -> None:
    now = state([Outcome(ok=OK), Outcome(errors=[ONCE, ONCE])], [Outcome(ok=OK), Outcome()])
    assert next_step(now, [attempt("edit", ["s-0", "s-1"])], [], Config()) is None


def test_a_sample_is_scored_again_as_long_as_one_scorer_may_succeed() -> None:
    hopeless, once = Outcome(errors=[{**ONCE, "final": True}]), Outcome(errors=[ONCE])
    edits = {"s": Outcome(ok=OK)}
    for scores, worth in (({"a": hopeless, "b": once}, True), ({"a": hopeless, "b": Outcome(ok=OK)}, False)):
        now = State([Sample(0, "s", "c", "i", ("x",), 0)], edits, {"s": scores})
        assert now.to_score() == ["s"]
        assert bool(now.worth_scoring()) is worth


def test_what_is_edited_and_not_scored_is_not_told_as_without_a_record() -> None:
    now = state([Outcome(ok=OK), Outcome()])
    assert [now.missing(sample_id) for sample_id in now.unscored()] == [
        "edited, and not scored",
        "no record: its task ended before it",
    ]


def test_after_a_plug_in_refused_to_start_there_is_no_retry() -> None:
    assert next_step(state([Outcome()]), [attempt("edit", ["s-0"])], ["edit-001"], Config()) is None


def test_scores_are_retried_like_edits_and_new_images_start_anew() -> None:
    now = state([Outcome(ok=OK), Outcome(ok=OK)])
    edit = attempt("edit", ["s-0", "s-1"])
    assert next_step(now, [edit, attempt("score", ["s-0", "s-1"], 1)], [], Config()) == Step("score", ["s-0", "s-1"], 2)
    assert next_step(now, [edit, attempt("score", ["s-0", "s-1"], 2)], [], Config()) is None
    assert next_step(now, [edit, attempt("score", ["s-0"], 2)], [], Config()) == Step("score", ["s-0", "s-1"], 0)


def ends(*of: tuple[str, str | None] | tuple[str, str, int, int]) -> list[TaskProcess]:
    """One process of one task each: its node and how it ended, how many samples came right and how many failed."""
    rows = [(*row, *(1, 0)[len(row) - 2 :]) if len(row) == 2 else row for row in of]
    return [
        TaskProcess("edit", 1, task, 0, node, 0.0, end, "", ok, failed, None, "editor", (), [])
        for task, (node, end, ok, failed) in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("processes", "bad"),
    [
        (ends(("n1", None), ("n1", FAILED)), ["n1"]),
        (ends(("n1", None)), []),
        (ends(("n1", None), ("n2", DONE)), ["n1"]),
        (ends(("n1", DONE, 0, 5), ("n2", DONE)), ["n1"]),
        (ends(("n1", DONE, 0, 1), ("n2", DONE)), []),
        (ends(("n1", None), ("n1", None), ("n1", DONE), ("n1", DONE)), []),
        (ends(*[("n1", STOPPED)] * 4), []),
        (ends(("n1", LOST), ("n1", LOST)), ["n1"]),
        (ends(("n1", None), ("n1", None), ("n2", None), ("n2", None)), []),
        (ends(("elsewhere", None), ("elsewhere", None)), []),
    ],
)
def test_a_node_is_left_out_when_it_fails_and_others_remain(processes: list[TaskProcess], bad: list[str]) -> None:
    assert bad_nodes(processes, ["n1", "n2"]) == bad


@pytest.mark.parametrize(
    ("log", "node"),
    [
        ("job 7 on node n1\nslurmstepd-n1: error: execve(): python: No such file\n", "n1"),
        ("job 7 on node n1\n2026-11-29 20:41:18,603 INFO next is edit-002: 12 samples\n", ""),
        ("job 7 on node n1\n2026-11-29 20:41:18,603 INFO asked Slurm to run this job again\njob 7 on node n2\n", "n2"),
        ("job 7 on node n1\nslurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-29T20:41:18 ***\n", ""),
        ("bash: line 3: module: command not found\n", ""),
    ],
)
def test_a_job_that_ended_before_python_began_tells_its_node(tmp_path: Path, log: str, node: str) -> None:
    run = RunDir(tmp_path)
    attempt = claim(run, "edit", ["s-0", "s-1"], 2, "slurm", 0, 1)
    assert attempt is not None
    note_jobs(run, attempt, ["7"], "8", "9")
    run.submitit.mkdir(parents=True)
    (run.submitit / "7_1_0_log.err").write_text(log)
    assert [(found.task, found.node) for found in unborn_processes(run, [])] == ([(1, node)] if node else [])
    assert not list(unborn_processes(run, [TaskProcess("edit", 1, 1, 0, node="n1")]))
    assert not list(unborn_processes(run, [], "7_1"))


@pytest.mark.parametrize(("number", "bad"), [(signal.SIGTERM, []), (signal.SIGUSR2, []), (signal.SIGKILL, ["n1"])])
def test_who_was_told_to_leave_while_it_started_says_nothing_of_its_node(number: int, bad: list[str]) -> None:
    """Who cancels at once and resubmits would go on without the node."""
    started = [replace(process, exit=-number) for process in ends(("n1", None), ("n1", None))]
    assert bad_nodes(started, ["n1", "n2"]) == bad


def test_a_sample_that_kills_on_two_nodes_is_held_against_none() -> None:
    """Of a node on which nothing else was tried."""
    passed, *died = ends(("n1", DONE), ("n2", None), ("n3", None))
    others = [replace(process, in_hand=("a",)) for process in died]
    assert bad_nodes([passed, *others], ["n1", "n2", "n3"]) == []
    assert bad_nodes([passed, others[0], replace(others[1], in_hand=("b",))], ["n1", "n2", "n3"]) == ["n2", "n3"]


def test_what_fails_in_one_stage_is_not_held_against_those_who_pass_another() -> None:
    edited, scoring = ends(("n1", DONE), ("n2", FAILED))
    assert bad_nodes([edited, replace(scoring, stage="score")], ["n1", "n2"]) == []


def test_what_healed_in_place_is_not_held_against_the_node() -> None:
    died, went_on = ends(("n1", None), ("n1", DONE))
    assert bad_nodes([died, replace(went_on, task=0, restart=1)], ["n1", "n2"]) == []


def test_two_runs_of_one_name_are_told_apart_in_the_queue() -> None:
    one, two = (replace(attempt("edit", ["s"]), key=RunDir(Path(p)).key).job_names for p in ("/a/run, x", "/b/run, x"))
    assert set(one).isdisjoint(two)
    assert all("," not in name and " " not in name for name in one)
