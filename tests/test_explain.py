"""Whatever failed, waits or has died is told with its cause and the line to type; each cause is made to happen."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import REPO, hear_interrupts, launch, make_benchmark, make_config, run_dir
from tasks import prepare, work

from slurm_bench.cluster.heard import hear
from slurm_bench.cluster.job import finish
from slurm_bench.cluster.queue import Job
from slurm_bench.command import command
from slurm_bench.config import load_config
from slurm_bench.run.attempts import claim, close, note_jobs, read_attempts
from slurm_bench.run.create import reconfigure, store
from slurm_bench.run.durable import LineWriter
from slurm_bench.run.journal import Journal, node_name
from slurm_bench.run.opened import open_run
from slurm_bench.stages.stop import StopSignals
from slurm_bench.stages.task import run_task
from slurm_bench.watch.evidence import Heard, gather
from slurm_bench.watch.explain import Cause, explain, next_of, read_causes, render
from slurm_bench.watch.follow import follow
from slurm_bench.watch.job_logs import last_words
from slurm_bench.watch.kinds import KINDS, kind_of
from slurm_bench.watch.status import render_status, status_of
from slurm_bench.watch.symptoms import Symptom


def causes(root: Path, over: bool = True) -> dict[str, Cause]:
    """By kind. These tests work within this process, which would pass for a launcher at work: it is over."""
    return {cause.kind: cause for cause in read_causes(open_run(root), hear, over)[1] if not cause.past}


def worked(root: Path, **how: Any) -> dict[str, Cause]:
    with suppress(Exception):
        work(root, **how)
    for attempt in read_attempts(run_dir(root)):
        close(run_dir(root), attempt)
    return causes(root)


def told_of_a_process(root: Path, end: str | None, said: str, slurm: str, node: str | None = None) -> Cause:
    """The one task of a run ended so, by its journal, and its job in these words."""
    attempt = claim(run_dir(root), "edit", [f"s-{n}" for n in range(6)], 1, "slurm", 0, 1)
    assert attempt is not None
    close(run_dir(root), note_jobs(run_dir(root), attempt, ["41"], "42", "43"))
    journal = Journal(run_dir(root).journal("edit", 1, 0, 0))
    journal.start()
    if end is not None:
        journal.end(end, said)
    broken = {node_name(): node} if node else {}
    over = lambda run, over: Heard(read_attempts(run), ended=lambda: [("41", slurm)], broken=broken)  # noqa: E731
    (cause,) = (cause for cause in explain(gather(open_run(root), over)) if cause.samples)
    return cause


def test_ways_to_fail_are_told_apart_in_one_run(tmp_path: Path) -> None:
    config = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 24), "EveryWay", gpus=4)
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local")
    assert done.returncode == 3, done.stderr
    said = json.loads(launch("explain", tmp_path / "run", "--json").stdout)
    by_sample = {i: cause["kind"] for cause in said["causes"] if not cause["past"] for i in cause["samples"]}
    assert by_sample == {
        "s-0": "sigkill",
        "s-1": "crash",
        "s-2": "host_out_of_memory",
        "s-3": "exit_code",
        "s-4": "exit_words",
        "s-5": "host_out_of_memory",
        "s-6": "cuda_out_of_memory",
        "s-7": "sample_fault",
    }
    text = launch("explain", tmp_path / "run")
    assert "please set FOO" in text.stdout
    assert "SIGSEGV" in text.stdout
    assert f"next  python launch.py resubmit {tmp_path / 'run'}" in text.stdout
    report = (tmp_path / "run" / "report" / "report.md").read_text()
    for page in (text.stdout, launch("status", tmp_path / "run").stdout, done.stderr, report):
        assert "please set FOO" in page
        assert "resubmit" in page
        assert "\x1b" not in page, "nothing raw from data or plug-ins reaches a terminal"
        assert "\r" not in page


@pytest.mark.parametrize(
    ("editor", "params", "kind", "words"),
    [
        ("Tint", {"fail": [f"s-{n}" for n in range(12)]}, "systematic", "s-9 fails always"),
        ("PoisonedOnce", {"marks": "MARKS", "at": "s-2"}, "lost_gpu", "device-side assert"),
        ("Refuses", {}, "refused", "no model /nowhere"),
        ("Unloadable", {}, "not_loaded", "no such weights"),
        ("LacksAKey", {}, "not_loaded", "KeyError: 'weights'"),
        ("Away", {}, "service_down", "refuses the connection"),
    ],
)
def test_what_ends_a_whole_task(tmp_path: Path, editor: str, params: dict[str, Any], kind: str, words: str) -> None:
    params = {key: str(tmp_path) if value == "MARKS" else value for key, value in params.items()}
    root = prepare(tmp_path, editor, params, 12)
    cause = worked(root, slices=1)[kind]
    assert words in cause.what
    assert cause.tasks == ("edit-001/0",)
    assert len(cause.samples) >= 10
    assert cause.log == str(root / "logs" / "edit-001-0000.log")
    assert words in " ".join(cause.lines), "what ended it, not how it began"
    assert not any(" INFO " in line or f"{REPO}/slurm_bench/" in line for line in cause.lines)
    assert cause.next == f"python launch.py resubmit {root}"


def test_samples_that_none_can_read_are_their_own_fault(tmp_path: Path) -> None:
    """Of a slice that has no other: their files are absent for whoever looks."""
    root = prepare(tmp_path, "Tint", {})
    for file in (tmp_path / "bench").glob("*.png"):
        file.unlink()
    found = worked(root, slices=1)
    assert len(found["sample_fault"].samples) == 6
    assert "no such file" in found["sample_fault"].what


def test_what_fails_among_others_is_its_own_fault_when_only_its_like_are_left(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {"fail": ["s-1", "s-3"]})
    worked(root, slices=1)
    causes = worked(root, number=2, slices=1)
    assert "systematic" not in causes
    assert sorted(causes["sample_fault"].samples) == ["s-1", "s-3"]


def test_a_plugin_that_is_not_there_where_the_task_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "soon_nowhere_to_be_found.py"
    module.write_text("from plugins import Tint\n")
    root = prepare(tmp_path, "soon_nowhere_to_be_found.Tint", {})
    module.unlink()
    monkeypatch.delitem(sys.modules, module.stem, raising=False)
    assert "soon_nowhere_to_be_found" in worked(root)["plugin_import"].what


def test_a_full_disk(small_disk: Path) -> None:
    root = prepare(small_disk, "Fills", {"file": str(small_disk / "ballast")}, 4)
    with suppress(OSError):
        worked(root)
    cause = causes(root)["disk_full"]
    assert "Make room" in cause.what
    assert len(cause.samples) == 4


def test_a_disk_that_is_full_now_keeps_a_run_from_going_on(tmp_path: Path) -> None:
    seen = gather(open_run(prepare(tmp_path, "Tint", {})), hear)
    assert "disk_full" not in [cause.kind for cause in explain(seen)]
    assert "disk_full" in [cause.kind for cause in explain(replace(seen, free=0))]


def test_a_disk_that_is_full_now_is_no_fault_of_a_whole_run(finished_run: str) -> None:
    assert explain(replace(gather(open_run(Path(finished_run)), hear), free=0)) == []


def test_a_node_that_fails_what_others_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = prepare(tmp_path, "FailsOnNode", {"node": "n1"}, 8)
    assert claim(run_dir(root), "edit", [f"s-{n}" for n in range(8)], 2, "debug", 0, 1)
    for task, node in enumerate(("n1", "n2")):
        monkeypatch.setenv("SLURMD_NODENAME", node)
        run_task(open_run(root), "edit", 1, task, StopSignals())
    cause = causes(root)["bad_node"]
    assert cause.nodes == ("n1",)
    assert cause.next == f"python launch.py resubmit {root} --exclude n1"


def test_what_failed_of_an_editor_that_was_replaced_is_no_fault_of_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = prepare(tmp_path, "FailsOnNode", {"node": "n1"}, 8)
    run = open_run(root)
    assert claim(run.folder, "edit", [f"s-{n}" for n in range(8)], 2, "debug", 0, 1, run.by)
    for task, node in enumerate(("n1", "n2")):
        monkeypatch.setenv("SLURMD_NODENAME", node)
        run_task(run, "edit", 1, task, StopSignals())
    assert "bad_node" in causes(root)
    another = load_config(run.folder.config, ["editor.class_path=tests.plugins.Tint", "editor.params={}"])
    store(reconfigure(run, another, {}, force=True))
    assert "bad_node" not in causes(root)
    store(reconfigure(open_run(root), run.config, {}, force=True))
    assert "bad_node" in causes(root), "nor is it forgotten"


def test_what_passes_nowhere_is_no_fault_of_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = prepare(tmp_path, "FailsOnNode", {"node": "n1"}, 9)
    assert claim(run_dir(root), "edit", [f"s-{n}" for n in range(9)], 3, "debug", 0, 1)
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    for task, said in enumerate(("n1", "n1", "n2")):
        monkeypatch.setattr("slurm_bench.run.journal.node_name", lambda said=said: said)
        run_task(open_run(root), "edit", 1, task, StopSignals())
    assert "bad_node" not in causes(root)


def test_lost_images_other_makers_and_unscored_images(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    assert set(causes(root, over=False)) == {"never_submitted"}
    work(root)
    next((root / "edit" / "images").rglob("*.png")).unlink()
    assert len(causes(root, over=False)["lost_image"].samples) == 1
    facts = json.loads(run_dir(root).provenance.read_text())
    facts["by"]["editor"] = "another"
    run_dir(root).provenance.write_text(json.dumps(facts))
    assert "6 records of edit" in causes(root)["mixed_makers"].what


def test_a_launcher_that_is_gone_is_told(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    work(root)
    (attempt,) = read_attempts(run_dir(root))
    file = run_dir(root).attempt("edit", 1)
    file.write_text(json.dumps({**json.loads(file.read_text()), "pid": 1, "pid_start": 1.0}))
    cause = causes(root, over=False)["nobody"]
    assert set(cause.samples) == set(attempt.samples)
    assert cause.next == f"python launch.py resubmit {root}"


@pytest.mark.parametrize(("age", "told"), [(60, []), (600, ["launcher_died"])])
def test_a_launcher_elsewhere_that_has_not_submitted_in_time_is_gone(
    tmp_path: Path, age: float, told: list[str]
) -> None:
    """From here nobody can see whether its process lives."""
    root = prepare(tmp_path, "Tint", {})
    claimed = claim(run_dir(root), "edit", [f"s-{n}" for n in range(6)], 1, "slurm", 0, 1)
    assert claimed is not None
    elsewhere = replace(claimed, host="another", time=time.time() - age)
    assert [cause.kind for cause in explain(gather(open_run(root), lambda run, over: Heard([elsewhere], [])))] == told


def test_a_run_that_its_finishing_job_concluded_incomplete_is_not_told_as_abandoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = prepare(tmp_path, "Tint", {"fail": ["s-1"]}, retries=0)
    attempt = claim(run_dir(root), "edit", [f"s-{n}" for n in range(6)], 1, "slurm", 0, 1, open_run(root).by)
    assert attempt is not None
    note_jobs(run_dir(root), attempt, ["41"], "42", "43")
    run_task(open_run(root), "edit", 1, 0, StopSignals())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit) as left:
        finish(str(root), "edit", 1, 90, 0)
    assert left.value.code == 3
    assert [attempt.name for attempt in read_attempts(run_dir(root))] == ["edit-001", "edit-002", "score-001"]
    nobody = lambda run, over: Heard(read_attempts(run))  # noqa: E731
    assert [cause.kind for cause in explain(gather(open_run(root), nobody))] == ["sample_fault"]
    again = claim(run_dir(root), "edit", ["s-1"], 1, "slurm", 0, 3)
    assert again is not None
    close(run_dir(root), note_jobs(run_dir(root), again, ["51"], "52", "53"))
    assert "nobody" in {cause.kind for cause in explain(gather(open_run(root), nobody))}, "concluded before, not now"


def test_a_source_that_is_gone_is_told_without_the_frames_of_who_reads_it(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    (tmp_path / "bench" / "2.png").unlink()
    (line,) = worked(root)["sample_fault"].lines
    assert line.endswith("2.png: no such file")


@pytest.mark.parametrize(
    ("state", "reason", "kind", "typed"),
    [
        ("PENDING", "job requeued in held state", "held", "scontrol release 41"),
        ("PENDING", "launch failed requeued held", "held", "scontrol release 41"),
        ("PENDING", "JobHeldUser", "held", "scontrol release 41"),
        ("SUSPENDED", "None", "suspended", "scontrol show job 41"),
    ],
)
def test_a_task_that_waits_for_a_person_is_not_said_to_go_on_by_itself(
    tmp_path: Path, state: str, reason: str, kind: str, typed: str
) -> None:
    root = prepare(tmp_path, "Tint", {})
    claimed = claim(run_dir(root), "edit", [f"s-{n}" for n in range(6)], 1, "slurm", 0, 1)
    assert claimed is not None
    attempt = note_jobs(run_dir(root), claimed, ["41"], "42", "43")
    journal = Journal(run_dir(root).journal("edit", 1, 0, 0))
    journal.start()
    if state == "PENDING":
        journal.end("stopped", "SIGTERM")
    array, finishing, _ = attempt.job_names
    queue = [Job("41", array, state, reason), Job("42", finishing, "PENDING", "Dependency")]
    (cause,) = explain(gather(open_run(root), lambda run, over: Heard([attempt], queue)))
    assert (cause.kind, cause.next, len(cause.samples)) == (kind, typed, 6)


def test_an_array_that_nothing_follows_is_told_while_it_works(tmp_path: Path) -> None:
    """Who cancels the finishing job and its standby is told before the array's hours are over, not after."""
    root = prepare(tmp_path, "Tint", {})
    claimed = claim(run_dir(root), "edit", [f"s-{n}" for n in range(6)], 2, "slurm", 0, 1)
    assert claimed is not None
    attempt = note_jobs(run_dir(root), claimed, ["41"], "42", "43")
    array, finishing, standby = attempt.job_names
    working = [Job(f"41_{n}", array, "RUNNING") for n in range(2)]
    for others, told in (
        ([], ["nothing_follows"]),
        ([Job("42", finishing, "PENDING", "Dependency")], []),
        ([Job("43", standby, "RUNNING")], []),
    ):
        heard = Heard([attempt], [*working, *others], ended=lambda: [("42", "CANCELLED Dependency")])
        seen = gather(open_run(root), lambda run, over: heard)  # noqa: B023
        found = explain(seen)
        assert [cause.kind for cause in found] == told
        assert ("nothing is wrong so far" in render(seen, found)) is (told == [])
    heard = Heard([attempt], working, ended=lambda: [("42", "CANCELLED Dependency")])
    (cause,) = explain(gather(open_run(root), lambda run, over: heard))
    assert "CANCELLED Dependency" in cause.what
    assert cause.next == f"{command('status', root, '--watch')}; {command('resubmit', root)}"
    assert len(cause.samples) == 6
    close(run_dir(root), attempt)
    closed = Heard(read_attempts(run_dir(root)), working)
    assert explain(gather(open_run(root), lambda run, over: closed)) == [], "a person's cancel, on its way"


