"""Looking at a run again and again: what was added is all that is read, and it comes to the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_bench.run.layout import RunDir
from slurm_bench.run.ledger import Ledger, read_state
from slurm_bench.run.manifest import Manifest, OkRecord
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import Outcome, State, note_lost

IDS = ("a", "b")
SAMPLES = [Sample(n, i, "c", "do", (f"{i}.png",), n) for n, i in enumerate(IDS)]
BY = {"editor": "e", "scorers.s": "j", "scorers.t": "j"}

IDENTITY = {"id": st.sampled_from(["a", "a", "b"]), "by": st.sampled_from(["e", "e", "j", "j", ""])}
SHA = st.sampled_from(["x", "y"])
FAILED = {"status": st.just("error"), "error": st.just({"type": "E", "message": "boom"})}
EDITED = {
    "status": st.just("ok"),
    "sha256": SHA,
    "source_sha256": SHA,
    "image": st.just("i"),
}
TIMED = {"time": st.sampled_from([1.0, 2.0])}
SCORED = {"status": st.just("ok"), "scores": st.just({"q": 1.0})}
MATCHED = {"scorer": st.sampled_from(["s", "t"]), "edit_sha256": SHA, "source_sha256": SHA}
RECORDS = {
    "edit": st.one_of(
        st.fixed_dictionaries(IDENTITY | EDITED, optional=TIMED), st.fixed_dictionaries(IDENTITY | FAILED)
    ),
    "score": st.one_of(
        st.fixed_dictionaries(IDENTITY | SCORED, optional=MATCHED),
        st.fixed_dictionaries(IDENTITY | FAILED, optional=MATCHED),
    ),
}
WRITES = st.one_of(
    st.tuples(st.just(stage), st.integers(1, 2), st.integers(0, 1), RECORDS[stage], st.booleans(), st.booleans())
    for stage in RECORDS
)


def told(state: State) -> Any:
    """All that a state says. In which order a sample failed is not asked of it while a run is at work."""

    def of(outcome: Outcome) -> Any:
        errors = sorted(json.dumps(dict(error), sort_keys=True) for error in outcome.errors)
        return outcome.ok and dict(outcome.ok), errors, outcome.lost, outcome.settled

    edits = {i: of(state.edits[i]) for i in IDS}
    scores = {i: {name: of(outcome) for name, outcome in state.scores[i].items()} for i in IDS}
    return edits, scores, dict(state.others), state.to_edit(), state.to_score(), state.scored()


@settings(max_examples=150)
@given(st.lists(WRITES, min_size=2, max_size=12), st.booleans(), st.booleans())
def test_whoever_looks_again_and_again_sees_what_one_look_sees(
    tmp_path_factory: pytest.TempPathFactory, writes: list[Any], lose: bool, whole: bool
) -> None:
    """Records come in any order, also after those of a later attempt, and in pieces."""
    run = RunDir(tmp_path_factory.mktemp("run"))
    ledger = Ledger(run, SAMPLES, ["s", "t"], BY, whole)
    for stage, attempt, task, record, torn, looked in writes:
        line = json.dumps(record).encode() + b"\n"
        run.records(stage).mkdir(parents=True, exist_ok=True)
        with run.manifest(stage, attempt, task, 0).open("ab", buffering=0) as file:
            file.write(line[:7] if torn else b"")
            if looked:
                ledger.look()
            file.write(line[7:] if torn else line)
    if lose and (image := ledger.look().edits["a"].ok):
        note_lost(run, [image], {"a": "gone"})
        assert ledger.look().edits["a"].lost
    state = ledger.look()
    assert told(state) == told(read_state(run, SAMPLES, ["s", "t"], BY))
    outcomes = {"edit": list(state.edits.values())}
    outcomes["score"] = [outcome for by_scorer in state.scores.values() for outcome in by_scorer.values()]
    assert ledger.counts() == {
        stage: (sum(o.ok is not None for o in of), len(of), sum(o.error is not None for o in of))
        for stage, of in outcomes.items()
    }


def manifest(tmp_path: Path, *lines: bytes, whole: bool = True) -> Manifest:
    file = tmp_path / "001-0000.jsonl"
    file.write_bytes(b"".join(lines))
    return Manifest(file, (1, 0, 0), whole)


def test_failures_are_no_longer_the_process_own_once_something_comes_right_in_it(tmp_path: Path) -> None:
    error = b'{"id": "%c", "status": "error", "error": {"type": "E", "message": "boom"}}\n'
    found = manifest(tmp_path, error % b"a", error % b"b")
    _, errors = found.news()
    assert all(record["systematic"] for record in errors)
    with found.path.open("ab") as file:
        file.write(b'{"id": "c", "status": "ok", "sha256": "x", "image": "i", "time": 1}\n' + error % b"d")
    _, later = found.news()
    assert not any("systematic" in record for record in [*errors, *later])


def test_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    line = b'{"id": "a", "status": "ok", "sha256": "x", "image": "i", "time": 1}\n'
    found = manifest(tmp_path, line)
    assert len(found.news()[0]) == 1
    found.path.write_bytes(b"?" * len(line) + line + line[:9])
    assert [len(found.news()[0]) for _ in range(2)] == [1, 0]
    with found.path.open("ab") as file:
        file.write(line[9:-1])
    assert [len(found.news()[0]) for _ in range(2)] == [1, 0], "a last line without its end is whole"


@pytest.mark.parametrize("whole", [True, False])
def test_a_record_says_all_of_its_line_whatever_is_kept_of_it_in_memory(tmp_path: Path, whole: bool) -> None:
    row = {
        "id": "a",
        "status": "ok",
        "seconds": 1,
        "sha256": "x",
        "image": "i",
        "time": 1,
        "info": {"deep": [1, {"a": None}]},
        "raw": "\ud800",
    }
    plain = {"id": "b", "status": "ok", "scores": {"q": 2}, "time": 3.5, "raw": "é\u2028", "n": 2**70}
    lines = (json.dumps(record).encode() + b"\n" for record in (row, plain))
    done, _ = manifest(tmp_path, *lines, whole=whole).news()
    long = [record for record in done if record.image or record.scores or record.info]
    assert len(long) == (len(done) if whole else 0), "what is kept for who only counts"
    assert [dict(record) for record in done] == [row, plain]
    assert done[0]["info"] == row["info"]
    assert done[1]["scores"] == {"q": 2}
    assert (done[0].get("bytes"), done[0].get("nothing", 1), "info" in done[0], "bytes" in done[0]) == (
        None,
        1,
        True,
        False,
    )
    assert bool(done[0])


@pytest.mark.parametrize("sha256", ["0" * 63 + "a", "0" * 63 + "A", "x", "ab"])
def test_a_sha256_is_what_its_line_says_however_it_is_kept(tmp_path: Path, sha256: str) -> None:
    row = {"id": "a", "status": "ok", "sha256": sha256, "image": "i", "source_sha256": [sha256, sha256]}
    score = {"id": "a", "status": "ok", "scores": {"q": 1}, "scorer": "s", "edit_sha256": sha256}
    run = RunDir(tmp_path)
    scores = [score | {"source_sha256": sources} for sources in ([sha256] * 2, ["other"])]
    for stage, rows in (("edit", [row]), ("score", scores)):
        run.records(stage).mkdir(parents=True)
        run.manifest(stage, 1, 0, 0).write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    state = read_state(run, SAMPLES, ["s"])
    edit, found = state.edits["a"].ok, state.scores["a"]["s"].ok
    assert edit is not None
    assert found is not None
    assert (edit["sha256"], edit.get("source_sha256")) == (sha256, [sha256, sha256])
    assert (found["edit_sha256"], found["source_sha256"]) == (sha256, [sha256, sha256])


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "line",
    [
        b'{"id": "a", "status": "ok", "sha256": 7}',
        b'{"id": "a", "status": "ok", "sha256": "x", "image": "i", "bytes": -1}',
        b'{"id": "a", "status": "ok", "scores": {"q": "high"}}',
        b'{"id": "a", "status": "ok", "scores": [1]}',
        b'{"id": "a", "status": "ok", "sha256": "x", "image": "i", "time": "noon"}',
        b'{"id": "a", "status": "ok", "sha256": "x", "image": "i", "info": "as it was"}',
        b'{"id": "a", "status": "ok", "scores": {"q": 1}, "info": [1]}',
        b'{"id": "a", "status": "ok", "scores": {"q": 1}, "info": 0, "raw": "\\ud800"}',
        b'{"id": "a", "status": "ok", "scores": {"q": 1}, "\\ud800": 1}',
        b'{"id": ["a"], "status": "error", "error": {}}',
        b'{"id": "a", "status": "error", "error": "boom"}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_what_is_no_record_is_passed_over(tmp_path: Path, line: bytes, whole: bool) -> None:
    good = b'{"id": "b", "status": "ok", "sha256": "x", "image": "i", "time": 1}\n'
    done, errors = manifest(tmp_path, line + b"\n", good, whole=whole).news()
    assert [record.id for record in done] == ["b"]
    assert errors == []
    assert all(isinstance(record, OkRecord) for record in done)


@pytest.mark.parametrize("whole", [True, False])
def test_a_number_that_is_none_under_a_name_that_nobody_asks_for_costs_what_is_not_kept(
    tmp_path: Path, whole: bool
) -> None:
    line = b'{"id": "a", "status": "ok", "scores": {"q": 1}, "raw": 1e999}\n'
    ((record,), errors) = manifest(tmp_path, line, whole=whole).news()
    assert (record.id, record.get("raw"), record.get("scores")) == ("a", None, {"q": 1} if whole else None)
    assert errors == []
