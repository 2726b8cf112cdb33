"""An image that is gone, or isn't what was recorded, is said, counted and made again (law 15)."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import assert_whole, attempts, launch, rows, run_dir, summary
from tasks import edits, heal, prepare, work

from slurm_bench.cluster.chain import look
from slurm_bench.run.attempts import close, read_attempts
from slurm_bench.run.images import find_gone
from slurm_bench.run.opened import open_run


def delete(image: Path) -> None:
    image.unlink()


def empty(image: Path) -> None:
    image.write_bytes(b"")


def overwrite(image: Path) -> None:
    """As a process that was thought dead might: another image, of the same size on disk."""
    data = bytearray(image.read_bytes())
    data[-20] ^= 1
    image.write_bytes(data)


def edited(tmp_path: Path) -> Path:
    """A run that has its images and no scores."""
    root = prepare(tmp_path, "Tint", {}, retries=0)
    work(root)
    close(run_dir(root), read_attempts(run_dir(root))[0])
    return root


@pytest.mark.parametrize("harm", [delete, empty, overwrite])
def test_a_lost_image_is_made_again(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    root = prepare(tmp_path, "Tint", {})
    heal(root)
    shutil.copytree(root, tmp_path / "undisturbed")
    victim = root / edits(root)["s-2"]["image"]
    harm(victim)
    checked = launch("verify", root, "--json")
    assert checked.returncode == 3
    found = json.loads(checked.stdout)
    assert found["checked"] == 6
    assert list(found["lost"]) == ["s-2"]
    assert (found["run"], found["next"].endswith(f"resubmit {root}")) == (str(root), True)
    again = launch("verify", root)
    assert again.returncode == 3, "it isn't made again yet"
    assert "5 images checked, 1 lost" in again.stdout
    launch("report", root)
    (row,) = [row for row in rows(root) if row["status"] == "error"]
    assert (row["id"], "lost" in row["error"]) == ("s-2", True)
    assert heal(root) == 0
    assert attempts(root)[-1]["samples"] == ["s-2"]
    assert_whole(root, tmp_path / "undisturbed")
    assert launch("verify", root).returncode == 0


def test_records_of_somebody_else_have_what_every_record_has_and_count_as_ours(tmp_path: Path) -> None:
    """No time, no size, and of a score neither its scorer's name nor its image's sha256."""
    root = prepare(tmp_path, "Tint", {})
    heal(root)
    every = {"id", "status", "seconds", "attempt", "task", "host", "by"}
    edit = every | {"source_sha256", "image", "sha256", "width", "height", "seed"}
    for stage, names in (("edit", edit), ("score", every | {"scores", "raw", "parse"})):
        for file in run_dir(root).records(stage).iterdir():
            lines = [{k: v for k, v in json.loads(line).items() if k in names} for line in file.open()]
            file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert launch("report", root).returncode == 0
    assert summary(root)["counts"]["scored"] == 6
    shutil.copytree(root, tmp_path / "undisturbed")
    delete(root / edits(root)["s-2"]["image"])
    assert heal(root) == 0
    assert attempts(root)[-1]["samples"] == ["s-2"]
    assert_whole(root, tmp_path / "undisturbed")


@pytest.mark.parametrize("verified", [True, False])
def test_an_image_that_two_tasks_recorded_is_lost_for_both(tmp_path: Path, verified: bool) -> None:
    """By a claim that was deleted, say. The other's record would pass for an image, and where it was overwritten and
    not deleted, until somebody verifies again."""
    root = edited(tmp_path)
    record = edits(root)["s-2"]
    twice = {**record, "time": record["time"] - 1, "task": 1}
    run_dir(root).manifest("edit", 1, 1, 0).write_text(json.dumps(twice) + "\n")
    (overwrite if verified else delete)(root / record["image"])
    if verified:
        assert "6 images checked, 1 lost" in launch("verify", root).stdout
        assert open_run(root).state().to_edit() == ["s-2"]
    assert heal(root) == 0
    assert attempts(root)[1]["samples"] == ["s-2"]
    assert launch("verify", root).returncode == 0


def test_a_lost_image_is_made_again_where_the_attempts_are_deleted(tmp_path: Path) -> None:
    """Whoever did it then is nobody's own task."""
    root = edited(tmp_path)
    shutil.rmtree(root / "attempts")
    delete(root / edits(root)["s-2"]["image"])
    assert heal(root) == 0


@pytest.mark.parametrize("harm", [delete, empty])
def test_the_chain_sees_by_itself_that_an_image_is_gone(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    root = edited(tmp_path)
    harm(root / edits(root)["s-2"]["image"])
    assert heal(root) == 0
    assert summary(root)["counts"]["scored"] == 6


def test_what_was_written_over_an_image_since_is_read(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    heal(root)
    shutil.copytree(root, tmp_path / "undisturbed")
    for sample_id, harm in (("s-2", overwrite), ("s-3", Path.touch)):
        image = root / edits(root)[sample_id]["image"]
        harm(image)
        os.utime(image, (later := time.time() + 60, later))
    assert heal(root) == 0
    assert attempts(root)[-1]["samples"] == ["s-2"], "the other has the same bytes"
    assert_whole(root, tmp_path / "undisturbed")


def test_what_goes_while_a_folder_is_looked_at_says_nothing_of_its_images(tmp_path: Path) -> None:
    """As a task's temporary file does, of an image that it is about to record. A link to nothing stands for it."""
    root = edited(tmp_path)
    for record in edits(root).values():
        (root / record["image"]).with_name(".another.png.tmp").symlink_to("nowhere")
    assert look(open_run(root)).to_edit() == []


def test_an_empty_image_is_lost_also_where_its_record_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    record = {"id": "a", "image": "a.png", "sha256": "0"}
    assert "a.png is empty" in find_gone(run_dir(tmp_path), [record])["a"]
    (tmp_path / "a.png").write_bytes(b"x")
    assert "another sha256" in find_gone(run_dir(tmp_path), [record])["a"]


def test_scoring_sees_that_an_image_was_overwritten(tmp_path: Path) -> None:
    root = edited(tmp_path)
    overwrite(root / edits(root)["s-2"]["image"])
    assert heal(root) == 0
    assert summary(root)["counts"]["scored"] == 6
    assert open_run(root).state().edits["s-2"].ok["attempt"] == 2  # type: ignore[index]
