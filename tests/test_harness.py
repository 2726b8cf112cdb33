"""What other tests stand on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import ports
import pytest
from cluster import SlurmCluster


@pytest.mark.parametrize(
    ("handed_out", "expected"),
    [
        ("32768\t60999", range(10922, 32768)),
        ("1024\t60999", range(61000, 65536)),
        ("1024\t65535", range(1024, 65536)),
    ],
)
def test_ports_are_none_that_linux_hands_out_as_far_as_there_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handed_out: str, expected: range
) -> None:
    (tmp_path / "range").write_text(handed_out)
    monkeypatch.setattr(ports, "RANGE", tmp_path / "range")
    found = ports.free_ports(20)
    assert len(set(found)) == 20
    assert set(found) <= set(expected)


def test_a_queue_that_does_not_answer_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    answers = [
        "echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1",
        "echo 7 a RUNNING",
        "echo slurm_load_jobs error: Invalid job id specified >&2; exit 1",
    ]
    lines = [f"mkdir '{tmp_path}/{n}' 2> /dev/null && {{ {answer}; exit; }}" for n, answer in enumerate(answers)]
    (tmp_path / "squeue").write_text("\n".join(["#!/bin/sh", *lines]))
    (tmp_path / "squeue").chmod(0o755)
    cluster = SlurmCluster()
    cluster.env["PATH"] = f"{tmp_path}{os.pathsep}{cluster.env['PATH']}"
    try:
        assert cluster.squeue() == [["7", "a", "RUNNING"]]
        assert cluster.squeue("%i", "--jobs=7") == [], "what is long over"
    finally:
        shutil.rmtree(cluster.folder)