def test_braces_in_a_runs_name_are_no_fields_to_fill(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {}, name="run-{a}")
    cause = told_of_a_process(root, "stopped", "SIGTERM", "PREEMPTED 0:0")
    assert (cause.kind, cause.next) == ("preempted", command("resubmit", root))


def test_nothing_found_is_said_and_a_copy_without_its_plugins_is_enough(undisturbed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(undisturbed, copy)
    config = run_dir(copy).config
    config.write_text(config.read_text().replace("tests.plugins", "gone"))
    bare = {"PATH": "/nowhere", "HOME": str(tmp_path)}
    for verb, expected in (("explain", "nothing is wrong"), ("status", "24/24")):
        command = [sys.executable, REPO / "launch.py", verb, copy]
        done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout


def test_stuck_and_interrupted(tmp_path: Path) -> None:
    data = make_benchmark(tmp_path / "bench", 6)
    config = make_config(tmp_path / "c.yaml", data, "WaitsFor", {"mark": str(tmp_path / "mark")}, gpus=2)
    root = tmp_path / "run"
    command = [sys.executable, "launch.py", "--config", config, "--run-dir", root, "--executor", "local"]
    process = subprocess.Popen(
        [*map(str, command)], cwd=REPO, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts
    )
    try:
        hands = run_dir(root).journals
        deadline = time.monotonic() + 240
        while len([f for f in hands.glob("*.hand") if f.stat().st_size]) < 2 if hands.is_dir() else True:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        seen = gather(open_run(root), hear)
        assert seen.alive
        assert explain(seen) == []
        assert "nothing is wrong so far" in render(seen, [])
        (cause,) = explain(replace(seen, now=seen.now + 7200))
        assert cause.kind == "stuck"
        assert len(cause.samples) == 6
        assert "in hand" in cause.what
        assert cause.next.startswith("tail ")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = ""
        while "once more leaves at once" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        assert "2 tasks are finishing what is in hand" in said
        process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=240)[1]
        assert process.returncode == 130
        assert "2 tasks are at work, and killed now" in said
        assert f"to go on, type: python launch.py resubmit {root}" in said
    finally:
        process.kill()
    left = explain(gather(open_run(root), hear))
    assert {i for cause in left for i in cause.samples} == {f"s-{n}" for n in range(6)}
    assert next_of(left) == f"python launch.py resubmit {root}"


