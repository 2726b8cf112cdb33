"""A task as a whole: its shard, its storage, its turn to load, the lives of its plug-ins."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
import threading
import weakref
from bdb import BdbQuit
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from helpers import images, make_config, run_dir
from PIL import Image
from plugins import Brightness, Tint
from tasks import edits, prepare, work

from slurm_bench.config import load_config
from slurm_bench.data.item import Item
from slurm_bench.editors.base import Edited, EditRequest
from slurm_bench.errors import ServiceDown, UserError
from slurm_bench.run.attempts import claim
from slurm_bench.run.create import create_run
from slurm_bench.run.journal import FAILED, STOPPED, read_journals
from slurm_bench.run.opened import open_run
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import read_records
from slurm_bench.run.slices import seed_of
from slurm_bench.scorers.base import Scored, ScoreRequest
from slurm_bench.stages.ahead import MOST, ReadAhead
from slurm_bench.stages.behind import StorageFailed
from slurm_bench.stages.engine import Tally
from slurm_bench.stages.loading import load_slot
from slurm_bench.stages.stop import StopSignals
from slurm_bench.stages.task import run_task

SCORERS = {"first": {"class_path": "test_tasks.Stops"}, "second": {"class_path": "tests.plugins.Brightness"}}


class Unloadable(Brightness):
    def load(self) -> None:
        raise RuntimeError("no such weights")


class Absent:
    def score(self, batch: Sequence[ScoreRequest]) -> list[Exception]:
        return [ServiceDown("the judge is away")] * len(batch)


class ReadsAhead(Tint):
    """Keeps what its task has in hand while it reads ahead, and when it has read all."""

    seen: ClassVar[list[tuple[str, ...]]] = []

    def __init__(self, run: str) -> None:
        super().__init__()
        self.run = Path(run)

    def prepare(self, requests: Iterable[EditRequest]) -> None:
        for _ in requests:
            self.seen.append(self.in_hand())
        self.seen.append(self.in_hand())

    def in_hand(self) -> tuple[str, ...]:
        (process,) = read_journals(run_dir(self.run), "edit")
        return process.in_hand


class Notes(Tint):
    """Notes what is done with it; fails where it is told to."""

    def __init__(self, marks: str, fail_in: str = "") -> None:
        super().__init__()
        self.marks, self.fail_in = Path(marks), fail_in

    def note(self, what: str, ids: Iterable[str] = ()) -> None:
        (self.marks / what).write_text(" ".join(ids))
        if what == self.fail_in:
            raise RuntimeError(f"no {what}")

    def load(self) -> None:
        self.note("load")

    def prepare(self, requests: Iterable[EditRequest]) -> None:
        self.note("prepare", [request.id for request in requests])

    def edit(self, batch: Sequence[EditRequest]) -> list[Edited | Exception]:
        self.note("edit")
        return super().edit(batch)

    def close(self) -> None:
        (self.marks / "close").touch()


class Crowded(Tint):
    """Out of memory beyond two samples at once; notes how many it was given each time."""

    def __init__(self, marks: str) -> None:
        super().__init__()
        self.marks = Path(marks)

    def edit(self, batch: Sequence[EditRequest]) -> list[Edited | Exception]:
        with open(self.marks / "batches", "a") as file:
            file.write(f"{len(batch)}\n")
        if len(batch) > 2:
            raise MemoryError
        return super().edit(batch)


class Holds(Tint):
    """Out of memory in every batch and at one sample, with something large in hand each time."""

    held: ClassVar[list[weakref.ref[Any]]] = []
    seen: ClassVar[list[int]] = []

    def edit(self, batch: Sequence[EditRequest]) -> list[Edited | Exception]:
        self.seen.append(sum(activations() is not None for activations in self.held))
        activations = set(batch[0].id)
        self.held.append(weakref.ref(activations))
        if len(batch) > 1 or batch[0].id == "s-1":
            try:
                raise KeyError("inside")
            except KeyError:
                raise RuntimeError("CUDA out of memory") from None
        return super().edit(batch)


class Chatty(Tint):
    """Says what JSON can't hold, each time something else."""

    def one(self, request: EditRequest) -> Edited:
        facts: dict[str, Any] = {"s-0": {"x": object()}, "s-1": ["no dict"], "s-2": {"y": float("inf")}}
        return Edited(request.image, facts.get(request.id, {"seed": request.seed}))


