"""What `fuzz.py` found, each by its name; and a short, seeded run of it. Whatever is typed or lies in a run folder or a
data file, no traceback meets the user, nothing is written outside the run folder, and nothing where it is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fuzz import KINDS, Place, fuzz

from slurm_bench.run.durable import parse_line
from slurm_bench.run.journal import TaskProcess


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("fuzz") / "place")
    yield place
    place.close()


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_put_in_is_refused_or_served_in_order(place: Place, kind: str) -> None:
    def fault(error: BaseException, case: Any) -> None:
        pytest.fail(f"{case!r}: {type(error).__name__}: {error}")

    assert fuzz(place, kind, 40, 20261129, fault).total() >= 40


def test_it_is_seen_where_the_tool_breaks_its_word(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above could not fail."""
    from slurm_bench import verbs

    faults: list[BaseException] = []

    def damage(*_: Any) -> Any:
        (place.root / "elsewhere").write_text("x")
        raise KeyError("gone")

    monkeypatch.setattr(verbs, "overrides", damage)
    monkeypatch.setattr("slurm_bench.asked.overrides", damage)
    fuzz(place, "configuration", 20, 0, lambda error, case: faults.append(error))
    assert any(isinstance(error, KeyError) for error in faults)


EVENT = b'{"event": "start", "time": 1.0, "node": "n"}\n'
OK = {
    "id": "lamp-on",
    "status": "ok",
    "sha256": "0",
    "image": "edit/images/x.png",
    "time": 1.0,
    "attempt": 1,
    "task": 0,
}
ERROR = {
    "id": "lamp-on",
    "status": "error",
    "error": {"type": "E", "message": "m"},
    "attempt": 1,
    "task": 0,
    "time": 1.0,
}
LINE = "logs/tasks/edit-001-0000-r0.jsonl"
MORE = "edit/records/002-0000.jsonl"


def lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.mark.parametrize("verb", ["status", "explain", "verify"])
@pytest.mark.parametrize(
    ("file", "content"),
    [
        pytest.param(LINE, EVENT + b'{"event": [], "time": 2.0}\n', id="an event that is a list"),
        pytest.param(LINE, EVENT + b'{"event": "end", "time": []}\n', id="an event at no time"),
        pytest.param(LINE, EVENT + b'{"event": "part", "time": 2.0, "name": "samples"}\n', id="a part without seconds"),
        pytest.param(LINE, EVENT + b'{"event": "exit", "time": 2.0, "code": -999}\n', id="an exit by no signal"),
        pytest.param(LINE, EVENT + b'{"event": "works", "time": 1e308}\n', id="a time after all calendars"),
        pytest.param(LINE, EVENT + b'{"event": "end", "time": NaN}\n', id="a time that is no number"),
        pytest.param(LINE.replace(".jsonl", ".hand"), b'{"a":' * 5000, id="a hand that is nested deeply"),
        pytest.param(MORE, b"[" * 99999 + b"\n", id="a record of brackets alone"),
        pytest.param(MORE, lines({**OK, "image": None}), id="an image without a name"),
        pytest.param(MORE, lines({**OK, "image": "\0"}), id="an image by a name that no file can have"),
        pytest.param(MORE, lines({**OK, "image": "plan.jsonl/x"}), id="an image below a file"),
        pytest.param(MORE, lines({**ERROR, "time": "x"}, {**ERROR, "task": {}}), id="a failure at no time, of no task"),
        pytest.param(MORE, None, id="a folder among the records"),
        pytest.param("edit/records/lost-1.jsonl", b'{"id": [], "edit_time": 1}\n{"edit_time": 1}\n', id="no id lost"),
        pytest.param("logs/tasks/stray", None, id="a folder among the journals"),
        pytest.param("provenance.json", b'{"by": [], "plan": 5, "models": null}', id="a provenance of other types"),
        pytest.param("provenance.json", b"[" * 5000, id="a provenance of brackets alone"),
    ],
)  # fmt: skip
def test_a_line_that_does_not_fit_is_passed_over(place: Place, verb: str, file: str, content: bytes | None) -> None:
    assert place.check([verb, str(place.run)], {f"run/{file}": content}) in (0, 3)


ATTEMPT = {
    "stage": "edit",
    "number": 2,
    "samples": ["lamp-on"],
    "slices": 1,
    "executor": "debug",
    "retry": 0,
    "time": 1.0,
}
ATTEMPT |= {"host": "h", "pid": 1, "pid_start": 1.0}


@pytest.mark.parametrize("verb", ["status", "explain", "cancel"])
@pytest.mark.parametrize(
    "change",
    [
        *({"slices": {}}, {"slices": 10**9}, {"slices": 0}, {"samples": [[]]}, {"stage": []}),
        *({"number": 3}, {"time": "x"}, {"pid": -1}, {"pid": 10**30}, {"host": None}, {"v": "x"}, {"by": []}),
    ],
    ids=str,
)  # fmt: skip
def test_an_attempt_that_does_not_fit_is_one_line_that_names_it(
    place: Place, verb: str, change: dict[str, Any]
) -> None:
    assert place.check([verb, str(place.run)], {"run/attempts/edit-002.json": lines({**ATTEMPT, **change})}) == 1


@pytest.mark.parametrize(
    "plan", [b"[1,2]\n", b"[]\n", b"null\n", b'{"v": "x"}\n', b"[" * 9999, b'{"facts":' * 2000, b"\xff\n"]
)
@pytest.mark.parametrize("verb", ["status", "report", "resubmit"])
def test_a_plan_that_is_none_is_one_line(place: Place, verb: str, plan: bytes) -> None:
    assert place.check([verb, str(place.run)], {"run/plan.jsonl": plan, "run/provenance.json": b"{}"}) == 1


@pytest.mark.parametrize(
    "facts", [{"time": [1]}, {"time": 1e300}, {"asks": [1]}, {"asks": {"judge": {"\ud800": 1}}}, {"config": 7}]
)
def test_a_provenance_that_does_not_fit_is_none(place: Place, facts: dict[str, Any]) -> None:
    """As of a run without one, whose report is made."""
    changed = {"run/provenance.json": json.dumps(facts).encode()}
    assert place.check(["report", str(place.run)], changed) in (0, 3)


def test_what_a_process_had_in_hand_is_nothing_where_it_can_not_be_read(place: Place) -> None:
    hand = json.dumps({"plugin": "editor", "ids": ["s"], "time": 1, "\ud800": 1}).encode()
    assert place.check(["explain", str(place.run)], {"run/logs/tasks/edit-001-0000-r0.hand": hand}) in (0, 3)


def test_a_line_of_numbers_that_are_none_is_no_line() -> None:
    assert [parse_line(text) for text in (b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}')] == [None] * 3
    assert parse_line(b'{"a": "\\ud800", "b": 1.5}') == {"a": "\ud800", "b": 1.5}


def test_a_signal_without_a_name_is_told_by_its_number() -> None:
    killed = TaskProcess("edit", 1, 0, 0, "n", 0.0, None, "", 0, 0, -35, "", (), [])
    assert killed.how == "killed by signal 35"