@pytest.mark.parametrize(
    ("where", "slurm", "kind"),
    [
        ("waiting", "QOSMaxGRESPerUser", "pending_qos"),
        ("waiting", "AssocGrpGRES", "pending_qos"),
        ("waiting", "launch failed requeued held", "held"),
        ("waiting", "BurstBufferResources", "pending_resources"),
        ("process", "ended without a word OUT_OF_MEMORY 0:125", "host_out_of_memory"),
        ("process", "slurmstepd: error: Detected 1 oom_kill event in StepId=4.0.", "host_out_of_memory"),
        ("process", "slurmstepd: error: Detected 3 oom-kill event(s) in StepId=4.0. Some", "host_out_of_memory"),
        ("process", "srun: error: n1: task 0: Out Of Memory", "host_out_of_memory"),
        (
            "process",
            "slurmstepd: error: *** STEP 4.0 ON n1 CANCELLED AT T DUE TO TIME LIMIT ***",
            "time_limit",
        ),
        (
            "process",
            "slurmstepd: error: *** JOB 4 ON n1 CANCELLED AT T DUE TO NODE FAILURE ***",
            "node_failed",
        ),
        ("process", "slurmstepd: error: *** JOB 4 ON n1 CANCELLED AT T DUE TO PREEMPTION ***", "preempted"),
        ("process", "slurmstepd: error: *** JOB 4 ON n1 CANCELLED AT T ***", "cancelled"),
        ("finish", "OUT_OF_MEMORY", "host_out_of_memory"),
        ("unborn", "bash: line 3: module: command not found", "died_before_python"),
        ("unborn", "", "never_started"),
    ],
)
def test_words_that_a_test_cluster_does_not_say(where: str, slurm: str, kind: str) -> None:
    """Without accounting, cgroups and QOS; as slurmstepd, sacct and squeue of 22.05 say them."""
    assert kind_of(Symptom(where, "", slurm, slurm)).name == kind


