"""Instructions that a language model rewrites before they are edited by: a declared variant, and never silent."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from chat_server import KEY, Reply, key_set, says, serve
from helpers import launch, make_benchmark, make_config, rows, run_dir, summary
from PIL import Image
from tasks import edits, heal, prepare, work

from slurm_bench.config import config_hash, load_config
from slurm_bench.editors.base import Edited, EditRequest
from slurm_bench.errors import ServiceDown, UserError
from slurm_bench.plugins import check_plugins
from slurm_bench.report.table import rewritten_of
from slurm_bench.rewriters.base import Rewritten
from slurm_bench.rewriters.openai_api import OpenAIRewriter
from slurm_bench.run.create import reconfigure, store
from slurm_bench.run.opened import open_run
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import Outcome, read_records
from slurm_bench.scorers.base import Scored, ScoreRequest
from slurm_bench.stages.beforehand import rewrite_all
from slurm_bench.stages.engine import Tally


class Notes:
    """An editor that notes what it was told."""

    def __init__(self, fail: Sequence[str] = ()) -> None:
        self.fail = fail

    def edit(self, batch: Sequence[EditRequest]) -> list[Edited | Exception]:
        return [
            ValueError("no luck") if r.id in self.fail else Edited(r.image.copy(), {"told": r.instruction})
            for r in batch
        ]


class Repeats:
    """A judge that says what it was told."""

    def score(self, batch: Sequence[ScoreRequest]) -> list[Scored]:
        return [Scored({"quality": 1.0}, raw=request.instruction) for request in batch]


class Louder:
    """Notes what it is asked in `folder`; what it fails at and how is told by `fail`."""

    def __init__(self, folder: str, fail: dict[str, str] | None = None, sign: str = "!") -> None:
        self.folder, self.fail, self.sign = Path(folder), fail or {}, sign
        self.at_work = 0

    def rewrite(self, request: EditRequest) -> str | Rewritten | None:
        self.at_work += 1
        with open(self.folder / "asked", "a") as file:
            file.write(f"{request.id}\n")
        time.sleep(0.01)
        assert self.at_work == 1, "two threads at once"
        self.at_work -= 1
        how = self.fail.get(request.id)
        if how == "away":
            raise ServiceDown("nobody answers")
        if how == "refused":
            raise UserError("the key is wrong")
        if how == "raises":
            raise ValueError("no idea")
        if how == "panics":  # as a library written in Rust
            raise type("PanicException", (BaseException,), {})("index out of bounds")
        if how:
            return {"blank": " ", "nothing": None}[how]
        return Rewritten(f"{request.instruction.upper()}{self.sign}", {"usage": {"completion_tokens": 2}})

    def provenance(self) -> dict[str, str]:
        return {"model": "some/model"}


def louder(folder: Path, **params: Any) -> dict[str, Any]:
    return {"class_path": "test_rewriter.Louder", "params": {"folder": str(folder), **params}}


def asked(folder: Path) -> list[str]:
    return sorted((folder / "asked").read_text().split())


def made(tmp_path: Path, rewriter: dict[str, Any] | None, repeats: int = 1, **params: Any) -> Path:
    scorers = {"judge": {"class_path": "test_rewriter.Repeats"}}
    return prepare(tmp_path, "test_rewriter.Notes", params, rewriter=rewriter, scorers=scorers, repeats=repeats)


def test_the_editor_is_given_the_new_text_the_judge_the_old_one_and_both_are_told(tmp_path: Path) -> None:
    root = made(tmp_path, louder(tmp_path))
    assert heal(root) == 0
    assert asked(tmp_path) == [f"s-{n}" for n in range(6)], "one at a time, as it doesn't say that it is concurrent"
    record = edits(root)["s-3"]
    assert record["info"]["told"] == record["rewrite"]["text"] == "EDIT 3!"
    assert record["rewrite"]["model"] == "some/model"
    assert record["rewrite"]["by"] == open_run(root).by["rewriter"]
    assert record["rewrite"]["info"] == {"usage": {"completion_tokens": 2}}
    assert {r["raw"] for r in read_records(run_dir(root), "score")} == {f"edit {n}" for n in range(6)}
    assert {(row["instruction"], row["rewritten"]) for row in rows(root)} == {
        (f"edit {n}", f"EDIT {n}!") for n in range(6)
    }
    report = (root / "report" / "report.md").read_text()
    assert "| s-3 | edit 3 | EDIT 3\\! |" in report
    assert "| rewriter | test\\_rewriter.Louder |" in report
    page = (root / "report" / "page" / "data.js").read_text()
    assert '"rewritten":"EDIT 3!"' in page
    assert "each instruction was rewritten by" in (root / "report" / "report.html").read_text()


@pytest.mark.parametrize("damaged", [{"rewrite": "louder"}, {"rewrite": [1]}, {"rewrite": None}, {}])
def test_a_record_without_a_whole_rewrite_tells_none(damaged: dict[str, Any]) -> None:
    assert rewritten_of(Outcome(ok=damaged)) == rewritten_of(Outcome(errors=[damaged])) == ""


def test_it_is_part_of_who_made_an_edit(tmp_path: Path) -> None:
    """Also where the same run goes on with it by force, or with another one."""
    root = made(tmp_path, None)
    work(root)
    run = open_run(root)
    marks, before = [run.by["editor"]], run.by
    config = run.config
    for words in ([], ["rewriter.params.sign='?'"], ["rewriter=null"]):
        with_one = tmp_path / f"with{len(marks)}.yaml"
        with_one.write_text(json.dumps({"rewriter": louder(tmp_path)}))
        changed = load_config(with_one, ["editor=a.B", "scorers.s=a.C", *words]).rewriter
        config.rewriter = changed
        with pytest.raises(UserError, match="rewriter"):
            reconfigure(open_run(root), config, {}, force=False)
        run = reconfigure(open_run(root), config, {}, force=True)
        store(run)
        marks.append(run.by["editor"])
        assert len(open_run(root).state().to_edit()) == (0 if changed is None else 6)
    assert len(set(marks[:3])) == 3
    assert marks[3] == marks[0]
    assert open_run(root).by == before


def test_who_goes_on_asks_nothing_twice_and_takes_what_is_there(tmp_path: Path) -> None:
    root = made(tmp_path, louder(tmp_path), fail=["s-1", "s-4"])
    assert heal(root) == 3
    (text,) = (root / "edit" / "rewrites").rglob("s-4-*.json")
    text.write_text(json.dumps(json.loads(text.read_text()) | {"text": "as it was said then"}))
    assert heal(root) == 3
    assert asked(tmp_path) == [f"s-{n}" for n in range(6)]
    failed = [record for record in read_records(run_dir(root), "edit") if record["id"] == "s-4"]
    assert [record["rewrite"]["text"] for record in failed][-1] == "as it was said then"


class Closes(Louder):
    """Has something to give back."""

    def close(self) -> None:
        (self.folder / "closed").touch()


def test_a_task_closes_the_rewriter_that_it_used(tmp_path: Path) -> None:
    root = made(tmp_path, louder(tmp_path) | {"class_path": "test_rewriter.Closes"})
    assert work(root) == [Tally(ok=6)]
    assert (tmp_path / "closed").exists()


def test_what_was_written_for_another_source_is_not_taken(tmp_path: Path) -> None:
    """A rewriter may be shown it."""
    root = made(tmp_path, louder(tmp_path))
    assert rewrite_all(open_run(root)) == {}
    Image.new("RGB", (48, 32), "red").save(tmp_path / "bench" / "2.png")
    assert heal(root) == 0
    assert asked(tmp_path) == sorted([f"s-{n}" for n in range(6)] + ["s-2"])


def test_a_sample_under_several_seeds_has_one_text(tmp_path: Path) -> None:
    root = made(tmp_path, louder(tmp_path), repeats=2)
    assert heal(root) == 0
    assert sorted(set(asked(tmp_path))) == [f"s-{n}" for n in range(6)]
    assert len(list((root / "edit" / "rewrites").rglob("*.json"))) == 6
    made_of = {i: record["rewrite"]["text"] for i, record in edits(root).items()}
    assert made_of == {f"s-{n}{more}": f"EDIT {n}!" for n in range(6) for more in ("", "@2")}


def test_what_can_t_be_rewritten_is_that_sample_s_error_and_is_not_edited_as_it_was(tmp_path: Path) -> None:
    root = made(tmp_path, louder(tmp_path, fail={"s-0": "raises", "s-2": "blank", "s-4": "panics", "s-5": "nothing"}))
    assert heal(root) == 3
    errors = {i: record["error"] for i, record in edits(root).items() if record["status"] == "error"}
    assert errors == {
        "s-0": {"type": "RewriteFailed", "message": "the rewriter failed: ValueError: no idea"},
        "s-2": {"type": "RewriteFailed", "message": "the rewriter gave ' ', no text"},
        "s-4": {"type": "RewriteFailed", "message": "the rewriter failed: PanicException: index out of bounds"},
        "s-5": {"type": "RewriteFailed", "message": "the rewriter gave None, no text"},
    }
    counts = summary(root)["counts"]
    assert (counts["edited"], counts["scored"], counts["failed"]) == (2, 2, 4)


def test_one_that_is_away_is_no_sample_s_fault(tmp_path: Path) -> None:
    root = made(tmp_path, louder(tmp_path, fail={"s-2": "away"}))
    (tally,) = work(root)
    assert "nobody answers" in str(tally.stopped)
    assert {record["status"] for record in edits(root).values()} == {"ok"}


def test_one_that_refuses_ends_the_task(tmp_path: Path) -> None:
    root = made(tmp_path, louder(tmp_path, fail={"s-2": "refused"}))
    with pytest.raises(UserError, match="the key is wrong"):
        work(root)
    assert {record["status"] for record in edits(root).values()} == {"ok"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["rewriter=test_rewriter.Loudr"],
            "'rewriter.class_path': test_rewriter has no 'Loudr'; did you mean 'Louder'",
        ),
        (["rewriter=test_rewriter.Notes"], "test_rewriter.Notes has no method 'rewrite'"),
        (["rewriter=test_rewriter.Louder"], "'rewriter.params.folder' is not set"),
        (["rewriter.params.x=1"], "'rewriter.params.x=1': 'rewriter.class_path' is not set"),
        (
            ["rewriter=slurm_bench.rewriters.openai_api.OpenAIRewriter", "rewriter.params={base_url: x, model: m}"],
            "'rewriter.params.base_url' is no plain address",
        ),
    ],
)
def test_what_can_t_work_is_refused_before_anything_starts(tmp_path: Path, words: list[str], said: str) -> None:
    file = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 1))
    with pytest.raises(UserError) as told:
        check_plugins(load_config(file, words))
    assert said in str(told.value)


def test_without_one_a_configuration_is_called_what_it_was_called(tmp_path: Path) -> None:
    config = load_config(None, ["editor=a.B", "scorers.s=a.C"])
    assert config_hash(config) == "262b3268c3cbc230"


def request(**changes: Any) -> EditRequest:
    fields = {"id": "a", "instruction": "Let go", "images": (Image.new("RGB", (40, 20), "red"),), "seed": 5}
    return EditRequest(**(fields | changes))


def told_by(*replies: Reply, **params: Any) -> tuple[Rewritten | Exception, dict[str, Any]]:
    """What the rewriter makes of a server's replies, and what it asked first."""
    with serve(*replies) as server:
        rewriter = OpenAIRewriter(server.url, "some-model", **({"backoff": 0.001, "patience": 0.2} | params))
        rewriter.check()
        rewriter.load()
        try:
            return rewriter.rewrite(request()), server.asked[0]
        except Exception as error:
            return error, server.asked[0]
        finally:
            rewriter.close()


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    key_set(monkeypatch)


