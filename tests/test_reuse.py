"""Data that grew: a new run takes over what the old one made of the same samples by the same editor."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from helpers import images, launch, make_benchmark, make_config, run_dir
from PIL import Image
from tasks import edits, prepare, work

from slurm_bench.run.opened import open_run
from slurm_bench.run.records import read_records
from slurm_bench.run.reuse import reuse


def test_a_larger_run_edits_only_what_is_new(tmp_path: Path) -> None:
    data = make_benchmark(tmp_path / "bench", 4)
    config = make_config(tmp_path / "c.yaml", data)
    words = ("--config", config, "--executor", "debug")
    assert launch(*words, "--run-dir", tmp_path / "old").returncode == 0
    before = images(tmp_path / "old")
    make_benchmark(tmp_path / "bench", 7)
    Image.new("RGB", (48, 32), "red").save(tmp_path / "bench" / "1.png")  # another source by the same name
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows[2]["instruction"] = "something else"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = launch(*words, "--run-dir", tmp_path / "new", "--reuse", tmp_path / "old")
    assert done.returncode == 0, done.stderr
    assert "reused    2 images" in done.stdout
    made = {r["id"]: r for r in read_records(run_dir(tmp_path / "new"), "edit")}
    assert {i for i, record in made.items() if "reused" in record} == {"s-0", "s-3"}
    now = images(tmp_path / "new")
    assert len(now) == 7
    assert (now["s-0"], now["s-3"]) == (before["s-0"], before["s-3"])
    assert launch("verify", tmp_path / "new").returncode == 0


def test_data_that_grew_is_said_at_once(tmp_path: Path) -> None:
    data = make_benchmark(tmp_path / "bench", 3)
    words = ("--config", make_config(tmp_path / "c.yaml", data), "--executor", "debug", "--run-dir", tmp_path / "run")
    assert "plan" not in launch(*words).stderr
    assert "in the plan" not in launch(*words).stderr
    make_benchmark(tmp_path / "bench", 5)
    done = launch(*words)
    assert done.returncode == 0, done.stderr
    assert "5 samples in it, 3 in the plan, which is frozen: 2 new ('s-3', …);" in done.stderr
    assert f"--reuse {tmp_path / 'run'}" in done.stderr


def test_a_reference_that_was_replaced_is_said_and_makes_no_pair(tmp_path: Path) -> None:
    """The scores are by the old one, also where both runs name one file."""
    data = make_benchmark(tmp_path / "bench", 3)
    rows = [json.loads(line) | {"reference": f"{n}-ref.png"} for n, line in enumerate(data.read_text().splitlines())]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for n in range(3):
        Image.new("RGB", (48, 32), "red").save(tmp_path / "bench" / f"{n}-ref.png")
    words = ("--config", make_config(tmp_path / "c.yaml", data), "--executor", "debug")
    assert launch(*words, "--run-dir", tmp_path / "old").returncode == 0
    assert "replaced" not in launch("score", tmp_path / "old").stderr
    Image.new("RGB", (48, 32), "blue").save(tmp_path / "bench" / "1-ref.png")
    done = launch("score", tmp_path / "old")
    assert "reference or mask image of 1 scored samples ('s-1') was replaced since" in done.stderr
    assert launch(*words, "--run-dir", tmp_path / "new", "--reuse", tmp_path / "old").returncode == 0
    compared = json.loads(launch("compare", tmp_path / "old", tmp_path / "new", "--json").stdout)
    assert compared["comparisons"][0]["left_out"] == {"the reference image differs": 1}


def test_a_run_to_reuse_that_is_none_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    data = make_benchmark(tmp_path / "bench", 3)
    words = ("--config", make_config(tmp_path / "c.yaml", data), "--executor", "debug", "--run-dir", tmp_path / "run")
    assert "no such folder" in launch(*words, "--reuse", tmp_path / "nope").stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("repeats", [1, 2])
def test_data_that_say_another_thing_are_said_at_once(tmp_path: Path, repeats: int) -> None:
    """An instruction that was put right, a sample that was taken out: the run is complete, by the data of before."""
    data = make_benchmark(tmp_path / "bench", 4)
    config = make_config(tmp_path / "c.yaml", data, repeats=repeats)
    words = ("--config", config, "--executor", "debug", "--run-dir", tmp_path / "run")
    assert launch(*words).returncode == 0
    lines = data.read_text().splitlines()
    data.write_text("\n".join([lines[3], lines[0], lines[1]]) + "\n\n")
    moved = launch(*words).stderr
    assert f"{repeats} gone ('s-2'" in moved
    assert "new" not in moved.partition("frozen")[2].partition(";")[0]
    assert "changed (" not in moved, "in another order the samples are the same"
    data.write_text("\n".join([lines[0].replace("edit 0", "make it night"), *lines[1:]]))
    assert f"which is frozen: {repeats} changed ('s-0'" in launch(*words).stderr
    data.write_text("\n\n".join(lines))
    assert "in the plan" not in launch(*words).stderr, "another file that says the same"


def test_a_folder_in_which_a_text_was_changed_is_said_at_once(tmp_path: Path) -> None:
    """The folder itself is as old as it was."""
    make_benchmark(tmp_path / "bench" / "deeper", 3)
    for n in range(3):
        (tmp_path / "bench" / "deeper" / f"{n}.txt").write_text("edit")
    config = make_config(tmp_path / "c.yaml", tmp_path / "bench")
    words = ("--config", config, "data.reader=image_folder", "--executor", "debug", "--run-dir", tmp_path / "run")
    assert launch(*words).returncode == 0
    assert "in the plan" not in launch(*words).stderr
    (tmp_path / "bench" / "deeper" / "1.txt").write_text("make it night")
    assert "which is frozen: 1 changed ('deeper/1'" in launch(*words).stderr


def test_an_image_within_the_data_that_was_changed_is_said_at_once(tmp_path: Path) -> None:
    data = make_benchmark(tmp_path / "bench", 3)
    rows = [json.loads(line) for line in data.read_text().splitlines()]

    def write(*files: str) -> None:
        encoded = [base64.b64encode((tmp_path / "bench" / file).read_bytes()).decode() for file in files]
        within = [{**row, "image": f"data:image/png;base64,{text}"} for row, text in zip(rows, encoded, strict=True)]
        data.write_text("".join(json.dumps(row) + "\n" for row in within))

    write("0.png", "1.png", "2.png")
    config = make_config(tmp_path / "c.yaml", data, repeats=2)
    words = ("--config", config, "--executor", "debug", "--run-dir", tmp_path / "run")
    assert launch(*words).returncode == 0
    write("0.png", "2.png", "2.png")
    assert "which is frozen: 2 changed ('s-1', …)" in launch(*words).stderr


def test_what_another_editor_made_is_not_taken(tmp_path: Path) -> None:
    data = make_benchmark(tmp_path / "bench", 3)
    words = ("--config", make_config(tmp_path / "c.yaml", data), "--executor", "debug")
    assert launch(*words, "--run-dir", tmp_path / "old").returncode == 0
    done = launch(*words, "--run-dir", tmp_path / "new", "--reuse", tmp_path / "old", "editor.params.strength=5")
    assert "reused    0 images" in done.stdout


def test_what_lies_unrecorded_in_an_images_place_is_not_taken_for_it(tmp_path: Path) -> None:
    for name in ("old", "new"):
        prepare(tmp_path, "Tint", {}, 2, name)
    work(tmp_path / "old")
    stray = tmp_path / "new" / edits(tmp_path / "old")["s-0"]["image"]
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"of a process that was killed before its record")
    assert reuse(open_run(tmp_path / "new"), open_run(tmp_path / "old")) == 2
    assert images(tmp_path / "new") == images(tmp_path / "old")
