"""`plan` shows what `run` would do, refuses what it would refuse, and changes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from cluster import SlurmCluster
from helpers import REPO, launch, make_benchmark, make_config

from slurm_bench.cluster.forecast import known_to_us, paces, told_by
from slurm_bench.config import load_config
from slurm_bench.errors import UserError


def tree(*folders: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and time."""
    found = [path for folder in folders for path in (folder, *folder.rglob("*")) if path.exists()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def test_slices_categories_disk_and_forecast_and_nothing_is_written(tmp_path: Path, finished_run: str) -> None:
    config = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 12), gpus=3)
    before = tree(tmp_path, Path(finished_run), REPO / "runs")
    done = launch("plan", "--config", config, "--executor", "local", "--like", finished_run)
    assert done.returncode == 0, done.stderr
    for expected in ("edit-001  12 of 12", "idx % 3", "task 2: 4 samples, indices 2, 5, 8, 11", "physical: 3"):
        assert expected in done.stdout
    assert "task-hours" in done.stdout
    assert "GPU" not in done.stdout, "no task has one here"
    assert f"GiB of images (as in {finished_run}" in done.stdout
    again = launch("plan", "--run-dir", finished_run, "--executor", "local")
    assert "nothing is missing" in again.stdout, again.stderr
    assert tree(tmp_path, Path(finished_run), REPO / "runs") == before


def test_images_within_the_data_are_not_unpacked(tmp_path: Path) -> None:
    done = launch("plan", "--config", "demo.yaml", "--run-dir", tmp_path / "run", "--executor", "local")
    assert done.returncode == 0, done.stderr
    assert "25 of 25 samples" in done.stdout
    assert not (tmp_path / "run").exists()


def test_what_a_plug_in_prints_is_not_in_the_document(tmp_path: Path) -> None:
    (tmp_path / "talkative.py").write_text("print('welcome')\nfrom tests.plugins import Tint\n")
    config = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 1))
    words = ("plan", "--config", config, "--executor", "local", "editor.class_path=talkative.Tint", "--json")
    done = launch(*words, env={**os.environ, "PYTHONPATH": f"{REPO}{os.pathsep}{tmp_path}"})
    assert json.loads(done.stdout)["planned"] == 1
    assert "welcome" in done.stderr


def test_files_that_are_absent_alike_are_one_line(tmp_path: Path) -> None:
    data = make_benchmark(tmp_path / "bench", 14)
    for n in range(12):
        (tmp_path / "bench" / f"{n}.png").unlink()
    (tmp_path / "bench" / "12.png").write_bytes(b"")
    done = launch("plan", "--config", make_config(tmp_path / "c.yaml", data), "--executor", "local")
    assert done.returncode == 0
    absent, empty = done.stderr.splitlines()
    assert "12 samples ('s-0', 's-1', " in absent
    assert absent.endswith(
        ": each will fail unless its file is put right: source: " + str(tmp_path / "bench" / "0.png: no such file")
    )
    assert "sample 's-12' will fail unless" in empty