LACK = (
    "OutOfMemoryError: CUDA out of memory. Tried to allocate {asked}. GPU 0 has a total capacity of 139.80 GiB of "
    "which {free} is free. {others}Including non-PyTorch memory, this process has {own} memory in use. Of the "
    "allocated memory 16.91 GiB is allocated by PyTorch, and 81.20 MiB is reserved by PyTorch but unallocated. If "
    "reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True."
)
HOG = "Process 10214 has 122.19 GiB memory in use. "


@pytest.mark.parametrize(
    ("asked", "free", "others", "own", "kind"),
    [
        ("62.00 MiB", "23.56 MiB", HOG, "17.57 GiB", "gpu_in_use"),
        ("62.00 MiB", "23.56 MiB", "", "17.57 GiB", "gpu_in_use"),
        ("4.66 GiB", "2.30 GiB", "Process 9 has 136.79 GiB memory in use. ", "712.00 MiB", "gpu_in_use"),
        ("62.00 MiB", "23.56 MiB", "", "139.20 GiB", "cuda_out_of_memory"),
        ("200.00 GiB", "100.10 GiB", "Process 7 has 20.00 GiB memory in use. ", "19.70 GiB", "cuda_out_of_memory"),
        ("512.00 KiB", "0 bytes", "Process 7 has 3.00 GiB memory in use. ", "136.80 GiB", "cuda_out_of_memory"),
    ],
)
def test_a_gpu_that_others_filled_is_told_from_one_that_is_too_small(
    asked: str, free: str, others: str, own: str, kind: str
) -> None:
    """In torch 2.11's words on an H200 whose memory another process held."""
    words = LACK.format(asked=asked, free=free, others=others, own=own)
    for where in ("sample", "process"):
        assert kind_of(Symptom(where, words, words, end="failed" if where == "process" else None)).name == kind


