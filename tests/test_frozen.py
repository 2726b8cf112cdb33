"""A run that an earlier version began is still gone on with: resumed, scored and reported.

`frozen/v1` was made by version 0.1.0 (format 1: no `v`, no `by`, no `bytes`): four samples of the demo, cut off. One
edit's record is torn, and two of the three edited images have scores.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers import images, launch, rows, run_dir, summary

from slurm_bench.run.layout import CHAINED
from slurm_bench.run.records import read_records

FROZEN = Path(__file__).parent / "frozen" / "v1"


def rounded(row: dict[str, str]) -> dict[str, str]:
    """The last digits of a score hang on numpy's version, which was another one then."""
    return {
        name: f"{float(cell):.9f}" if "." in cell and cell.replace(".", "").isdigit() else cell
        for name, cell in row.items()
    }


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FROZEN, tmp_path / "run"))


def test_an_old_run_says_where_it_stands(old: Path) -> None:
    done = launch("status", old, "--json")
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)["counts"]
    assert (counts["planned"], counts["edited"], counts["scored"], counts["missing"]) == (4, 3, 2, 2)
    assert launch("report", old).returncode == 3
    assert [row["status"] for row in rows(old)] == ["ok", "ok", "missing", "missing"]


def test_an_old_run_is_finished_and_nothing_of_it_made_again(old: Path, tmp_path: Path) -> None:
    before = [r for stage in ("edit", "score") for r in read_records(run_dir(old), stage)]
    done = launch("resubmit", old, "--executor", "local")
    assert done.returncode == 0, done.stderr
    after = [r for stage in ("edit", "score") for r in read_records(run_dir(old), stage)]
    assert len(after) == len(before) + 1 + 2
    assert all(record in after for record in before)
    fresh = launch("--config", "configs/demo.yaml", "data.limit=4", "gpus=1", "--run-dir", tmp_path / "fresh")
    assert fresh.returncode == 0, fresh.stderr
    assert images(old) == images(tmp_path / "fresh")
    assert [*map(rounded, rows(old))] == [*map(rounded, rows(tmp_path / "fresh"))]
    assert summary(old)["counts"]["scored"] == 4


@pytest.mark.parametrize("file", ["plan.jsonl", "attempts/edit-001.json"])
def test_a_newer_run_is_refused_in_one_line(old: Path, file: str) -> None:
    lines = (old / file).read_text().splitlines()
    newer = [json.dumps({**json.loads(line), "v": CHAINED + 1}) for line in lines]
    (old / file).write_text("\n".join(newer) + "\n")
    done = launch("resubmit", old, "--executor", "local")
    assert done.returncode == 1
    assert "newer slurm_bench" in done.stderr
    assert done.stderr.count("\n") == 1