def test_the_same_for_programs(tmp_path: Path, finished_run: str) -> None:
    """One document, and nothing else, on stdout; what will fail is told there and on stderr."""
    data = make_benchmark(tmp_path / "bench", 12)
    (tmp_path / "bench" / "5.png").write_bytes(b"no picture")
    scorers = {"judge": {"class_path": "tests.plugins.ByRubric"}}
    config = make_config(tmp_path / "c.yaml", data, gpus=3, scorers=scorers)
    before = tree(tmp_path, Path(finished_run), REPO / "runs")
    words = ("plan", "--config", config, "--executor", "local", "--like", finished_run)
    done, told = launch(*words, "--json"), launch(*words)
    assert (done.returncode, tree(tmp_path, Path(finished_run), REPO / "runs")) == (0, before), done.stderr
    found = json.loads(done.stdout)
    assert (found["attempt"], found["samples"], found["planned"]) == ("edit-001", 12, 12)
    assert found["categories"] == {"causal": 2, "environmental": 3, "physical": 3, "referential": 2, "social": 2}
    assert [row["indices"] for row in found["slices"]] == [[task, task + 3, task + 6, task + 9] for task in range(3)]
    assert found["slices"][1]["ids"] == ["s-1", "s-4", "s-7", "s-10"]
    rubrics = found["rubrics"]["judge"]
    assert (rubrics["by_category"]["physical"], rubrics["by_category"]["social"]) == ("physical", "default")
    assert [f"rubrics   judge: {doubt}" in told.stdout for doubt in rubrics["doubts"]] == [True]
    assert [f"{id!r} {problem}" in done.stderr for id, problem in found["problems"].items()] == [True]
    edit = found["forecast"]["stages"]["edit"]
    assert f"edit: 12 samples at {edit['seconds_a_sample']:.3g} s" in told.stdout
    assert edit["work"] == pytest.approx(12 * edit["seconds_a_sample"] + 3 * edit["seconds_before_the_first"])
    assert found["disk"]["needed"] < found["disk"]["free"]
    assert (found["scripts"], found["start"], found["reuse"]) == ({}, None, None)
    again = json.loads(launch("plan", "--run-dir", finished_run, "--executor", "local", "--json").stdout)
    assert (again["attempt"], again["planned"], again["start"]) == (None, 24, None)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("editor.class_path=tests.plugins.Tnt", "Tint"),
        ("data.path=/nowhere.jsonl", "/nowhere.jsonl"),
        ("gpuss=3", "gpus"),
        ("editor.params.strength=2", "another configuration"),
    ],
)
def test_what_run_refuses_is_refused(tmp_path: Path, undisturbed: Path, bench: Path, word: str, said: str) -> None:
    config = make_config(tmp_path / "c.yaml", bench, gpus=1)
    where = undisturbed if "strength" in word else tmp_path / "run"
    done = launch("plan", "--config", config, "--run-dir", where, "--executor", "local", word)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_both_scripts_as_they_would_be_and_slurms_word_on_them(slurm: SlurmCluster, tmp_path: Path) -> None:
    config = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 12))
    words = ["--config", config, "--run-dir", tmp_path / "run", "--partition", "h100", "--gpus", 3, "--time", "7"]
    before = tree(tmp_path, REPO / "runs")
    planned = launch("plan", *words, "score_slurm.comment=judge", env=slurm.env)
    assert planned.returncode == 0, planned.stderr
    assert tree(tmp_path, REPO / "runs") == before
    assert slurm.squeue() == []
    assert "to start at" in planned.stdout
    found = json.loads(launch("plan", *words, "score_slurm.comment=judge", "--json", env=slurm.env).stdout)
    assert all(f"---- {name} ----\n{text.rstrip()}" in planned.stdout for name, text in found["scripts"].items())
    assert (list(found["scripts"]), found["gpus"], found["at_once"]) == (["array", "finish"], 8, 3)
    assert " ".join(found["standby"]) in planned.stdout
    assert f"to start at {found['start']['at']}" in found["start"]["said"]
    refused = launch("plan", *words, "slurm.partition=nowhere", env=slurm.env)
    assert refused.returncode == 1
    assert "invalid partition" in refused.stderr
    for_programs = launch("plan", *words, "slurm.partition=nowhere", "--json", env=slurm.env)
    assert (for_programs.returncode, for_programs.stdout, for_programs.stderr) == (1, "", refused.stderr)

    assert launch(*words, "score_slurm.comment=judge", env=slurm.env).returncode == 0
    scripts = sorted((tmp_path / "run" / "logs" / "submitit").glob("*_submission.sh"))
    real = [script.read_text() for script in scripts if not script.is_symlink()]
    array, finish = (
        planned.stdout.split("---- array ----\n")[1].split("\n---- standby")[0].split("\n---- finish ----\n")
    )
    assert array.strip() in [text.strip() for text in real]
    known = [line for line in finish.strip().splitlines() if "--dependency" not in line]
    assert any(all(line in text for line in known) for text in real)
    assert subprocess.run(["bash", "-n"], input=array, text=True).returncode == 0


