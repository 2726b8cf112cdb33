"""CONTRIBUTING.md is true: the files and tables that a change is said to touch exist, and they are three at most."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import REPO

from slurm_bench.cli import VERBS

TEXT = (REPO / "CONTRIBUTING.md").read_text("utf-8")
ROWS = {
    re.findall(r"\*\*(.+?)\*\*", row)[0]: row.split("|")[2:4] for row in TEXT.splitlines() if row.startswith("| **")
}
# A file, and where one is meant, a name in it. NAME stands for the newcomer's own.
FILE = re.compile(r"`([\w/]+\.(?:py|md))(?:: ([\w ]+))?`")


def files(cell: str, root: Path) -> list[tuple[Path, str]]:
    return [(root / file, name) for file, name in FILE.findall(cell) if "NAME" not in file]


@pytest.mark.parametrize("change", ROWS)
def test_what_a_change_is_said_to_touch_is_there(change: str) -> None:
    code, proof = ROWS[change]
    for file, name in [*files(code, REPO / "slurm_bench"), *files(proof, REPO)]:
        inside = file if file.exists() else REPO / "slurm_bench" / file.relative_to(REPO)
        assert inside.exists(), file
        assert name in inside.read_text("utf-8"), f"{name} isn't in {file}"


@pytest.mark.parametrize("change", ROWS)
def test_a_change_touches_three_files_at_most(change: str) -> None:
    assert len({file for file, _ in FILE.findall(ROWS[change][0])}) <= 3


@pytest.mark.parametrize("verb", VERBS)
def test_the_readme_tells_of_every_verb(verb: str) -> None:
    typed = rf"^\| `python launch\.py \[?{verb}\b"
    assert re.search(typed, (REPO / "README.md").read_text("utf-8"), re.MULTILINE)


def test_the_usual_changes_are_there() -> None:
    assert len(ROWS) == 7
