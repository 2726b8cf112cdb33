"""The verb bench at its tiny size, as CI can run it."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from helpers import REPO, hear_interrupts, launch, run_dir
from rich.console import Console
from tasks import prepare, work

from slurm_bench.bench import capped, machine, memory, random_qwen_image_21, readme, scoring, whole_run
from slurm_bench.bench.batches import measure_batches
from slurm_bench.bench.editing import measure_editing
from slurm_bench.bench.machine import Ceilings
from slurm_bench.bench.run import MODELS, gpu_memory
from slurm_bench.bench.so_far import tell_last
from slurm_bench.bench.table import render, render_memory, render_run
from slurm_bench.checkpoints.folder import check_pipeline_folder
from slurm_bench.editors.qwen import random_weights
from slurm_bench.editors.qwen.fit import ways_to_fit
from slurm_bench.errors import UserError
from slurm_bench.importing import import_name
from slurm_bench.kernels import fp8
from slurm_bench.machine import GIB
from slurm_bench.scorers.base import Score

needs_21 = pytest.mark.skipif(not hasattr(diffusers, "QwenImage21Pipeline"), reason="diffusers is older than 0.41")
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


def test_a_part_can_be_measured_alone() -> None:
    done = launch("bench", "--size", "tiny", "--profiles", "exact", "--parts", "batches,editing", "--json", env=NO_GPU)
    assert done.returncode == 0, done.stderr
    alone = json.loads(done.stdout)
    assert len(alone["editing"]) == 3
    assert alone["scoring"] == []
    assert {row["score_seconds"] for row in alone["forecast"]} == {None}
    assert f"exact: 3 steps in {alone['editing'][0]['seconds']:.2f} s" in done.stderr, "told when it is there"
    shown = StringIO()
    render(alone, Console(file=shown, width=200))
    assert "Scoring" not in shown.getvalue()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_what_was_measured_before_a_time_limit_is_told(number: int, code: int) -> None:
    words = ["bench", "--size", "tiny", "--profiles", "exact", "--parts", "editing", "--json"]
    with subprocess.Popen(
        [sys.executable, "launch.py", *words],
        cwd=REPO,
        env=NO_GPU,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "without the text encoder" in line:
                process.send_signal(number)
        assert process.stdout is not None
        told = json.loads(process.stdout.read())
    assert process.returncode == code
    assert told["interrupted"] is True
    assert [row["steps"] for row in told["editing"]] == [3, 2, 2]
    assert len(told["forecast"]) == 6


def test_what_was_measured_before_something_failed_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def growing(rows: int) -> Iterator[dict[str, int]]:
        for row in range(rows):
            yield {"rows": row + 1}
        raise UserError("no room")

    told: list[Any] = []
    before = signal.getsignal(signal.SIGTERM)
    for rows in (0, 2):
        with pytest.raises(UserError, match="no room"):
            tell_last(growing(rows), told.append)
    assert told == [{"rows": 2, "interrupted": True}]
    assert capsys.readouterr().err.count("ended before") == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_part_needs_a_gpu_for_itself_alone() -> None:
    edit, other = MODELS["qwen-image-edit"], MODELS["qwen-image-2.1"]
    assert gpu_memory(edit, {"editing", "scoring"}) == edit.needed
    assert gpu_memory(other, {"batches"}) == other.needed
    assert gpu_memory(edit, {"batches"}) < 16 * GIB
    assert gpu_memory(other, {"scoring"}) < other.needed


def test_the_judge_is_shown_no_picture_twice() -> None:
    """It would compute it once, and its time from files would be too short."""
    assert len(set(scoring._pictures(40, 16))) == 40


@needs_21
def test_another_model_is_measured_by_its_name() -> None:
    ceilings = Ceilings({"bf16": 1e9}, {"bf16": 1e9})
    rows = list(measure_editing("qwen-image-2.1", "tiny", "cpu", ["stock", "exact"], ceilings, False, lambda _: None))
    assert [row["profile"] for row in rows] == ["stock"] * 3 + ["exact"] * 3
    assert [row["forwards"] for row in rows] == [3, 4, 8] * 2
    for row in rows:
        assert row["error"] < 1e-4
        assert row["floor_seconds"] > 0


@needs_21
@pytest.mark.parametrize("reason", [None, "no such products"])
def test_a_gpu_has_a_ceiling_in_8_bits_where_it_has_the_products(monkeypatch: pytest.MonkeyPatch, reason: Any) -> None:
    """Whatever its compute capability: profiles in 8 bits go by the same question."""
    monkeypatch.setattr(fp8, "why_unsupported", lambda device: reason)
    a = b = torch.ones(16, 16)
    assert list(machine._products("cuda", a, b)) == (["bf16"] if reason else ["bf16", "fp8"])
    assert list(machine._products("cpu", a, b)) == ["bf16"]


@pytest.mark.parametrize("profiles", [["w8a16"], ["w8a16", "exact"]])
def test_an_approximation_is_no_yardstick(profiles: list[str]) -> None:
    ceilings = Ceilings({"bf16": 1e9}, {"bf16": 1e9})
    rows = list(measure_editing("qwen-image-edit", "tiny", "cpu", profiles, ceilings, False, lambda _: None))
    assert ["error" in row for row in rows] == [row["profile"] == "exact" for row in rows]


@needs_21
def test_batches_are_measured_where_an_editor_takes_them(results: dict) -> None:
    assert [row["batch"] for row in results["batches"]] == [1, 2]
    assert {row["editor"] for row in results["batches"]} == {"InstructPix2Pix"}
    one, two = measure_batches("qwen-image-2.1", "tiny", "cpu")
    assert (one["batch"], one["times"], two["batch"]) == (1, 1.0, 2)
    assert two["times"] == pytest.approx(two["images_per_second"] / one["images_per_second"], rel=0.01)
    render({**results, "batches": [one, two]}, console := Console(width=200, record=True, file=StringIO()))
    assert "images/s" in console.export_text()


def test_both_modes_of_the_judge_are_measured(results: dict) -> None:
    cases = [(row["mode"], row["aspects"], row["profile"]) for row in results["scoring"]]
    assert cases == [
        ("expected", 1, "exact"),
        ("expected", 4, "exact"),
        ("expected", 1, "w8a16"),
        ("generate", 1, "exact"),
    ]
    assert [row.get("times_one", 0) > 0 for row in results["scoring"]] == [False, True, False, False]
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
    assert len(readme.MARKED.findall(text)) == 4
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


def model(raw: dict[str, Any]) -> str:
    """Of the model that isn't the first."""
    named = raw.get("model", "qwen-image-edit")
    return "" if named == "qwen-image-edit" else f"-{named}"