class Tells(Brightness):
    """An editor and a scorer that put into the record what they were told."""

    def edit(self, batch: Sequence[EditRequest]) -> list[Edited]:
        return [Edited(r.image, {"told": [r.instruction, [image.size for image in r.images]]}) for r in batch]

    def score(self, batch: Sequence[ScoreRequest]) -> list[Scored]:  # type: ignore[override]
        return [Scored({"q": 1.0}, info={"told": [*self.texts(r), self.sizes(r)]}) for r in batch]

    def texts(self, r: ScoreRequest) -> list[str]:
        return [r.category, r.instruction, r.description, r.rationale]

    def sizes(self, r: ScoreRequest) -> list[tuple[int, int]]:
        return [image.size for image in (*r.sources, r.edited, r.reference) if image is not None]


class Foresees(Brightness):
    """Notes what it is told will come, and what comes."""

    foreseen: ClassVar[list[list[str]]] = []
    came: ClassVar[list[list[str]]] = []

    def prefetch(self, coming: Callable[[], Sequence[ScoreRequest]]) -> None:
        self.foreseen.append([request.id for request in coming()])
        raise KeyError("a head start that fails is no failure")

    def score(self, batch: Sequence[ScoreRequest]) -> list[dict[str, float]]:
        self.came.append([request.id for request in batch])
        return super().score(batch)


class Stops(Brightness):
    """Is told to stop while it scores the first sample."""

    def score(self, batch: Sequence[ScoreRequest]) -> list[dict[str, float]]:
        if batch[0].id == "s-0":
            os.kill(os.getpid(), signal.SIGUSR2)
        return super().score(batch)


