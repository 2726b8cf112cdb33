"""Storage and terminals that fail: a line with the mend, never a traceback, and nothing that was claimed is left."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from helpers import REPO, images, launch, make_benchmark, make_config, run_dir, summary
from tasks import prepare

from slurm_bench.cluster import job
from slurm_bench.cluster.launch import launch as launch_here
from slurm_bench.cluster.local import Local
from slurm_bench.errors import UserError, storage_problem
from slurm_bench.run.attempts import read_attempts
from slurm_bench.run.durable import LineWriter, create_once, write_atomic
from slurm_bench.run.opened import open_run
from slurm_bench.watch import progress


def refuses(number: int, times: int = 10**6, instead: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A function that fails so often with this errno, and then does what it did."""
    left = [times]

    def act(*words: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(number, os.strerror(number))
        assert instead is not None
        return instead(*words, **more)

    return act


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_hard_links_has_one_winner_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "link", refuses(number))
    assert create_once(tmp_path / "claim", b"first")
    assert not create_once(tmp_path / "claim", b"second")
    assert (tmp_path / "claim").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["claim"]


def test_a_claim_that_could_not_be_written_blocks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuses(errno.EPERM))
    real, calls = os.fsync, [0]

    def full_at_the_second(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full_at_the_second)
    with pytest.raises(OSError, match="claim"):
        create_once(tmp_path / "claim", b"first")
    assert create_once(tmp_path / "claim", b"second")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_claim_that_could_not_be_linked_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Only what has no hard links at all may do without them: readers can see such a claim half written."""
    monkeypatch.setattr(os, "link", refuses(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        create_once(tmp_path / "claim", b"first")
    assert not list(tmp_path.iterdir())


def test_a_claim_never_replaces_another(tmp_path: Path) -> None:
    """A rename would: two launchers would both have won."""
    assert create_once(tmp_path / "claim", b"first")
    assert not create_once(tmp_path / "claim", b"second")
    assert (tmp_path / "claim").read_bytes() == b"first"


def test_a_claim_whose_answer_was_lost_is_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS asks again then, and is told that the file exists: nobody would have won."""
    real = os.link

    def asked_twice(source: Path, target: Path) -> None:
        real(source, target)
        real(source, target)

    monkeypatch.setattr(os, "link", asked_twice)
    assert create_once(tmp_path / "claim", b"first")
    assert not create_once(tmp_path / "claim", b"second")


def test_a_line_that_was_written_in_part_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that becomes full amid it: the system tells how much, and no error."""
    writer = LineWriter(tmp_path / "records.jsonl")
    monkeypatch.setattr(writer, "_file", Mock(write=Mock(return_value=3)))
    with pytest.raises(OSError, match="only 3 of 12 bytes") as caught:
        writer.write({"id": "a"})
    assert caught.value.errno == errno.ENOSPC


def test_what_a_caller_was_told_is_written_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image's data and its folder's entry, a record, a claim: each is synced before the call returns."""
    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name), real(fd))[1]
    )
    write_atomic(tmp_path / "image.png", b"x")
    assert len(synced) == 2, "the data under its temporary name, then the folder"
    assert synced[0].startswith(".image.png")
    assert synced[1] == tmp_path.name
    synced.clear()
    writer = LineWriter(tmp_path / "001-0000.jsonl")
    synced.clear()
    writer.write({"id": "a"})
    assert synced == ["001-0000.jsonl"]
    writer.close()
    synced.clear()
    assert create_once(tmp_path / "claim", b"x")
    assert synced[0].startswith(".claim")
    assert synced[1] == tmp_path.name


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE, errno.EIO])
def test_what_failed_names_its_file_and_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    writer = LineWriter(tmp_path / "records.jsonl")
    monkeypatch.setattr(os, "fsync", refuses(number))
    for act in (lambda: write_atomic(tmp_path / "image", b"x"), lambda: writer.write({"id": "a"})):
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            act()
        said = storage_problem(caught.value)
        assert str(tmp_path) in said
        assert "; " in said