def test_more_tasks_than_gpus_and_more_arrays_than_a_person_reads(slurm: SlurmCluster, tmp_path: Path) -> None:
    config = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 129))
    words = ("plan", "--config", config, "--run-dir", tmp_path / "run", "--partition", "h100")
    told = launch(*words, "--gpus", 129, env=slurm.env).stdout
    assert "nodes     those that fit have 8 GPUs, so that no more than 8 tasks work at once" in told
    assert "tasks 8 to 127: 1 samples each" in told
    assert [line for line in told.splitlines() if line.startswith("---- ")][:3] == [
        "---- array 1 of 17 ----",
        "---- finish ----",
        "---- the other arrays, 16 of them: as the first ----",
    ]
    assert "--time" not in told, "nobody asked for any"
    assert "have 4 GPUs" in launch(*words, "--gpus", 5, "--exclude", "n[1,7-9]", env=slurm.env).stdout
    assert "nodes   " not in launch(*words, "--gpus", 4, "--nodelist", "n1", env=slurm.env).stdout


def test_an_earlier_run_with_the_same_plugins_tells_the_time(tmp_path: Path, finished_run: str) -> None:
    """Found by itself beside the new run; of a stage that nobody has done, it says how to know."""
    runs, config = tmp_path / "runs", make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 12), gpus=3)
    words = ("plan", "--config", config, "--run-dir", runs / "new", "--executor", "local")
    alone = launch(*words)
    assert "forecast  edit and score: not known; no run in" in alone.stdout, alone.stderr
    assert "data.limit=12" in alone.stdout
    (runs / "stray").mkdir(parents=True)
    (runs / "stray" / "config.yaml").write_text("{")
    shutil.copytree(finished_run, runs / "old")
    found = launch(*words)
    assert re.search(
        r"forecast  edit: 12 samples at .* before the first one on each of 3: .*; as in .*/old", found.stdout
    )
    assert "forecast  in all" in found.stdout
    other = launch(*words, "editor.params.strength=2")
    assert "forecast  edit: not known" in other.stdout
    assert "forecast  score: 12 samples" in other.stdout


def test_images_to_be_taken_over_are_no_work(tmp_path: Path, undisturbed: Path, bench: Path) -> None:
    grown = make_benchmark(tmp_path / "bench", 30)
    words = ("--run-dir", tmp_path / "run", "--executor", "debug", "--reuse", undisturbed)
    config = make_config(tmp_path / "c.yaml", grown, gpus=2)
    planned = launch("plan", "--config", config, *words)
    assert "reuse     24 images of" in planned.stdout, planned.stderr
    assert "edit-001  6 of 30 samples" in planned.stdout
    assert "indices 24, 26, 28" in planned.stdout
    same = launch("plan", "--config", make_config(tmp_path / "same.yaml", bench, gpus=2), *words)
    assert "score-001  24 of 24 samples" in same.stdout, same.stderr
    assert "GiB of images" not in same.stdout
    assert not (tmp_path / "run").exists()
    done = launch("--config", config, *words)
    assert "reused    24 images" in done.stdout, done.stderr