def test_of_a_lack_of_gpu_memory_it_is_said_whose_it_is_without_torchs_advice(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    words = LACK.format(asked="62.00 MiB", free="23.56 MiB", others=HOG, own="17.57 GiB")
    cause = told_of_a_process(root, "failed", words, "")
    assert HOG in cause.what
    assert "expandable_segments" not in cause.what
    status = render_status(status_of(open_run(root), hear), 80)
    assert "17.57 GiB memory in use" in " ".join(status.split())


def test_how_a_task_ended_is_told_in_one_line(tmp_path: Path) -> None:
    cause = told_of_a_process(prepare(tmp_path, "Tint", {}), "failed", "ValueError: while loading:\n  no weights", "")
    assert "while loading: no weights" in cause.what


def test_a_process_that_may_open_no_more_files_has_no_full_disk() -> None:
    words = "StorageFailed: OSError: [Errno 24] Too many open files: 'x.png'"
    assert kind_of(Symptom("process", words, words, end="failed")).name == "too_many_files"


def test_a_samples_own_words_are_not_taken_for_its_processes_end() -> None:
    mask = "ValueError: nothing is left with which the mask, killed by the threshold, could be filled"
    for words in (mask, "OSError: ffmpeg left with exit code 1", "OSError: ffmpeg was killed by SIGSEGV"):
        assert kind_of(Symptom("sample", words, words)).name == "sample_fault"


NODE = "slurmstepd: error: *** JOB 4 ON n1 CANCELLED AT T DUE TO NODE FAILURE ***"


@pytest.mark.parametrize(
    ("end", "said", "slurm", "kind"),
    [
        ("failed", "ReadTimeout: HTTPSConnectionPool(host='huggingface.co'): Read timed out.", "", "not_loaded"),
        ("failed", "TimeoutError: the lock was not free within 60 s", "TIMEOUT 0:0", "not_loaded"),
        ("failed", "RuntimeError: NCCL watchdog timeout", "", "not_loaded"),
        ("failed", "CancelledError: ", "CANCELLED by 1000", "not_loaded"),
        ("failed", "RuntimeError: preempted by somebody, out of memory", "", "not_loaded"),
        ("stopped", "ServiceDown: no connection (ConnectTimeout: )", "CANCELLED DUE TO TIME LIMIT", "service_down"),
        ("stopped", "ServiceDown: the judge's server died again; the server left with exit code 3", "", "service_down"),
        ("stopped", "SIGUSR2", "", "time_limit"),
        ("stopped", "SIGTERM", "", "cancelled"),
        ("stopped", "SIGTERM", "DUE TO TIME LIMIT", "time_limit"),
        ("stopped", "SIGTERM", NODE, "node_failed"),
        (None, "", "CANCELLED AT T DUE TO TIME LIMIT", "time_limit"),
    ],
)
def test_what_a_process_said_itself_is_not_taken_for_slurms_words(
    tmp_path: Path, end: str | None, said: str, slurm: str, kind: str
) -> None:
    assert told_of_a_process(prepare(tmp_path, "Tint", {}), end, said, slurm).kind == kind


def test_an_exception_without_a_message_leaves_no_colon_behind(tmp_path: Path) -> None:
    said = told_of_a_process(prepare(tmp_path, "Tint", {}), "failed", "MemoryError: ", "").what
    assert "was not enough: MemoryError. Ask" in said


def test_of_long_words_the_end_is_told_too(tmp_path: Path) -> None:
    said = f"EndedEarly: the judge's server never came up: {'[--option OPTION] ' * 50}: error: no such model"
    root = prepare(tmp_path, "Tint", {})
    what = told_of_a_process(root, "failed", said, "").what
    (line,) = (line for line in launch("status", root).stdout.splitlines() if line.startswith("  task 0"))
    for told in (what, line):
        assert "EndedEarly: the judge's server never came up" in told
        assert "error: no such model" in told
        assert len(told) < 500


@pytest.mark.parametrize(
    ("node", "end", "kind"),
    [
        ("drained: maintenance", "stopped", "cancelled"),
        ("draining: Kill task failed", None, "node_failed"),
        ("down*: Not responding", "stopped", "node_failed"),
    ],
)
def test_a_node_that_an_administrator_drains_has_not_failed(
    tmp_path: Path, node: str, end: str | None, kind: str
) -> None:
    cause = told_of_a_process(prepare(tmp_path, "Tint", {}), end, "SIGTERM", "CANCELLED by 1000", node)
    assert cause.kind == kind


ASKED = "slurmstepd-n1: error: *** JOB 53 ON n1 CANCELLED AT T DUE TO JOB REQUEUE ***"


@pytest.mark.parametrize(("slurm", "kind"), [("", "preempted"), (NODE, "node_failed"), (ASKED, "requeued")])
def test_a_requeued_process_that_was_told_to_leave(slurm: str, kind: str) -> None:
    assert kind_of(Symptom("requeued", "SIGTERM", f"SIGTERM {slurm}", slurm, end="stopped")).name == kind


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (signal.SIGTERM, "cancelled"),
        (signal.SIGINT, "cancelled"),
        (signal.SIGHUP, "cancelled"),
        (signal.SIGUSR2, "time_limit"),
        (signal.SIGKILL, "sigkill"),
        (signal.SIGXCPU, "exit_code"),
    ],
)
def test_a_process_that_a_signal_ended(number: int, kind: str) -> None:
    assert kind_of(Symptom("process", "killed", "killed", exit=-number)).name == kind