def test_a_full_disk_at_launch_is_one_line(tmp_path: Path, small_disk: Path) -> None:
    config = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 4))
    (small_disk / "run").mkdir()
    with open(small_disk / "ballast", "wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))
    done = launch("--config", config, "--run-dir", small_disk / "run", "--executor", "debug")
    assert done.returncode == 1
    assert "make room" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    (small_disk / "ballast").unlink()
    done = launch("--config", config, "--run-dir", small_disk / "run", "--executor", "debug")
    assert done.returncode == 0, done.stderr


def test_a_disk_with_room_for_the_configuration_alone_keeps_nothing_of_a_run(tmp_path: Path, small_disk: Path) -> None:
    data = make_benchmark(tmp_path / "bench", 1)
    rows = [{**json.loads(data.read_text()), "id": f"s-{n}", "instruction": "x" * 2000} for n in range(60)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = make_config(tmp_path / "c.yaml", data)
    (small_disk / "ballast").write_bytes(bytes((1 << 20) - 60_000))
    done = launch("--config", config, "--run-dir", small_disk / "run", "--executor", "debug")
    assert done.returncode == 1
    assert "plan.jsonl: No space left on device; make room" in done.stderr
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_a_read_only_run_folder_is_one_line(small_disk: Path, undisturbed: Path) -> None:
    root = small_disk / "run"
    shutil.copytree(undisturbed, root)
    shutil.rmtree(root / "score")
    next(root.glob("edit/images/*/*.png")).unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for words in (("report", root), ("resubmit", root, "--executor", "local")):
        done = launch(*words)
        assert done.returncode == 1
        assert "Read-only file system" in done.stderr
        assert str(root) in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
    done = launch("verify", root)
    assert done.returncode == 3
    assert "24 images checked, 1 lost" in done.stdout
    assert "could not be noted" in done.stderr


def test_a_launch_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    config = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 2))
    words = [sys.executable, str(REPO / "launch.py"), "--config", str(config), "--executor", "debug"]
    done = subprocess.run(
        words, cwd="/proc", env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "--run-dir" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("executor", ["debug", "local"])
def test_whoever_reads_the_output_may_go_away(tmp_path: Path, executor: str) -> None:
    config = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 4))
    words = f"{sys.executable} launch.py --config {config} --run-dir {tmp_path}/run --executor {executor}"
    done = subprocess.run(f"{{ {words}; echo $? >&2; }} | true", shell=True, cwd=REPO, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "0", done.stderr
    assert "Traceback" not in done.stderr
    assert summary(tmp_path / "run")["counts"]["scored"] == 4


def test_a_terminal_that_lacks_a_character_stops_nothing(tmp_path: Path) -> None:
    data = make_benchmark(tmp_path / "bench", 4)
    data.write_text(data.read_text().replace('"physical"', '"物理"'))
    config = make_config(tmp_path / "c.yaml", data)
    words = ("--config", config, "--run-dir", tmp_path / "run", "--executor", "debug")
    done = launch(*words, env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert done.returncode == 0, done.stderr
    assert len(images(tmp_path / "run")) == 4


def test_a_hiccup_while_the_bars_look_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = prepare(tmp_path, "Tint", {}, count=4)
    blinks = refuses(errno.ESTALE, 3, progress.Bars._show)
    monkeypatch.setattr(progress.Bars, "_show", blinks)
    assert launch_here(open_run(root), Local(), force=False, wait=False) == 0
    assert summary(root)["counts"]["scored"] == 4


def test_a_local_run_whose_storage_fails_says_so_and_can_be_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = prepare(tmp_path, "Tint", {}, count=4)
    with monkeypatch.context() as broken:
        broken.setattr("slurm_bench.cluster.slot.reserve_manifest", refuses(errno.EIO))
        with pytest.raises(OSError, match="Input/output error"):
            launch_here(open_run(root), Local(), force=False, wait=False)
    assert all(attempt.closed for attempt in read_attempts(run_dir(root)))
    assert launch_here(open_run(root), Local(), force=False, wait=False) == 0


def finish(root: Path) -> int:
    """The job that follows the first attempt, in this process; gives its exit code."""
    with pytest.raises(SystemExit) as left:
        job.finish(str(root), "edit", 1, 90, 0)
    assert isinstance(left.value.code, int)
    return left.value.code


def test_the_job_that_follows_waits_for_its_storage(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "run"
    shutil.copytree(undisturbed, root)
    shutil.rmtree(root / "report")
    (tmp_path / "squeue").write_text("#!/bin/sh\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(job, "STORAGE_PATIENCE", (0, 0))
    monkeypatch.setattr(job, "open_run", refuses(errno.ESTALE, 2, open_run))
    assert finish(root) == 0
    assert summary(root)["counts"]["scored"] == 24
    monkeypatch.setattr(job, "open_run", refuses(errno.EIO))
    assert finish(root) == 1
    said = capsys.readouterr().err
    assert "Input/output error; the file system is in trouble" in said
    assert "Traceback" not in said


def test_a_damaged_run_is_a_line_in_the_jobs_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = prepare(tmp_path, "Tint", {}, count=2)
    (root / "plan.jsonl").write_text("")
    with pytest.raises(UserError):
        open_run(root)
    assert finish(root) == 1
    said = capsys.readouterr().err
    assert "plan.jsonl" in said
    assert "Traceback" not in said
