"""Facts of a sample: kept from the data into the plan, as JSON, and never so large that a plan is no list any more."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from slurm_bench.config import DataConfig
from slurm_bench.data import read_items
from slurm_bench.data.facts import as_facts
from slurm_bench.data.item import Item
from slurm_bench.run.layout import RunDir
from slurm_bench.run.plan import Plan, Sample, read_plan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (16, 16), "teal").save(tmp_path / "a.png")
    return tmp_path


def given(reader: str, folder: Path, content: str) -> list[Item]:
    file = folder / f"bench.{reader}"
    file.write_text(content)
    return list(read_items(DataConfig(reader=reader, path=str(file))))


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("hard", "hard"),
        (3, 3),
        (0.5, 0.5),
        (False, False),
        (["a", {"deep": [1, None]}], ["a", {"deep": [1, None]}]),
        (("a", "b"), ["a", "b"]),
        ("\ud800", "\ufffd"),
        (datetime.date(2026, 11, 1), "2026-11-01"),
        (Decimal("1.5"), "1.5"),
        (2**80, str(2**80)),
        (None, None),
        (float("nan"), None),
        (float("inf"), None),
        (" ", None),
        ([], None),
        (b"bytes", None),
        ({"bytes": b"image", "path": "a.png"}, None),
        ("x" * 501, None),
    ],
)
def test_a_fact_is_json_or_left_out(value: Any, kept: Any) -> None:
    facts = as_facts({"fact": value})
    assert facts == ({} if kept is None else {"fact": kept})
    assert type(facts.get("fact")) is type(kept)


def test_facts_are_bounded_whatever_they_are() -> None:
    nested: Any = "core"
    for _ in range(2000):
        nested = [nested]
    facts = as_facts(
        {"nested": nested, "x" * 501: 1, "long": list(range(1000)), **{str(n): "y" * 500 for n in range(999)}}
    )
    assert len(facts) == 64
    assert len(json.dumps(facts)) < 64 * 600


def test_the_plan_keeps_facts_and_one_without_them_is_still_read(folder: Path) -> None:
    item = Item("a", "all", "edit", folder / "a.png", facts={"difficulty": 2, "tags": ["x", "y"]})
    run = RunDir(folder / "run")
    run.root.mkdir()
    plan = Plan(run)
    plan.add([item], 0)
    assert [sample.facts for sample in plan.freeze()] == [{"difficulty": 2, "tags": ["x", "y"]}]
    row = read_plan(run)[0].to_json()
    del row["facts"]
    assert Sample.from_json(row).facts == {}


def test_fields_of_a_table_that_are_no_part_of_the_sample_are_facts(folder: Path) -> None:
    row = {"id": 1, "instruction": "edit", "image": "a.png", "difficulty": "hard", "tags": ["x"], "note": "n" * 501}
    assert given("jsonl", folder, json.dumps(row))[0].facts == {"difficulty": "hard", "tags": ["x"]}
    assert given("csv", folder, "id,instruction,image,level\n1,edit,a.png,3\n")[0].facts == {"level": "3"}


def test_facts_that_are_none_spoil_their_own_sample_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "own_reader.py").write_text(
        "def read(data):\n"
        "    yield {'id': 1, 'instruction': 'edit', 'source': data.path, 'facts': ['hard']}\n"
        "    yield {'id': 2, 'instruction': 'edit', 'source': data.path, 'facts': {'level': 2}}\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    first, second = read_items(DataConfig(reader="own_reader.read", path=str(folder / "a.png")))
    assert first.problem == "the facts are a list, not names with values"
    assert (second.problem, second.facts) == ("", {"level": 2})