QWEN = {
    "editor": {"class_path": "slurm_bench.editors.qwen.QwenImageEditor", "params": {"model_name": "somewhere"}},
    "scorers": {
        "judge": {
            "class_path": "slurm_bench.scorers.qwen3vl.Qwen3VLScorer",
            "params": {"model_name": "elsewhere", "aspects": ["overall", "quality"]},
        }
    },
}
FIGURES = {
    "machine": {"device": "H100"},
    "editing": [
        {"profile": "fp8", "steps": 10, "guidance": True, "seconds": 5.0},
        {"profile": "fp8", "steps": 50, "guidance": True, "seconds": 21.0},
        {"profile": "fp8", "steps": 4, "guidance": False, "seconds": 1.0},
        {"profile": "fast", "steps": 50, "guidance": True, "seconds": 9.0},
    ],
    "scoring": [
        {"mode": "generate", "ms_from_files": 1000.0},
        {"mode": "expected", "ms_from_files": 80.0},
        {"mode": "expected", "aspects": 4, "ms_from_files": 110.0},
        {"mode": "expected", "profile": "w8a16", "ms_from_files": 90.0},
    ],
}


@pytest.mark.parametrize(
    ("params", "seconds"),
    [
        ({"profile": "fp8", "num_inference_steps": 50}, 21.0),
        ({"profile": "fp8", "num_inference_steps": 30}, 13.0),
        ({"profile": "fp8", "num_inference_steps": 4, "true_cfg_scale": 1.0}, 1.0),
        ({"profile": "fp8", "num_inference_steps": 8, "true_cfg_scale": 1.0}, None),
        ({"profile": "fast", "num_inference_steps": 28}, None),
        ({"profile": "stock"}, None),
        ({"profile": "fp8", "num_inference_steps": 50, "max_pixels": 512 * 512}, None),
        ({"profile": "stock", "device": "cpu"}, None),
    ],
)
def test_the_benchs_figures_tell_the_time_of_what_was_measured(
    tmp_path: Path, params: dict[str, Any], seconds: float | None
) -> None:
    figures, config = tmp_path / "figures.json", tmp_path / "c.yaml"
    figures.write_text(json.dumps(FIGURES))
    config.write_text(json.dumps({**QWEN, "editor": {**QWEN["editor"], "params": {"model_name": "x", **params}}}))
    told, loaded = told_by(figures), load_config(config)
    edit, score = told.pace(loaded, "edit"), told.pace(loaded, "score")
    assert (edit and edit.seconds) == (pytest.approx(seconds) if seconds else None)
    assert score is not None
    assert score.seconds == pytest.approx(0.09), "two aspects"
    assert "H100" in score.source


def test_figures_of_one_model_do_not_tell_of_another(tmp_path: Path) -> None:
    figures, config = tmp_path / "figures.json", tmp_path / "c.yaml"
    figures.write_text(json.dumps({**FIGURES, "model": "qwen-image-2.1", "scoring": FIGURES["scoring"][1:2]}))

    def paces_by(editor: str, **params: Any) -> list[float | None]:
        told = {"class_path": f"slurm_bench.editors.{editor}", "params": {"model_name": "x", **params}}
        config.write_text(json.dumps({**QWEN, "editor": told}))
        known = [told_by(figures).pace(load_config(config), stage) for stage in ("edit", "score")]
        return [pace and pace.seconds for pace in known]

    fp8: dict[str, Any] = {"profile": "fp8", "num_inference_steps": 50}
    assert paces_by("qwen.QwenImageEditor", **fp8)[0] is None
    assert paces_by("qwen21.QwenImage21Editor", **fp8, true_cfg_scale=4.0)[0] == 21
    turbo = paces_by("qwen21.QwenImage21Editor", profile="fp8", scheduler="turbo")
    assert turbo == [None, pytest.approx(0.16)], "of one number of steps, or of aspects, there is no line"