def test_no_record_promises_an_image_that_is_not_on_disk(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    (root / run_dir(root).image("s-3", open_run(root).by["editor"])).mkdir(
        parents=True
    )  # nothing can be put in this place
    with pytest.raises(StorageFailed):
        work(root)
    assert set(edits(root)) == set(images(root)) == {"s-0", "s-1", "s-2"}
    (end,) = read_journals(run_dir(root), "edit")
    assert (end.end, "StorageFailed" in end.message) == ("failed", True)


class LeavesTheDebugger(Tint):
    """As a person at a breakpoint, who has seen enough of s-2."""

    def one(self, request: EditRequest) -> Edited | Exception:
        if request.id == "s-2":
            raise BdbQuit
        return super().one(request)


@pytest.mark.parametrize("how", [BdbQuit, KeyboardInterrupt])
def test_where_no_person_can_be_an_interrupt_is_its_samples_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: type[BaseException]
) -> None:
    """As in a worker, which has no terminal, and hears of a signal."""

    def one(self: LeavesTheDebugger, request: EditRequest) -> Edited | Exception:
        if request.id == "s-1":
            raise how
        return Tint.one(self, request)

    monkeypatch.setattr(LeavesTheDebugger, "one", one)
    root = prepare(tmp_path, "test_tasks.LeavesTheDebugger", {}, count=3)
    run = open_run(root)
    claim(run.folder, "edit", ["s-0", "s-1", "s-2"], 1, "local", 0, 1, run.by)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it
    with StopSignals() as stop:
        assert run_task(run, "edit", 1, 0, stop) == Tally(ok=2, failed=1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.by_a_person
    signal.signal(signal.SIGINT, before)


def test_a_sample_at_which_a_person_leaves_again_and_again_is_no_suspect(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_tasks.LeavesTheDebugger", {}, count=3)
    for number in range(1, 6):
        with pytest.raises(KeyboardInterrupt):
            work(root, number=number)
    assert [(p.end, p.message) for p in read_journals(run_dir(root), "edit")] == [("stopped", "SIGINT")] * 5
    assert [record["id"] for record in read_records(run_dir(root), "edit")] == ["s-0", "s-1"]


def test_the_shard_is_what_the_task_is_told_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_ARRAY_TASK_ID", "SLURM_PROCID", "SLURM_LOCALID", "RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    root = prepare(tmp_path, "Tint", {})
    assert claim(run_dir(root), "edit", [f"s-{n}" for n in range(6)], 3, "debug", 0, 1)
    assert run_task(open_run(root), "edit", 1, 2, StopSignals()) == Tally(ok=2)
    assert set(images(root)) == {"s-2", "s-5"}


def test_a_score_task_does_only_what_has_no_score(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    work(root)
    work(root, "score")
    assert claim(run_dir(root), "score", [f"s-{n}" for n in range(6)], 1, "debug", 0, 2)
    assert run_task(open_run(root), "score", 2, 0, StopSignals()) == Tally()


def test_what_an_attempt_made_depends_on_no_attempt(tmp_path: Path) -> None:
    once, later = (prepare(tmp_path, "Tint", {}, name=name) for name in ("once", "later"))
    work(once)
    assert claim(run_dir(later), "edit", ["s-5"], 1, "debug", 0, 1)
    run_task(open_run(later), "edit", 1, 0, StopSignals())
    work(later, number=2, slices=5)
    assert images(once) == images(later)


def test_what_an_editor_does_when_it_has_read_all_ahead_is_no_samples_doing(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_tasks.ReadsAhead", {"run": str(tmp_path / "run")}, count=2)
    ReadsAhead.seen.clear()
    work(root)
    assert ReadsAhead.seen == [("s-0",), ("s-1",), ()]


@pytest.mark.parametrize("fail_in", ["", "prepare"])
def test_a_plug_in_may_look_ahead_and_its_failure_there_is_no_samples(tmp_path: Path, fail_in: str) -> None:
    root = prepare(tmp_path, "test_tasks.Notes", {"marks": str(tmp_path), "fail_in": fail_in})
    (tmp_path / "bench" / "1.png").unlink()
    assert work(root) == [Tally(ok=5, failed=1)]
    assert (tmp_path / "prepare").read_text() == "s-0 s-2 s-3 s-4 s-5"


@pytest.mark.parametrize("fail_in", ["", "edit"])
def test_a_plug_in_is_closed_however_its_work_ends(tmp_path: Path, fail_in: str) -> None:
    root = prepare(tmp_path, "test_tasks.Notes", {"marks": str(tmp_path), "fail_in": fail_in})
    work(root)
    assert (tmp_path / "close").exists()


def test_nothing_left_to_do_loads_no_model(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_tasks.Notes", {"marks": str(tmp_path)})
    work(root)
    (tmp_path / "load").unlink()
    assert run_task(open_run(root), "edit", 1, 0, StopSignals()) == Tally()
    assert not (tmp_path / "load").exists()


def test_as_many_models_load_at_once_as_the_configuration_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    params = {"marks": str(tmp_path)}
    second, third = (prepare(tmp_path, "test_tasks.Notes", params, name=n, load_concurrency=2) for n in ("2", "3"))
    with load_slot(2, StopSignals()):
        assert in_time(second).is_alive() is False
        (tmp_path / "load").unlink()
        with load_slot(2, StopSignals()):
            waiting = in_time(third, seconds=1)
            assert not (tmp_path / "load").exists()
    waiting.join(240)
    assert (tmp_path / "load").exists()


def test_a_task_that_waits_for_its_turn_to_load_hears_that_it_is_to_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root = prepare(tmp_path, "test_tasks.Notes", {"marks": str(tmp_path)})
    claim(run_dir(root), "edit", ["s-0"], 1, "debug", 0, 1)
    with load_slot(1, StopSignals()), StopSignals(60, 60) as stop:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert run_task(open_run(root), "edit", 1, 0, stop) == Tally(stopped="SIGTERM")
    (process,) = read_journals(run_dir(root), "edit")
    assert process.end == "stopped", "which is held against no node"


def test_the_lock_follows_no_link_and_no_stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = tmp_path / "mine"
    mine.write_text("of value")
    folder = tmp_path / f"slurm_bench-{os.getuid()}"
    folder.mkdir()
    (folder / "load-0.lock").symlink_to(mine)
    with pytest.raises(OSError, match="load-0"), load_slot(1, StopSignals()):
        pass
    assert mine.read_text() == "of value"
    (folder / "load-0.lock").unlink()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(UserError, match="somebody else"), load_slot(1, StopSignals()):
        pass


def in_time(root: Path, seconds: float = 240) -> threading.Thread:
    """The run's edits in a thread, after so long or their end."""
    thread = threading.Thread(target=work, args=(root,), daemon=True)
    thread.start()
    thread.join(seconds)
    return thread


class Heavy:
    """Work of which two samples take more memory than may be taken."""

    def read(self, sample: Sample) -> str:
        return sample.id

    def weight(self, given: str) -> int:
        return MOST // 2 + 1

    def expect(self, coming: Any) -> None:
        pass


def test_pictures_that_are_read_ahead_are_bounded_by_their_memory() -> None:
    samples = [Sample(n, f"s-{n}", "c", "do", None, 0) for n in range(6)]
    ahead = ReadAhead(Heavy(), StopSignals(), settle=lambda: None)
    batches = list(ahead.batches(samples, size=lambda: 4, ahead=lambda: True))
    assert [[sample.id for sample, _, _ in batch] for batch in batches] == [[sample.id] for sample in samples]


def test_out_of_memory_it_goes_on_with_half_the_batch_and_stays_there(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_tasks.Crowded", {"marks": str(tmp_path)}, count=24, batch_size=8)
    assert work(root) == [Tally(ok=24)]
    sizes = [int(line) for line in (tmp_path / "batches").read_text().split()]
    assert sizes[:3] == [8, 4, 2]
    assert set(sizes[-8:]) == {2}
    assert sum(size for size in sizes if size <= 2) == 24, "what came right isn't done again"


@pytest.mark.parametrize("batch_size", [1, 4])
def test_what_failed_holds_no_memory_while_others_are_at_work(tmp_path: Path, batch_size: int) -> None:
    Holds.held, Holds.seen = [], []
    root = prepare(tmp_path, "test_tasks.Holds", {}, batch_size=batch_size)
    work(root)
    assert len(Holds.held) > 1
    assert set(Holds.seen) == {0}


def test_a_scorer_is_told_what_comes_next(tmp_path: Path) -> None:
    Foresees.foreseen, Foresees.came = [], []
    judge = {"judge": {"class_path": "test_tasks.Foresees"}}
    root = prepare(tmp_path, "Tint", {}, count=8, scorers=judge, score_batch_size=3)
    work(root)
    (root / edits(root)["s-4"]["image"]).write_bytes(b"")
    assert work(root, "score") == [Tally(ok=7, failed=1)]
    assert Foresees.came[:3] == [["s-0", "s-1", "s-2"], ["s-3", "s-5"], ["s-6", "s-7"]]
    assert Foresees.foreseen[:3] == [["s-3", "s-5"], ["s-6", "s-7"], []]


def test_told_to_stop_no_other_scorer_is_begun(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {}, scorers=SCORERS, score_batch_size=2)
    work(root)
    assert claim(run_dir(root), "score", [f"s-{n}" for n in range(6)], 1, "debug", 0, 1)
    with StopSignals() as stop:
        assert run_task(open_run(root), "score", 1, 0, stop) == Tally(ok=2, stopped="SIGUSR2")
    records = read_records(run_dir(root), "score")
    assert {(record["id"], record["scorer"]) for record in records} == {("s-0", "first"), ("s-1", "first")}
    with StopSignals() as stop:
        assert run_task(open_run(root), "score", 1, 0, stop) == Tally(ok=4 + 6), "both scorers' work is counted"


@pytest.mark.parametrize("first", ["Unloadable", "Absent"])
def test_a_scorer_that_cannot_work_keeps_no_other_from_it(tmp_path: Path, first: str) -> None:
    scorers = {"first": {"class_path": f"test_tasks.{first}"}, "second": {"class_path": "tests.plugins.Brightness"}}
    root = prepare(tmp_path, "Tint", {}, scorers=scorers)
    work(root)
    if first == "Absent":
        (tally,) = work(root, "score")
        assert (tally.ok, tally.stopped) == (6, "ServiceDown: the judge is away")
    else:
        with pytest.raises(RuntimeError, match="no such weights"):
            work(root, "score")
    assert [record["scorer"] for record in read_records(run_dir(root), "score")] == ["second"] * 6
    (process,) = read_journals(run_dir(root), "score")
    assert process.end == (STOPPED if first == "Absent" else FAILED)


def test_a_process_that_may_open_no_more_files_ends_and_fails_no_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = prepare(tmp_path, "Tint", {})
    work(root)
    opened, read = [], Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        opened.extend([path] if path.suffix == ".png" else [])
        if len(opened) > 6:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return read(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", read_bytes)
        with pytest.raises(OSError, match="Too many open files"):
            work(root, "score")
    assert {record["status"] for record in read_records(run_dir(root), "score")} <= {"ok"}
    (process,) = read_journals(run_dir(root), "score")
    assert process.end == FAILED


def test_the_judge_is_told_all_and_the_editor_only_what_to_do(tmp_path: Path) -> None:
    first, second, reference = (tmp_path / f"{n}.png" for n in (1, 2, 3))
    for width, file in enumerate((first, second, reference), 1):
        Image.new("RGB", (width, 9)).save(file)
    items = [
        Item("one", "physical", "do it", first, "a cup", "it falls", reference),
        Item("two", "causal", "do both", (first, second)),
        Item("none", "causal", "do it", None),
        Item("bad", "causal", "do it", first, problem="no such base64"),
    ]
    class_path = {"class_path": "test_tasks.Tells"}
    config = load_config(make_config(tmp_path / "c.yaml", first, scorers={"t": class_path}))
    config.editor.class_path = class_path["class_path"]
    run = create_run(tmp_path / "run", config, lambda: items, {}, force=False)
    assert work(run.root) == [Tally(ok=2, failed=2)]
    told = {i: record["info"]["told"] for i, record in edits(run.root).items() if record["status"] == "ok"}
    assert told == {"one": ["do it", [[1, 9]]], "two": ["do both", [[1, 9], [2, 9]]]}
    assert "no source image" in edits(run.root)["none"]["error"]["message"]
    assert "no such base64" in edits(run.root)["bad"]["error"]["message"]
    work(run.root, "score")
    assert {record["id"]: record["info"]["told"] for record in read_records(run.folder, "score")} == {
        "one": ["physical", "do it", "a cup", "it falls", [[1, 9], [1, 9], [3, 9]]],
        "two": ["causal", "do both", "", "", [[1, 9], [2, 9], [1, 9]]],
    }


def test_a_record_tells_the_seed_that_the_editor_got_and_whether_it_changed_anything(tmp_path: Path) -> None:
    same, tinted = prepare(tmp_path, "test_tasks.Chatty", {}), prepare(tmp_path, "Tint", {}, name="tinted")
    work(same)
    work(tinted)
    record = edits(same)["s-3"]
    assert record["seed"] == record["info"]["seed"] == seed_of("s-3", 0)
    assert (record["unchanged"], edits(tinted)["s-3"]["unchanged"]) == (True, False)


def test_what_a_plug_in_says_of_itself_has_to_be_json(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_tasks.Chatty", {})
    assert work(root) == [Tally(ok=3, failed=3)]
    assert "JSON" in edits(root)["s-0"]["error"]["message"]