@pytest.mark.parametrize(
    "file", [file for file in RAW if not file.name.startswith(("run-", "memory-"))], ids=lambda file: file.name
)
def test_raw_results_are_named_by_hardware_and_date(file: Path) -> None:
    raw = json.loads(file.read_text())
    named = re.escape(slug(raw["machine"]["device"]) + model(raw))
    assert re.fullmatch(rf"{named}-\d{{4}}-\d{{2}}(-\d{{2}})?(-\d)?\.json", file.name)
    assert "torch" in raw["machine"]
    assert readme.profiles(raw)


@pytest.mark.parametrize("file", [file for file in RAW if file.name.startswith("run-")], ids=lambda file: file.name)
def test_whole_runs_are_named_by_hardware_and_date(file: Path) -> None:
    raw = json.loads(file.read_text())
    by = "" if raw["executor"] == "local" else f"-{raw['executor']}"
    hardware = f"{len(raw['gpus'])}x{slug(raw['gpus'][0])}{model(raw)}{by}"
    assert re.fullmatch(rf"run-{re.escape(hardware)}(-cold)?-\d{{4}}-\d{{2}}-\d{{2}}(-\d)?\.json", file.name)
    assert "torch" in raw["versions"]
    assert raw["processes"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--size", "full"), "--size tiny"),
        (("--size", "tiny", "--profiles", "fp8"), "Hopper"),
        (("--size", "tiny", "--profiles", "exakt"), "--profiles exakt: no profile 'exakt'; there are stock, exact"),
        (("--size", "tiny", "--gpus", "0"), "--gpus"),
        (("--size", "tiny", "--model", "qwen-image-2"), "qwen-image-2.1"),
        pytest.param(("--size", "tiny", "--model", "qwen-image-2.1", "--profiles", "fast"), "exact", marks=needs_21),
        (("--run", "x", "--model", "qwen-image-2"), "qwen-image-2.1"),
        (("--size", "tiny", "--parts", "scorin"), "scoring"),
        pytest.param(
            ("--size", "tiny", "--model", "qwen-image-2.1", "--parts", "batches", "--profiles", "stock"),
            "exact",
            marks=needs_21,
        ),
        (("--memory", "22", "--parts", "scoring"), "--parts"),
        (("--memory", "22,x"), "22,30,38"),
        (("--memory", "22", "--size", "tiny"), "--checkpoints"),
        (("--memory", "22", "--checkpoints", "x"), "--size tiny"),
    ],
)
def test_what_cannot_run_here_is_one_line(words: tuple[str, ...], said: str) -> None:
    done = launch("bench", *words)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert said in line


def test_what_is_refused_has_written_no_checkpoint(tmp_path: Path) -> None:
    for profile in ("exakt", "stock"):
        words = ("--memory", "1", "--size", "tiny", "--checkpoints", tmp_path / "models", "--profiles", profile)
        done = launch("bench", *words)
        assert (done.returncode, f"--profiles {profile}" in done.stderr) == (1, True), done.stderr
        assert not (tmp_path / "models").exists()


def here(what: str, option: str, module: str, *words: Any) -> str:
    """A module in this process, in place of one for each, which would take most of its time to import."""
    return json.dumps(import_module(module).main([str(word) for word in words]))