def test_a_server_s_model_is_asked_once_for_each_text(key: None, tmp_path: Path) -> None:
    reply = Reply(says("<think>hm</think>\n The ball falls. \n", usage={"completion_tokens": 9}, model="some-model-7"))
    rewritten, body = told_by(Reply(b"", 503), reply, patience=120)
    assert rewritten == Rewritten(
        "The ball falls.", {"usage": {"completion_tokens": 9}, "served_model": "some-model-7"}
    )
    assert (body["model"], body["temperature"], body["seed"], body["max_tokens"]) == ("some-model", 0.0, 5, 1024)
    system, user = body["messages"]
    assert "image-editing model" in system["content"]
    assert user == {"role": "user", "content": "Let go"}


def test_its_prompt_is_yours_and_it_may_see_the_sources(key: None, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Be brief.\n")
    _, body = told_by(Reply(says("Drop it")), prompt=str(prompt), show_sources=True, extra={"seed": None})
    system, user = body["messages"]
    assert system["content"] == "Be brief."
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]
    assert user["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert "seed" not in body
    first, second = OpenAIRewriter("http://h/v1", "m"), OpenAIRewriter("http://h/v1", "m", prompt=str(prompt))
    assert first.provenance()["prompt_sha256"] != second.provenance()["prompt_sha256"]


def test_what_is_transparent_is_shown_on_white_as_to_a_judge(key: None) -> None:
    """Under it lies what nobody sees."""
    rewriter = OpenAIRewriter("http://h/v1", "m", show_sources=True)
    clear = EditRequest("a", "Drop it", (Image.new("RGBA", (8, 8), (200, 0, 0, 0)),), 1)
    url = rewriter._messages(clear)[1]["content"][0]["image_url"]["url"]
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as shown:
        assert shown.getpixel((4, 4)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(says("The ball", finish="length")), "max_tokens is 1024"),
        (Reply(says(None, refusal="I can't")), "the model refused: I can't"),
        (Reply(says("<think>hm")), "ends within the model's thinking"),
        (Reply(says("", finish="content_filter")), "content filter"),
    ],
)
def test_half_a_text_is_none(key: None, reply: Reply, said: str) -> None:
    error, _ = told_by(reply)
    assert said in str(error)


