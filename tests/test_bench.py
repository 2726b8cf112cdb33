"""The verb bench at its tiny size, as CI can run it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import diffusers
import pytest
import torch
from helpers import REPO, launch

from slurm_bench.bench import readme
from slurm_bench.bench.editing import measure_editing
from slurm_bench.bench.machine import Ceilings

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


@pytest.mark.skipif(not hasattr(diffusers, "QwenImage21Pipeline"), reason="diffusers is older than 0.42")
def test_another_model_is_measured_by_its_name() -> None:
    ceilings = Ceilings({"bf16": 1e9}, {"bf16": 1e9})
    rows = measure_editing("qwen-image-2.1", "tiny", "cpu", ["stock", "exact"], ceilings, False, lambda _: None)
    assert [row["profile"] for row in rows] == ["stock"] * 3 + ["exact"] * 3
    assert [row["forwards"] for row in rows] == [3, 4, 8] * 2
    for row in rows:
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


def test_the_readmes_tables_can_be_made_of_it(results: dict) -> None:
    head, *body = readme.profiles(results)
    assert [row[0] for row in body] == ["`stock`", "`exact`"]
    assert head[1:4] == ["3 steps, guidance", "2 steps, guidance", "2 steps, no guidance"]
    assert all(float(cell) > 0 for row in body for cell in row[1:4])


def test_the_readme_says_what_the_raw_results_say() -> None:
    text = (REPO / "README.md").read_text("utf-8")
    assert len(readme.MARKED.findall(text)) == 2
    assert readme.filled(text, REPO) == text


def test_a_table_follows_its_file(tmp_path: Path) -> None:
    (file,) = (REPO / "docs" / "benchmarks").glob("h100-80gb-hbm3-2026-11.json")
    raw = json.loads(file.read_text())
    raw["editing"][0]["seconds"] = 77.7
    (tmp_path / "new.json").write_text(json.dumps(raw))
    said = readme.filled("a\n<!-- bench: profiles of new.json -->\nold\n<!-- /bench -->\nz\n", tmp_path)
    assert said.startswith("a\n<!-- bench")
    assert said.endswith("<!-- /bench -->\nz\n")
    assert "| `stock` | 77.7 |" in said
    assert "old" not in said


RAW = sorted((REPO / "docs" / "benchmarks").glob("*.json"))


def slug(device: str) -> str:
    return device.removeprefix("NVIDIA ").lower().replace(" ", "-")


@pytest.mark.parametrize("file", [file for file in RAW if not file.name.startswith("run-")], ids=lambda file: file.name)
def test_raw_results_are_named_by_hardware_and_date(file: Path) -> None:
    raw = json.loads(file.read_text())
    assert re.fullmatch(rf"{re.escape(slug(raw['machine']['device']))}-\d{{4}}-\d{{2}}(-\d{{2}})?\.json", file.name)
    assert "torch" in raw["machine"]
    assert readme.profiles(raw)


@pytest.mark.parametrize("file", [file for file in RAW if file.name.startswith("run-")], ids=lambda file: file.name)
def test_whole_runs_are_named_by_hardware_and_date(file: Path) -> None:
    raw = json.loads(file.read_text())
    hardware = f"{len(raw['gpus'])}x{slug(raw['gpus'][0])}"
    assert re.fullmatch(rf"run-{re.escape(hardware)}-\d{{4}}-\d{{2}}-\d{{2}}\.json", file.name)
    assert "torch" in raw["versions"]
    assert raw["processes"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--size", "full"), "--size tiny"),
        (("--size", "tiny", "--profiles", "fp8"), "Hopper"),
        (("--size", "tiny", "--profiles", "exakt"), "exact"),
        (("--size", "tiny", "--gpus", "0"), "--gpus"),
        (("--size", "tiny", "--model", "qwen-image-2"), "qwen-image-2.1"),
        (("--size", "tiny", "--model", "qwen-image-2.1", "--profiles", "fast"), "exact"),
        (("--run", "x", "--model", "qwen-image-2.1"), "--run"),
    ],
)
def test_what_cannot_run_here_is_one_line(words: tuple[str, ...], said: str) -> None:
    done = launch("bench", *words)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert said in line


def test_a_whole_run_is_measured_process_by_process(tmp_path: Path) -> None:
    done = launch("bench", "--run", tmp_path, "--size", "tiny", "--json", env=NO_GPU)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    edit, score = results["processes"]
    assert (edit["name"], score["name"]) == ("edit-001-0000-r0", "score-001-0000-r0")
    for process in (edit, score):
        assert 0 < process["begin"] < process["end"] < results["seconds"]
        for part in process["parts"]:
            assert process["begin"] <= part["begin"]
            assert part["begin"] + part["seconds"] <= process["end"] + 0.1
    names = [{part["name"] for part in process["parts"]} for process in (edit, score)]
    assert {"load", "await transformer", "samples", "first record", "first denoise"} <= names[0]
    assert {"load", "await weights", "samples", "first record"} <= names[1]