@needs_21
def test_a_whole_run_of_another_model_edits_with_its_own_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its configuration, without the processes of a run, which are the same for any model."""
    monkeypatch.setattr(whole_run, "run_python", here)
    facts = MODELS["qwen-image-2.1"]
    whole_run.write_checkpoints("--run", tmp_path, "qwen-image-2.1", "tiny")
    editor = whole_run.configuration(tmp_path, "tiny", facts)["editor"]
    made = import_name(editor["class_path"], "editor.class_path")(**editor["params"])
    made.check()
    made.load()
    assert made.provenance()["class"] == "QwenImage21Pipeline"


def test_a_whole_run_is_measured_process_by_process(tmp_path: Path) -> None:
    done = launch("bench", "--run", tmp_path, "--size", "tiny", "--json", env=NO_GPU)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["model"] == "qwen-image-edit"
    edit, score = results["processes"]
    assert (edit["name"], score["name"]) == ("edit-001-0000-r0", "score-001-0000-r0")
    for process in (edit, score):
        assert 0 < process["begin"] < process["end"] < results["seconds"]
        for part in process["parts"]:
            assert process["begin"] <= part["begin"]
            assert part["begin"] + part["seconds"] <= process["end"] + 0.1
    assert results["failures"] == {}
    names = [{part["name"] for part in process["parts"]} for process in (edit, score)]
    assert {"load", "await transformer", "samples", "first record", "first denoise"} <= names[0]
    assert {"load", "await weights", "samples", "first record"} <= names[1]


def test_a_whole_run_tells_what_failed_before_it_came_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = prepare(tmp_path, "Tint", {"fail": ["s-1"]})
    work(root)
    found = whole_run.failures(run_dir(root))
    assert found == {"ValueError: s-1 fails always": 1}
    results = {"gpus": [], "versions": {}, "size": "tiny", "model": "x", "samples": 6, "steps": 2, "seconds": 1.0}
    render_run(results | {"executor": "local", "processes": [], "failures": found}, Console())
    assert "failed 1 × before it came right: ValueError: s-1 fails always" in capsys.readouterr().out


class Broken:
    """A judge that fails at every sample, or as a whole."""

    mode, scores = "expected", {"overall": Score(0, 10)}

    def __init__(self, fault: Exception) -> None:
        self.fault = fault

    def score(self, batch: list[Any]) -> list[Exception]:
        if isinstance(self.fault, UserError):
            raise self.fault
        return [self.fault for _ in batch]


@pytest.mark.parametrize("fault", [ValueError("the judge is broken"), UserError("the judge is broken")])
def test_a_judge_that_fails_is_told_with_its_error(tmp_path: Path, fault: Exception) -> None:
    work, samples = scoring._work(Broken(fault), tmp_path, scoring._pictures(8, 16))
    with pytest.raises((RuntimeError, UserError), match="the judge is broken"):
        scoring._through_engine(work, samples, tmp_path / "records.jsonl")
    assert logging.root.manager.disable == logging.NOTSET


def test_a_reference_that_was_cut_off_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next bench in that folder would believe it."""

    def full(tensors: Any, file: Path, facts: Any) -> None:
        file.write_bytes(b"{")
        raise OSError("no space left on device")

    monkeypatch.setattr(capped, "save_file", full)
    monkeypatch.setattr(capped, "float32_velocity", lambda *asked: torch.ones(1))
    model: Any = SimpleNamespace(inputs=lambda *asked: {"img_shapes": []}, noise=lambda velocity, inputs: velocity)
    with pytest.raises(OSError, match="no space"):
        capped._write_forward(tmp_path / "forward.safetensors", model, None, None)  # type: ignore[arg-type]
    assert not (tmp_path / "forward.safetensors").exists()


@pytest.mark.parametrize("model", ["qwen-image-edit", pytest.param("qwen-image-2.1", marks=needs_21)])
def test_an_edit_under_caps_of_memory_is_a_row_of_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    for module in (random_weights, random_qwen_image_21):
        monkeypatch.setitem(module.SIZES["tiny"]["transformer"], "num_layers", 4)
    monkeypatch.setattr(memory, "run_python", here)
    monkeypatch.setattr(whole_run, "run_python", here)
    whole_run.write_checkpoints("--checkpoints", tmp_path, model, "tiny")
    facts = MODELS[model]
    folder = check_pipeline_folder(tmp_path / "tiny" / facts.folder)
    settings = import_name(facts.class_path, "editor.class_path")("x", dtype="float32").settings
    *_, leanest = ways_to_fit(folder, settings, facts.family.profiles["exact"])
    caps = f"{(leanest.needed + 1) / GIB!r},1"
    *_, results = memory.measure_memory(model, "tiny", caps, ["exact"], tmp_path)
    whole, capped, refused = results["rows"]
    assert (whole["savings"], whole["times"], whole["same"]) == ([], 1, None)
    assert capped["savings"] == list(leanest.settings.savings)
    assert "stream_blocks=4" in capped["savings"]
    assert capped["same"] is True
    assert capped["error"] == whole["error"] < 1e-4
    assert "GiB" in refused["failed"]
    render_memory(results, console := Console(width=300, record=True, file=StringIO()))
    said = console.export_text()
    assert "text_first" in said
    assert "a GPU of that size" in said
