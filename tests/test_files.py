"""Files that a parameter names: found where they were meant, known by what is in them, and not changed unseen."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from helpers import make_benchmark, rows
from tasks import work

from slurm_bench.cli import main
from slurm_bench.config import load_config
from slurm_bench.data import read_items
from slurm_bench.errors import UserError
from slurm_bench.plugins import check_plugins, with_absolute_paths
from slurm_bench.run.create import create_run, store
from slurm_bench.run.opened import Run, open_run

PLUGINS = """
import hashlib
from pathlib import Path


class Marks:
    def __init__(self, marks: Path, other: Path | None = None):
        self.text = marks.read_text()

    def provenance(self):
        return {"marks_sha256": hashlib.sha256(self.text.encode()).hexdigest()}

    def score(self, batch):
        return [{"overall": float(self.text)} for _ in batch]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project: a configuration that names a file beside it, and data; not the folder that one types in."""
    folder = tmp_path / "project"
    data = make_benchmark(folder / "bench", 3)
    (tmp_path / "file_plugins.py").write_text(PLUGINS)
    (folder / "marks.txt").write_text("5")
    said = {
        "data": {"reader": "jsonl", "path": str(data)},
        "editor": {"class_path": "tests.plugins.Tint"},
        "scorers": {"judge": {"class_path": "file_plugins.Marks", "params": {"marks": "marks.txt"}}},
        "executor": "debug",
    }
    (folder / "c.yaml").write_text(json.dumps(said))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def planned(folder: Path, *words: str, name: str = "run", force: bool = False) -> Run:
    config = with_absolute_paths(load_config(folder / "c.yaml", words), folder / "c.yaml")
    models = check_plugins(config).said
    run = create_run(folder / name, config, lambda: read_items(config.data), models, force)
    store(run)
    return run


def test_a_path_is_of_the_folder_one_types_in_or_of_the_configuration(folder: Path) -> None:
    root = folder / "run"
    assert main(["--config", str(folder / "c.yaml"), "--run-dir", str(root)]) == 0
    params = open_run(root).config.scorers["judge"].params
    assert params == {"marks": str(folder / "marks.txt")}, "a job runs elsewhere"
    Path("marks.txt").write_text("7")
    assert main(["score", str(root), "scorers.judge.params.marks=marks.txt"]) == 0
    assert open_run(root).config.scorers["judge"].params == {"marks": str(Path.cwd() / "marks.txt")}
    assert {row["overall"] for row in rows(root)} == {"7.0"}


def test_the_same_file_in_another_place_is_no_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = planned(folder)
    work(folder / "run")
    work(folder / "run", "score")
    moved = shutil.copy(folder / "marks.txt", folder / "moved.txt")
    second = planned(folder, f"scorers.judge.params.marks={moved}", name="other")
    assert second.by == first.by
    for stage in ("edit", "score"):
        work(folder / "other", stage)
    assert main(["compare", str(folder / "run"), str(folder / "other")]) == 0
    assert "differs" not in capsys.readouterr().out
    (folder / "marks.txt").unlink()
    went_on = planned(folder, f"scorers.judge.params.marks={moved}")
    assert (went_on.by, went_on.config.scorers["judge"].params) == (first.by, {"marks": str(moved)})
    moved.write_text("6")
    with pytest.raises(UserError, match="marks_sha256"):
        planned(folder, f"scorers.judge.params.marks={moved}")
    assert planned(folder, f"scorers.judge.params.marks={moved}", force=True).by != first.by


def test_a_file_that_was_changed_after_the_launch_is_no_part_of_the_run(folder: Path) -> None:
    planned(folder)
    work(folder / "run")
    (folder / "marks.txt").write_text("9")
    sums = [hashlib.sha256(text).hexdigest()[:12] for text in (b"5", b"9")]
    said = f"'scorers.judge.params.marks': {folder / 'marks.txt'} was changed .* {' → '.join(sums)}"
    with pytest.raises(UserError, match=said):
        work(folder / "run", "score")
    (folder / "marks.txt").write_text("5")
    assert work(folder / "run", "score", number=2)[0].ok == 3


def test_what_is_not_there_is_told_by_the_plug_in_and_what_may_be_absent_is_no_fault(folder: Path) -> None:
    planned(folder, "scorers.judge.params.other=nowhere", name="absent")
    with pytest.raises(UserError, match=r"scorers\.judge.*nowhere"):
        planned(folder, "scorers.judge.params.marks=nowhere", name="lacking")
