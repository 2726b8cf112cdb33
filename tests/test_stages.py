"""A task's work: one bad sample never hurts another, a failure is a record, nothing is silent."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import os
import signal
import time
import weakref
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
from helpers import images, make_benchmark, make_config, run_dir
from PIL import Image, ImageDraw
from plugins import Tint
from tasks import edits, prepare, work

from slurm_bench.cluster.heard import hear
from slurm_bench.command import command
from slurm_bench.config import load_config
from slurm_bench.data import read_items
from slurm_bench.editors.base import Edited, EditRequest
from slurm_bench.errors import FinalError, LostGpu, SampleError, ServiceDown, UserError
from slurm_bench.report.health import NO_CHANGE
from slurm_bench.run.attempts import claim
from slurm_bench.run.create import create_run
from slurm_bench.run.journal import read_journals
from slurm_bench.run.layout import RunDir
from slurm_bench.run.ledger import read_state
from slurm_bench.run.opened import open_run
from slurm_bench.run.plan import Sample, read_plan
from slurm_bench.run.records import read_records
from slurm_bench.scorers.base import Score, Scored, ScoreRequest
from slurm_bench.stages.behind import StorageFailed, WriteBehind
from slurm_bench.stages.engine import GpuLost, SystematicFailure, Tally
from slurm_bench.stages.faults import describe, is_out_of_memory, is_poisoned
from slurm_bench.stages.picture import copied, encode_png, largest_change, small
from slurm_bench.stages.stop import Stopped, StopSignals
from slurm_bench.stages.task import run_task
from slurm_bench.stages.work import ScoreWork, checked_scores
from slurm_bench.watch.explain import read_causes


def logged(root: Path) -> str:
    """By the first attempt's first task."""
    return (root / "logs" / "edit-001-0000.log").read_text()


