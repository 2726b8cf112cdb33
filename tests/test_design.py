"""docs/design.md is true: its laws, files and tests exist, and imports go one way through its rooms."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from helpers import REPO

PACKAGE = REPO / "slurm_bench"
DESIGN = (REPO / "docs" / "design.md").read_text()
MODULES = {
    ".".join(file.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__"): file
    for file in PACKAGE.rglob("*.py")
}


def section(name: str) -> str:
    return DESIGN.split(f"## {name}\n")[1].split("\n## ")[0]


def rooms() -> dict[str, int]:
    """Room → its place in the table, from the top."""
    rows = [line.split("|")[1] for line in section("Rooms").splitlines() if line.startswith("| `")]
    return {
        re.sub(r"(/|\.py)$", "", name): place for place, row in enumerate(rows) for name in re.findall(r"`(.+?)`", row)
    }


def imports(module: str) -> set[str]:
    """The package's modules that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "slurm_bench":
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if name in MODULES} or {str(node.module)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
    return found - {"slurm_bench"}


def test_a_room_imports_only_rooms_above_it() -> None:
    place = rooms()
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        if module.count(".") and module != "slurm_bench.__main__"
        for other in imports(module)
        if place[other.split(".")[1]] > place[module.split(".")[1]]
    ]
    assert wrong == []


def test_no_two_files_import_each_other_also_not_in_a_circle() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' → '.join([*path[path.index(module) :], module])}"
        if module not in done:
            for other in imports(module):
                visit(other, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_every_law_that_is_cited_is_written() -> None:
    written = {int(number) for number in re.findall(r"^\| (\d+) \|", section("Laws"), re.M)}
    assert written == set(range(1, 18))
    cited = {
        int(number)
        for file in [*PACKAGE.rglob("*.py"), *(REPO / "tests").glob("*.py"), *(REPO / "docs").glob("*.md")]
        for number in re.findall(r"\(law (\d+)\)", file.read_text())
    }
    assert cited <= written


@pytest.mark.parametrize("law", [line for line in section("Laws").splitlines() if re.match(r"\| \d", line)])
def test_the_files_and_tests_that_a_law_names_exist(law: str) -> None:
    _, _, _, files, tests, _ = law.split("|")
    for file in re.findall(r"`(.+?)`", files):
        assert (PACKAGE / file).is_file(), file
    assert re.findall(r"`(.+?)`", tests)
    for named in re.findall(r"`(.+?)`", tests):
        file, test = named.split(": ")
        assert f"def {test}(" in (Path(__file__).parent / file).read_text(), named


def test_every_file_that_the_page_names_exists() -> None:
    for name in re.findall(r"`([a-z_/]+\.py)(?:: (\w+))?`", DESIGN):
        file, function = name
        place = next((p for p in (PACKAGE / file, REPO / "tests" / file, REPO / file) if p.is_file()), None)
        assert place is not None, file
        assert not function or re.search(rf"def {function}\b", place.read_text()), name