def test_what_a_job_said_before_srun_told_its_exit_code_is_told(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    attempt = claim(run_dir(root), "edit", [f"s-{n}" for n in range(6)], 1, "slurm", 0, 1)
    assert attempt is not None
    close(run_dir(root), note_jobs(run_dir(root), attempt, ["41"], "42", "43"))
    log = run_dir(root).submitit / "41_0_log.err"
    log.parent.mkdir(parents=True)
    exited = "srun: error: n1: task 0: Exited with exit code 1"
    for said, told in ((f"ImportError: libX is gone\n{exited}", "libX is gone"), (exited, "exit code 1")):
        log.write_text(f"job 41 on node n1\n{said}\n")
        seen = gather(open_run(root), lambda run, over: Heard(read_attempts(run)))
        assert told in next(cause for cause in explain(seen) if cause.kind == "died_before_python").what


def test_what_a_process_printed_before_it_ended_itself_is_told(tmp_path: Path) -> None:
    config = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 2), "Unlicensed")
    root = tmp_path / "run"
    assert launch("--config", config, "--run-dir", root, "--executor", "local").returncode == 3
    cause = causes(root)["exit_code"]
    assert cause.lines == ("libfoo: no licence for this host",)
    assert cause.log.endswith(".out")


def test_a_record_of_an_attempt_that_is_not_there_any_more_is_told(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    record = {"id": "s-1", "status": "error", "attempt": 7, "task": 0, "by": open_run(root).by["editor"]}
    died = {"type": "ProcessDied", "message": "left with exit code 3"}
    with closing(LineWriter(run_dir(root).manifest("edit", 7, 0, 0))) as manifest:
        manifest.write({**record, "seconds": 0.0, "time": 1.0, "final": True, "error": died})
    assert causes(root)["exit_code"].samples == ("s-1",)


OURS = "2026-11-30 16:32:57,107 ERROR 's-0': ValueError: no\n"
TRACEBACK = 'Traceback (most recent call last):\n  File "mine.py", line 1, in edit\nValueError: no\n'


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (
            f"job 7 on node n1\n{OURS}libfoo: why\n{OURS}{TRACEBACK}{OURS}srun: error: n1: task 0: Killed\n",
            ["libfoo: why"],
        ),
        (f"{OURS}{TRACEBACK}", []),
        ("ImportError: libX\n", ["ImportError: libX"]),
        ("", []),
    ],
)
def test_last_words_are_neither_ours_nor_slurms(tmp_path: Path, log: str, words: list[str]) -> None:
    (tmp_path / "7_0_log.err").write_text(log)
    assert last_words(tmp_path / "7_0_log.err") == words