def test_who_rewrites_ahead_needs_no_server_where_it_is_edited_and_the_key_stays_out_of_the_run(
    key: None, tmp_path: Path
) -> None:
    root, where = tmp_path / "run", ("--config", tmp_path / "c.yaml", "--run-dir", tmp_path / "run")
    with serve(Reply(says("Brighter"))) as server:
        params = {"base_url": server.url, "model": "m"}
        rewriter = {"class_path": "slurm_bench.rewriters.openai_api.OpenAIRewriter", "params": params}
        make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 4), rewriter=rewriter)
        server.script = lambda body: Reply(b"no", 400) if "edit 2" in str(body) else Reply(says("Brighter"))
        first = launch("rewrite", *where)
        assert first.returncode == 3, first.stderr
        assert "left out  's-2': the rewriter failed: ApiError: HTTP 400: no" in first.stdout
        assert "rewritten 3 of 4 instructions" in first.stdout
        server.script = None
        asked_so_far = len(server.asked)
        second = launch("rewrite", *where)
        assert second.returncode == 0, second.stderr
        assert len(server.asked) == asked_so_far + 1
        assert f"python launch.py run --run-dir {root}" in second.stdout
        assert all(headers["authorization"] == f"Bearer {KEY}" for headers in map(_lower, server.headers))
    assert not list(root.glob("attempts/*"))
    done = launch("run", "--run-dir", root, "--executor", "local")
    assert done.returncode == 0, done.stderr
    assert {row["rewritten"] for row in rows(root)} == {"Brighter"}
    assert not [f for f in root.rglob("*") if f.is_file() and KEY.encode() in f.read_bytes()]


def _lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def test_of_two_tasks_that_rewrite_the_same_sample_both_edit_by_one_text(tmp_path: Path) -> None:
    from slurm_bench.stages.rewriting import Rewriting

    class Random:
        concurrent = True

        def __init__(self) -> None:
            self.together = threading.Barrier(2, timeout=120)

        def rewrite(self, request: EditRequest) -> str:
            self.together.wait()
            return f"text of {threading.get_ident()}"

    rewriter, texts = Random(), []
    sample = Sample(0, "a", "", "Let go", None, 5)
    tasks = [Rewriting(run_dir(tmp_path), rewriter, "by", 0) for _ in range(2)]
    threads = [
        threading.Thread(target=lambda task=task: texts.append(task.rewritten(sample, request(), "abc").instruction))
        for task in tasks
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 2
    assert len(set(texts)) == 1
