"""The verb bench at its tiny size, as CI can run it."""

from __future__ import annotations

import json
import os

import pytest
import torch
from helpers import launch

NO_GPU = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def results() -> dict:
    done = launch("bench", "--size", "tiny", "--profiles", "exact,stock", "--gpus", 4, "--json", env=NO_GPU)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_each_profile_is_measured_on_each_schedule(results: dict) -> None:
    rows = results["editing"]
    assert [row["profile"] for row in rows] == ["stock"] * 3 + ["exact"] * 3
    for row in rows:
        assert row["forwards"] == row["steps"] * (2 if row["guidance"] else 1)
        assert row["seconds"] > row["parts"]["denoise"] > 0
        assert row["error"] < 1e-4
        assert row["floor_seconds"] > 0


def test_both_modes_of_the_judge_are_measured(results: dict) -> None:
    assert [row["mode"] for row in results["scoring"]] == ["expected", "generate"]
    for row in results["scoring"]:
        assert row["ms_model_alone"] > 0
        assert row["ms_from_files"] > 0


def test_a_forecast_is_the_slowest_task_and_then_the_scores(results: dict) -> None:
    row, found = results["editing"][0], results["forecast"][0]
    assert (found["samples"], found["gpus"], found["profile"]) == (270, 4, "stock")
    assert found["edit_seconds"] == round(68 * row["seconds"])
    assert found["score_seconds"] == round(270 * results["scoring"][0]["ms_from_files"] / 1000)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--size", "full"), "--size tiny"),
        (("--size", "tiny", "--profiles", "fp8"), "Hopper"),
        (("--size", "tiny", "--profiles", "exakt"), "exact"),
        (("--size", "tiny", "--gpus", "0"), "--gpus"),
    ],
)
def test_what_cannot_run_here_is_one_line(words: tuple[str, ...], said: str) -> None:
    done = launch("bench", *words)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert said in line