def test_the_kept_figures_tell_the_time_on_a_cluster_alone(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    params = {"model_name": "x", "profile": "fp8", "num_inference_steps": 50}
    config.write_text(json.dumps({**QWEN, "editor": {**QWEN["editor"], "params": params}}))
    loaded = load_config(config)
    known = paces(loaded, known_to_us(loaded, tmp_path / "run", on_cluster=True), ("edit", "score"))
    assert all("the bench on NVIDIA H" in pace.source for pace in known.values())
    assert paces(loaded, known_to_us(loaded, tmp_path / "run", on_cluster=False), ("edit", "score")) == {}


ODD_FIGURES = [
    *({"editing": [{**FIGURES["editing"][0], **odd}]} for odd in ({"seconds": None}, {"steps": [10]}, {"steps": "10"})),
    *({"scoring": [{**FIGURES["scoring"][1], **odd}]} for odd in ({"aspects": 0}, {"ms_from_files": "80 ms"})),
    {"editing": [5]},
    {"model": ["qwen-image-2.1"]},
    {"size": "tiny"},
]


@pytest.mark.parametrize("text", ["{", "[]", "\xff", *(json.dumps({**FIGURES, **odd}) for odd in ODD_FIGURES)])
def test_what_is_no_figures_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "figures.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="bench --json"):
        told_by(file)


def test_a_record_that_tells_no_seconds_counts_as_none_of_them(tmp_path: Path, finished_run: str) -> None:
    """Nor one without its bytes: in a mean a zero is a number."""
    old = tmp_path / "old"
    shutil.copytree(finished_run, old)
    shutil.rmtree(old / "logs")
    config = load_config(old / "config.yaml")
    for told in (60, None):
        for file in (old / "edit" / "records").glob("*.jsonl"):
            records = [json.loads(line) for line in file.read_text().splitlines()]
            for n, record in enumerate(records):
                record.pop("info", None)
                record |= {"seconds": told, "bytes": 7}
                for name in ("seconds", "bytes") if n or told is None else ():
                    del record[name]
            file.write_text("".join(json.dumps(record) + "\n" for record in records))
        pace = told_by(old).pace(config, "edit")
        assert (pace and (pace.seconds, pace.image_bytes)) == (told and (60, 7))


def test_a_task_that_needs_more_than_its_time_is_told(slurm: SlurmCluster, tmp_path: Path, finished_run: str) -> None:
    """By a run whose logs are gone, and whose records say a minute a sample."""
    old, config = tmp_path / "old", make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 12))
    shutil.copytree(finished_run, old)
    shutil.rmtree(old / "logs")
    for file in (old / "edit" / "records").glob("*.jsonl"):
        file.write_text(re.sub(r'"seconds": ?[0-9.]+', '"seconds": 60', file.read_text()))
    words = ["plan", "--config", config, "--run-dir", tmp_path / "run", "--gpus", 3, "--like", old]
    told = launch(*words, "slurm.array_parallelism=2", "--time", "00:03:59", env=slurm.env).stdout
    assert "forecast  edit: 12 samples at 60 s: 0.20 GPU-hours, 8 min; as in" in told, "two rounds of four samples"
    assert "time      a task of edit takes about 4 min, its limit is 4 min" in told
    assert "time  " not in launch(*words, "--time", "0-1", env=slurm.env).stdout


def test_what_sbatch_is_told_makes_no_forecast_for_this_machine(tmp_path: Path, finished_run: str) -> None:
    data = make_benchmark(tmp_path / "bench", 12)
    walls = []
    for more in ({}, {"array_parallelism": 1}, {"array-parallelism": "two"}):
        config = make_config(tmp_path / "c.yaml", data, gpus=3, executor="local", slurm=more)
        done = launch("plan", "--config", config, "--like", finished_run, "--json")
        assert done.returncode == 0, done.stderr
        walls.append(json.loads(done.stdout)["forecast"]["stages"]["edit"]["wall"])
    assert len(set(walls)) == 1


def test_a_folder_that_may_not_be_listed_has_no_runs_to_tell_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a cluster's /scratch may be, in which everybody has a folder."""
    config = load_config(make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 1)))
    monkeypatch.setattr("pathlib.Path.iterdir", Mock(side_effect=PermissionError))
    assert list(known_to_us(config, tmp_path / "run", on_cluster=False)) == []