def test_records_keep_the_contract_and_the_images_their_promise(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    assert work(root) == [Tally(ok=6)]
    assert work(root, "score") == [Tally(ok=6)]
    for record in edits(root).values():
        keys = {"id", "status", "seconds", "attempt", "task", "host", "image", "sha256", "width", "height", "seed"}
        assert keys <= record.keys()
        data = (root / record["image"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == record["sha256"]
        assert Image.open(root / record["image"]).size == (record["width"], record["height"])
    for record in read_records(run_dir(root), "score"):
        assert record["parse"] == "ok"
        assert set(record["scores"]) == {"brightness", "distance"}


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_sample_that_always_fails_is_a_record_and_hurts_no_other(tmp_path: Path, batch_size: int) -> None:
    root = prepare(tmp_path, "Tint", {"fail": ["s-1", "s-4"]}, batch_size=batch_size)
    assert work(root) == [Tally(ok=4, failed=2)]
    record = edits(root)["s-1"]
    assert record["status"] == "error"
    assert record["error"] == {"type": "ValueError", "message": "s-1 fails always"}
    assert record["tries"] == 2
    assert set(images(root)) == {"s-0", "s-2", "s-3", "s-5"}
    assert "Traceback" not in logged(root), "the editor gave it back: no line but ours was reached"


def test_a_failed_sample_gets_one_more_try(tmp_path: Path) -> None:
    root = prepare(tmp_path, "FailsOnce", {"marks": str(tmp_path)}, batch_size=2)
    assert work(root) == [Tally(ok=6)]


def test_the_batch_and_its_halving_leave_no_trace_in_the_images(tmp_path: Path) -> None:
    plain = prepare(tmp_path, "Tint", {}, name="plain")
    starved = prepare(tmp_path, "Starved", {"fits": 2}, name="starved", batch_size=5)
    work(plain, slices=2)
    assert work(starved) == [Tally(ok=6)]
    assert images(plain) == images(starved)


def test_out_of_memory_at_one_sample_is_that_samples_error(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Starved", {"fits": 0}, count=2)
    assert work(root) == [Tally(failed=2)]
    assert "out of memory" in edits(root)["s-0"]["error"]["message"]
    assert "plugins.py" in logged(root), "where it was raised"


def test_a_lost_gpu_ends_the_task_and_leaves_the_rest_to_others(tmp_path: Path) -> None:
    root = prepare(tmp_path, "PoisonedOnce", {"marks": str(tmp_path), "at": "s-2"})
    with pytest.raises(GpuLost, match="device-side assert"):
        work(root)
    assert set(edits(root)) == {"s-0", "s-1"}, "what was in hand is nobody's failure yet"
    assert work(root, number=2) == [Tally(ok=4)]


def test_nonsense_from_an_editor_is_an_error_never_an_image(tmp_path: Path) -> None:
    root = prepare(tmp_path, "WrongAnswers", {})
    assert work(root) == [Tally(ok=2, failed=4)]
    assert set(images(root)) == {"s-4", "s-5"}


class Endless(Tint):
    """For one sample an iterator that may as well have no end."""

    def edit(self, batch: Sequence[EditRequest]) -> Iterator[Edited | Exception]:  # type: ignore[override]
        yield from map(self.one, batch)
        if "s-0" in [request.id for request in batch]:
            yield from [self.one(batch[0])] * 99
            raise AssertionError("it is drawn to its end")


def test_more_results_than_samples_are_refused_though_there_is_no_end_of_them(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_stages.Endless", {}, count=4, batch_size=2)
    assert work(root) == [Tally(ok=3, failed=1)]
    assert edits(root)["s-0"]["error"]["message"] == "the plug-in gave more than 1 results for 1 samples"


class Settled(Tint):
    """Of most samples it says that another try would end alike."""

    def one(self, request: EditRequest) -> Edited | Exception:
        return super().one(request) if request.id == "s-11" else FinalError("no such sample can be edited")


def test_what_the_plug_in_says_is_final_is_tried_once_and_ends_no_task(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_stages.Settled", {}, count=12)
    assert work(root) == [Tally(ok=1, failed=11)]
    record = edits(root)["s-0"]
    assert (record["error"]["type"], record["tries"], record["final"]) == ("SampleError", 1, True)
    assert not open_run(root).state().worth_editing()


class Enlarges(Tint):
    def one(self, request: EditRequest) -> Edited | Exception:
        return Edited(Image.new("L", (10_000, 7_000)))


def test_an_image_that_could_not_be_scored_is_told_when_it_is_made(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_stages.Enlarges", {}, count=1)
    assert work(root) == [Tally(failed=1)]
    assert edits(root)["s-0"]["error"]["message"].endswith("at most 67108864 pixels are scored")


class HasFields(Tint):
    """Its exceptions have `fields` that mean something else, as those of many a library do."""

    def one(self, request: EditRequest) -> Edited | Exception:
        error = ValueError(f"{request.id} is invalid")
        error.fields = ("strength",) if request.id == "s-1" else {"status": "ok", "final": True}  # type: ignore[attr-defined]
        return error if request.id in ("s-1", "s-2") else super().one(request)


def test_what_an_exception_of_a_stranger_has_in_it_is_nothing_of_the_record(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_stages.HasFields", {}, count=4)
    assert work(root) == [Tally(ok=2, failed=2)]
    record = edits(root)["s-2"]
    assert (record["status"], record["tries"], "final" in record) == ("error", 2, False)


def test_broken_sources_are_records_too(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    (tmp_path / "bench" / "1.png").write_bytes((tmp_path / "bench" / "1.png").read_bytes()[:700])
    (tmp_path / "bench" / "2.png").unlink()
    assert work(root) == [Tally(ok=4, failed=2)]
    assert edits(root)["s-1"]["error"]["type"] == "SampleError"
    assert "Traceback" not in logged(root), "it is said in words"


def test_an_image_that_is_not_the_recorded_one_is_not_scored(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {}, count=3)
    work(root)
    victim = root / edits(root)["s-1"]["image"]
    victim.write_bytes((root / edits(root)["s-0"]["image"]).read_bytes())
    assert work(root, "score") == [Tally(ok=2, failed=1)]


def test_what_cannot_be_parsed_or_believed_is_no_number(tmp_path: Path) -> None:
    answers = {"s-0": 7.0, "s-1": "I like it", "s-2": "nan", "s-3": 11.0, "s-4": -0.1}
    judge = {"judge": {"class_path": "tests.plugins.Judge", "params": {"answers": answers}}}
    root = prepare(tmp_path, "Tint", {}, count=5, scorers=judge)
    work(root)
    assert work(root, "score") == [Tally(ok=1, failed=4)]
    records = {r["id"]: r for r in read_records(run_dir(root), "score")}
    assert records["s-1"]["raw"] == "I like it"
    assert records["s-1"]["parse"] == "no score in the reply"
    assert "scores" not in records["s-1"]
    assert "range" in records["s-3"]["error"]["message"]
    state = read_state(run_dir(root), read_plan(run_dir(root)), ["judge"])
    assert state.failure("s-1") == "score (judge): ParseFailure: no score in the reply"
    assert "s-1" in state.to_score()
    assert "s-1" not in state.worth_scoring()


class Heavy:
    """Of models that hold on to themselves, as many do, and aren't closed."""

    models: ClassVar[list[weakref.ref[Any]]] = []

    def load(self) -> None:
        assert not any(model() for model in self.models), "the scorer before it still has its model"
        self.model: Any = type("Model", (), {})()
        self.model.layer = self.model
        self.models.append(weakref.ref(self.model))

    def score(self, batch: Sequence[ScoreRequest]) -> list[dict[str, float]]:
        return [{"weight": 1.0} for _ in batch]


def test_a_scorer_finds_the_memory_of_the_one_before_it_free(tmp_path: Path) -> None:
    heavy = {"class_path": "test_stages.Heavy"}
    root = prepare(tmp_path, "Tint", {}, count=2, scorers={"one": heavy, "two": heavy})
    work(root)
    gc.disable()
    try:
        assert work(root, "score") == [Tally(ok=4)]
    finally:
        gc.enable()


class SaysNoText:
    """Gives the exception itself where a text says why there is no score."""

    def score(self, batch: Sequence[ScoreRequest]) -> list[Scored]:
        return [Scored({}, raw="I like it", parse=ValueError("no digit")) for _ in batch]  # type: ignore[arg-type]


def test_a_reason_that_is_no_text_is_its_samples_error(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {}, count=2, scorers={"judge": {"class_path": "test_stages.SaysNoText"}})
    work(root)
    assert work(root, "score") == [Tally(failed=2)]
    messages = [record["error"]["message"] for record in read_records(run_dir(root), "score")]
    assert all("'parse' is ValueError('no digit')" in message for message in messages)


class Away:
    """Scores the first of a batch; then the service is gone, or refuses everything."""

    def __init__(self, refuses: bool = False) -> None:
        self.error = UserError("the key is not valid") if refuses else ServiceDown("no answer for 300 s")

    def score(self, batch: Sequence[ScoreRequest]) -> list[Any]:
        return [{"q": 1.0}, *[self.error for _ in batch[1:]]]


@pytest.mark.parametrize("refuses", [False, True])
def test_a_service_that_is_away_or_refuses_fails_no_sample(tmp_path: Path, refuses: bool) -> None:
    scorer = {"judge": {"class_path": "test_stages.Away", "params": {"refuses": refuses}}}
    root = prepare(tmp_path, "Tint", {}, scorers=scorer)
    work(root)
    if refuses:
        with pytest.raises(UserError, match="key"):
            work(root, "score")
    else:
        assert work(root, "score") == [Tally(ok=1, stopped="ServiceDown: no answer for 300 s")]
    kept = [(r["id"], r["status"]) for r in read_records(run_dir(root), "score")]
    assert kept == [("s-0", "ok")], "what came right is kept"
    assert [p.end for p in read_journals(run_dir(root), "score")] == ["refused" if refuses else "stopped"]


class Paints:
    """Works on its input in place, and hands out one buffer again and again, undecoded."""

    buffer = Image.new("RGB", (48, 32))

    def edit(self, batch: Sequence[EditRequest]) -> list[Any]:
        results = []
        for request in batch:
            request.image.paste((request.seed & 255, 0, 0), (0, 0, *request.image.size))
            self.buffer.paste(request.image)
            results.append(self.buffer)
        return results


def test_an_editor_may_paint_on_its_input_and_use_its_buffer_again(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_stages.Paints", {})
    assert work(root) == [Tally(ok=6)]
    made = {i: Image.open(root / record["image"]).getpixel((0, 0)) for i, record in edits(root).items()}
    assert made == {s.id: (s.seed & 255, 0, 0) for s in open_run(root).samples}
    assert not any(record["unchanged"] for record in edits(root).values())


class CutOff:
    """Gives images that it hasn't decoded; one of them was cut off."""

    def edit(self, batch: Sequence[EditRequest]) -> list[Any]:
        (request,) = batch
        file = io.BytesIO()
        request.image.save(file, "PNG")
        data = file.getvalue()
        return [Image.open(io.BytesIO(data[: len(data) // 2] if request.id == "s-1" else data))]


def test_an_image_that_cannot_be_decoded_is_its_samples_error_and_no_full_disk(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_stages.CutOff", {})
    assert work(root) == [Tally(ok=5, failed=1)]
    assert "can't be decoded" in edits(root)["s-1"]["error"]["message"]


@pytest.mark.parametrize(("mode", "white"), [("I;16", 65535), ("I", 65535), ("F", 1.0)])
def test_an_image_of_more_than_8_bits_is_an_error_not_a_white_or_a_black_one(mode: str, white: float) -> None:
    with pytest.raises(SampleError, match=f"mode {mode}"):
        copied(Image.new(mode, (4, 4), white))
    assert copied(Image.new("L", (4, 4), 200)).getpixel((0, 0)) == (200, 200, 200)


class Panics(Tint):
    """As a library written in Rust does, whose panic is no Exception."""

    def one(self, request: EditRequest) -> Edited | Exception:
        if request.id == "s-1":
            raise type("PanicException", (BaseException,), {})("index out of bounds")
        return super().one(request)


def test_a_panic_is_its_samples_error_and_no_death(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_stages.Panics", {}, batch_size=2)
    assert work(root) == [Tally(ok=5, failed=1)]
    assert edits(root)["s-1"]["error"]["message"] == "PanicException: index out of bounds"


class Wordless(Tint):
    """Raises what can't be asked for its text."""

    def one(self, request: EditRequest) -> Edited | Exception:
        if request.id == "s-1":
            raise type("Mute", (Exception,), {"__str__": lambda self: str(self.args[0])})
        return super().one(request)


def test_an_exception_whose_text_cannot_be_had_is_its_samples_error(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_stages.Wordless", {}, batch_size=2)
    assert work(root) == [Tally(ok=5, failed=1)]
    assert edits(root)["s-1"]["error"] == {"type": "Mute", "message": "<exception str() failed>"}


class IsTold(Tint):
    """Is told to leave while it has sample `at` in hand, which takes it so many seconds."""

    def __init__(self, at: str, seconds: float = 0.0) -> None:
        super().__init__()
        self.at, self.seconds = at, seconds

    def one(self, request: EditRequest) -> Edited | Exception:
        if request.id == self.at:
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(self.seconds)
        return super().one(request)


class NoEdit(Tint):
    def one(self, request: EditRequest) -> Exception:
        return RuntimeError("no edit")


def test_a_task_whose_first_samples_all_fail_alike_ends_early(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_stages.NoEdit", {}, count=30)
    with pytest.raises(SystematicFailure, match="first 10 samples all failed alike: RuntimeError: no edit"):
        work(root)
    records = read_records(run_dir(root), "edit")
    assert len(records) == 10
    assert not any(o.settled for o in open_run(root).state().edits.values()), "it may be the node"


class Picky(Tint):
    """Says of some that it can't edit them, after `seconds`."""

    def __init__(self, fail: Sequence[str], seconds: float = 0.0) -> None:
        super().__init__(fail=fail)
        self.seconds = seconds

    def one(self, request: EditRequest) -> Edited | Exception:
        if request.id in self.fail:
            time.sleep(self.seconds)
            return SampleError("it has one source, and two are needed")
        return super().one(request)


def test_what_is_soon_said_of_the_first_samples_keeps_no_other_from_its_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [f"s-{n}" for n in range(12)]
    root = prepare(tmp_path, "test_stages.Picky", {"fail": first}, count=14)
    assert work(root) == [Tally(ok=2, failed=12)]
    monkeypatch.setattr("slurm_bench.stages.engine.SLOW", 0.001)
    root = prepare(tmp_path, "test_stages.Picky", {"fail": first, "seconds": 0.002}, count=14, name="slow")
    with pytest.raises(SystematicFailure, match="first 10 samples all failed alike: SampleError: it has one source"):
        work(root)


def test_sources_that_are_absent_keep_no_other_from_its_try(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {}, count=14)
    for n in range(12):
        (tmp_path / "bench" / f"{n}.png").unlink()
    assert work(root) == [Tally(ok=2, failed=12)]


def test_from_the_first_success_on_failures_alike_are_their_samples(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {"fail": [f"s-{n}" for n in range(1, 14)]}, count=14)
    assert work(root) == [Tally(ok=1, failed=13)]


class SeesWhatIsHeld(Tint):
    """Keeps what its process notes to have in hand when it comes to s-3."""

    def __init__(self, hand: str) -> None:
        super().__init__(fail=["s-0"])
        self.hand = Path(hand)

    def one(self, request: EditRequest) -> Edited | Exception:
        if request.id == "s-3":
            self.hand.with_suffix(".seen").write_bytes(self.hand.read_bytes())
        return super().one(request)


def test_what_waits_for_one_more_try_is_not_in_hand(tmp_path: Path) -> None:
    """Or it would be suspect where another one ends the process."""
    hand = tmp_path / "run" / "logs" / "tasks" / "edit-001-0000-r0.hand"
    root = prepare(tmp_path, "test_stages.SeesWhatIsHeld", {"hand": str(hand)})
    assert work(root) == [Tally(ok=5, failed=1)]
    held = json.loads(hand.with_suffix(".seen").read_text())["ids"]
    assert ("s-3" in held, "s-0" in held) == (True, False)


def test_samples_that_their_data_make_unusable_are_over_at_once_and_keep_no_other(tmp_path: Path) -> None:
    """However many of them come first; and for them alone no model is loaded."""
    file = make_benchmark(tmp_path / "bench", 13)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("\n".join(json.dumps(row | {"instruction": "do" if n > 11 else ""}) for n, row in enumerate(rows)))
    config = load_config(make_config(tmp_path / "c.yaml", file))
    run = create_run(tmp_path / "run", config, lambda: read_items(config.data), {}, force=False)
    assert work(run.root) == [Tally(ok=1, failed=12)]
    state = open_run(run.root).state()
    assert {(record["error"]["type"], record["final"]) for record in state.errors()} == {("SampleError", True)}
    assert not state.worth_editing()
    config.editor.class_path = "plugins.Unloadable"
    idle = create_run(tmp_path / "idle", config, lambda: list(read_items(config.data))[:12], {}, force=False)
    assert work(idle.root) == [Tally(failed=12)]


def test_a_restarted_task_does_only_what_is_left(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {})
    work(root)
    assert run_task(open_run(root), "edit", 1, 0, StopSignals()) == Tally()
    records = read_records(run_dir(root), "edit")
    assert len(records) == 6


def test_a_model_that_does_not_load_ends_the_task_and_says_why(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Unloadable", {})
    with pytest.raises(RuntimeError, match="no such weights"):
        work(root)
    (end,) = read_journals(run_dir(root), "edit")
    assert (end.end, end.message) == ("failed", "RuntimeError: no such weights")
    assert "no such weights" in logged(root)
    assert "plugins.py" in logged(root), "where it was raised"


def test_a_plug_ins_last_words_have_no_traceback(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Kills", {"at": "s-1", "how": "words"})
    assert work(root) == [Tally(ok=5, failed=1)]
    assert "sys.exit: please set FOO" in logged(root)
    assert "Traceback" not in logged(root), "it would have lines of ours alone"


def test_told_to_stop_it_leaves_after_the_sample_in_hand(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_stages.IsTold", {"at": "s-3"}, count=12)
    with StopSignals(warning=60) as stop:
        run = run_dir(root)
        assert claim(run, "edit", [s.id for s in read_plan(run)], 1, "debug", 0, 1)
        tally = run_task(open_run(run.root), "edit", 1, 0, stop)
    assert tally.stopped == "SIGUSR2"
    assert tally.ok == 4
    assert len(images(root)) == tally.ok == len(read_records(run, "edit"))


def test_told_to_stop_at_its_last_sample_it_has_nothing_to_be_started_again_for(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_stages.IsTold", {"at": "s-1"}, count=2)
    run = run_dir(root)
    assert claim(run, "edit", ["s-0", "s-1"], 1, "debug", 0, 1)
    with StopSignals(warning=60) as stop:
        assert run_task(open_run(root), "edit", 1, 0, stop) == Tally(ok=2)
    assert [process.end for process in read_journals(run, "edit")] == ["done"]


class SetsAnAlarm(Tint):
    """As a library does that bounds how long its own work may take, and has no handler of it any more."""

    def one(self, request: EditRequest) -> Edited | Exception:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        time.sleep(0.05)
        return super().one(request)


def test_an_alarm_of_a_plug_ins_own_is_no_order_to_leave(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_stages.SetsAnAlarm", {}, count=2)
    with StopSignals() as stop:
        assert claim(run_dir(root), "edit", ["s-0", "s-1"], 1, "debug", 0, 1)
        assert run_task(open_run(root), "edit", 1, 0, stop) == Tally(ok=2)


def test_a_sample_that_takes_too_long_is_dropped_and_the_rest_kept(tmp_path: Path) -> None:
    root = prepare(tmp_path, "test_stages.IsTold", {"at": "s-0", "seconds": 600}, count=2)
    with StopSignals(warning=1) as stop:
        run = run_dir(root)
        assert claim(run, "edit", ["s-0", "s-1"], 1, "debug", 0, 1)
        tally = run_task(open_run(run.root), "edit", 1, 0, stop)
    assert tally == Tally(stopped="SIGUSR2")
    assert read_records(run, "edit") == []


def test_no_except_exception_swallows_the_order_to_leave() -> None:
    def obstinate(stop: StopSignals) -> None:
        try:
            with stop.interruptible():
                time.sleep(20)
        except Exception:
            pytest.fail("swallowed")

    with StopSignals(warning=1) as stop:
        os.kill(os.getpid(), signal.SIGUSR2)
        with pytest.raises(Stopped):
            obstinate(stop)


def test_an_alarm_at_the_very_begin_of_a_call_is_heard() -> None:
    class RingsWhenAsked:
        def __bool__(self) -> bool:
            stop._over(signal.SIGALRM, None)
            return False

    with StopSignals() as stop:
        stop.reason = "SIGTERM"
        stop._overdue = RingsWhenAsked()  # type: ignore[assignment]
        with pytest.raises(Stopped), stop.interruptible():
            pytest.fail("the call was made, with nothing left that would end it")


def test_models_load_one_at_a_time_on_a_node(tmp_path: Path) -> None:
    import helpers

    data = make_benchmark(tmp_path / "bench", 6)
    params = {"marks": str(tmp_path), "seconds": 0.4}
    config = make_config(tmp_path / "c.yaml", data, "Loads", params, gpus=3)
    assert helpers.launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local").returncode == 0
    spans = sorted(tuple(map(float, f.read_text().split())) for f in tmp_path.glob("load-*"))
    assert len(spans) == 3
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert "load slot" in (tmp_path / "run" / "logs" / "edit-001-0000.log").read_text()


class Renames(Tint):
    """At one sample somebody renames the run folder."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self.root = Path(root)

    def one(self, request: EditRequest) -> Edited | Exception:
        if request.id == "s-2" and self.root.exists():
            while len(read_records(RunDir(self.root), "edit")) < 2:
                time.sleep(0.01)
            self.root.rename(self.root.with_name("moved"))
        return super().one(request)


def test_a_run_folder_that_is_moved_gets_no_record_of_an_image_that_it_lacks(tmp_path: Path) -> None:
    root, moved = prepare(tmp_path, "test_stages.Renames", {"root": str(tmp_path / "run")}), tmp_path / "moved"
    with pytest.raises(StorageFailed, match="moved, renamed or deleted"):
        work(root)
    assert not root.exists(), "nothing makes a folder of that name again"
    assert set(images(moved)) == {"s-0", "s-1"}, "each record's image is there"
    cause = next(c for c in read_causes(open_run(moved), hear, over=True)[1] if c.kind == "run_moved")
    assert cause.next == command("resubmit", moved)
    work(moved, number=2)
    assert len(images(moved)) == 6


def test_after_the_storage_failed_nothing_more_is_written() -> None:
    done: list[int] = []

    def full() -> None:
        raise OSError(28, "No space left on device")

    def work() -> None:
        with WriteBehind(1) as writer:
            writer.put(full)
            for n in range(100):
                writer.put(lambda n=n: done.append(n))

    with pytest.raises(StorageFailed, match="No space left"):
        work()
    assert done == []


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
)
def test_a_lack_of_memory_is_no_lost_gpu(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_poisoned(error)


@pytest.mark.parametrize(
    "error",
    [
        LostGpu("torch sees none"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA driver error: invalid device context"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED_CUDART"),
        RuntimeError("No CUDA GPUs are available"),
        RuntimeError("Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized"),
    ],
)
def test_a_lost_gpu_is_no_samples_fault(error: Exception) -> None:
    assert is_poisoned(error)
    assert not is_out_of_memory(error)


@pytest.mark.parametrize("error", [ValueError("CUDA error: said by a user"), RuntimeError("shapes don't match")])
def test_other_errors_are_the_samples(error: Exception) -> None:
    assert not is_poisoned(error)
    assert not is_out_of_memory(error)


def test_of_an_error_that_quotes_a_whole_image_the_record_has_a_part() -> None:
    assert len(describe(ValueError("x" * 10**6))["message"]) == 1000


def test_the_same_pixels_give_the_same_bytes_and_no_metadata(tmp_path: Path) -> None:
    image = Tint().one(EditRequest("a", "", (Image.new("RGB", (9, 7), "red"),), 5)).image  # type: ignore[union-attr]
    noted = image.copy()
    noted.info = {"dpi": (300, 300), "comment": "x", "icc_profile": b"abc"}
    assert encode_png(copied(image)) == encode_png(copied(noted))
    with pytest.raises(SampleError):
        copied(Image.new("RGB", (0, 3)))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_only_finite_numbers_are_scores_where_there_is_no_range(number: float) -> None:
    with pytest.raises(SampleError, match=r"'q'.*not a finite number"):
        checked_scores({"p": 1, "q": number}, None)
    assert checked_scores({"q": -1e9}, None) == {"q": -1e9}


def test_which_image_cannot_be_read_is_said(tmp_path: Path) -> None:
    root = prepare(tmp_path, "Tint", {}, count=2)
    work(root)
    rows = [json.loads(line) for line in (root / "plan.jsonl").read_text().splitlines()]
    run = open_run(root)
    scored = ScoreWork(run.folder, "judge", None, "", edits(root), lambda *_: None)
    for row, name in zip(rows, ("reference", "mask"), strict=True):
        with pytest.raises(SampleError, match=f"^{name}: .*nope.png: no such file"):
            scored.read(Sample.from_json(row | {name: "/nope.png"}))


@pytest.mark.parametrize("number", [1e101, -1e308])
def test_a_number_whose_sums_overflow_is_no_score(number: float) -> None:
    with pytest.raises(SampleError, match=r"'q' is .*; it is from -1e\+100 to 1e\+100"):
        checked_scores({"q": number}, None)


@pytest.mark.parametrize(
    "bad", [{}, [], {"q": None}, {"q": True}, {"q": "9"}, {"q": float("inf")}, {"q": 10.1}, {"q": -0.1}]
)
def test_only_finite_numbers_in_range_are_scores(bad: Any) -> None:
    with pytest.raises(SampleError):
        checked_scores(bad, {"q": Score(0, 10)})


@pytest.mark.parametrize(
    ("how", "changes"),
    [
        ("encoded", False),
        ("resized", False),
        ("opaque", False),
        ("beneath what is transparent", False),
        ("a dot", True),
        ("made transparent", True),
        ("a tint", True),
    ],
)
def test_an_encoders_noise_is_no_change_and_a_dot_is_one(how: str, changes: bool) -> None:
    source = Image.fromarray(pytest.importorskip("skimage.data").chelsea()).resize((1024, 768))
    edited = source.copy()
    if how == "encoded":
        buffer = io.BytesIO()
        source.save(buffer, "JPEG", quality=50)
        edited = Image.open(buffer)
    elif how == "resized":
        edited = source.resize((832, 608), Image.Resampling.LANCZOS)
    elif how == "opaque":
        edited.putalpha(255)
    elif how == "beneath what is transparent":
        hole = Image.new("L", source.size, 255)
        ImageDraw.Draw(hole).rectangle((100, 100, 300, 300), fill=0)
        source.putalpha(hole)
        edited = Image.composite(source, Image.new("RGBA", source.size, (9, 9, 9, 0)), hole)
    elif how == "a dot":
        ImageDraw.Draw(edited).ellipse((500, 380, 516, 396), fill="red")
    elif how == "made transparent":
        edited.putalpha(200)
    else:
        edited = Image.blend(source, Image.new("RGB", source.size, "orange"), 0.25)
    assert (largest_change(small(source), small(edited)) > NO_CHANGE) is changes


def test_the_log_and_the_records_survive_strange_ids(tmp_path: Path) -> None:
    data = make_benchmark(tmp_path / "bench", 1)
    ids = ["a/b", "../../x", "nul\0", "y" * 300, "new\nline", "=1+1", "<b>|`"]
    rows = [{"id": i, "category": "c|<i>", "instruction": "x", "image": "0.png"} for i in ids]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = load_config(make_config(tmp_path / "c.yaml", data))
    create_run(tmp_path / "run", config, lambda: read_items(config.data), {}, force=False)
    before = set(tmp_path.iterdir())
    assert work(tmp_path / "run") == [Tally(ok=len(ids))]
    assert set(images(tmp_path / "run")) == set(ids)
    assert set(tmp_path.iterdir()) == before