def test_watch_ends_with_the_run_and_its_code(finished_run: str, tmp_path: Path) -> None:
    done = launch("status", finished_run, "--watch")
    assert done.returncode == 0
    assert "24/24" in done.stdout
    root = prepare(tmp_path, "Tint", {"fail": ["s-1"]})
    worked(root)
    file = run_dir(root).attempt("edit", 1)
    file.write_text(json.dumps({**json.loads(file.read_text()), "pid": 1, "pid_start": 1.0}))
    done = launch("status", root, "--watch")
    assert done.returncode == 3
    assert "s-1 fails always" in done.stdout
    assert "\x1b" not in done.stdout, "plain lines in a pipe"


@pytest.mark.parametrize(("job", "why"), [("41", "cancelled while it waited"), (None, "its launcher ended before")])
def test_a_task_that_left_no_trace(tmp_path: Path, job: str | None, why: str) -> None:
    """A waiting task of an array that is cancelled is known to Slurm no more."""
    root = prepare(tmp_path, "Tint", {})
    attempt = claim(run_dir(root), "edit", ["s-0"], 1, "slurm" if job else "local", 0, 1)
    assert attempt is not None
    close(run_dir(root), note_jobs(run_dir(root), attempt, [job], "42", "43") if job else attempt)
    assert why in causes(root)["never_started"].what


def test_watch_says_that_the_run_was_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = prepare(tmp_path, "Tint", {})
    assert claim(run_dir(root), "edit", ["s-0"], 1, "local", 0, 1)
    monkeypatch.setattr("slurm_bench.watch.follow.time.sleep", lambda seconds: root.rename(tmp_path / "moved"))
    with pytest.raises(FileNotFoundError, match="moved, renamed or deleted"):
        follow(open_run(root), hear, False)


def test_the_page_tells_of_every_kind() -> None:
    page = (REPO / "docs" / "explain.md").read_text()
    assert [kind.name for kind in KINDS if f"`{kind.name}`" not in page] == []
