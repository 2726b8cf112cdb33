"""What a judge was asked can be made again from the run's folder alone, word for word, and is told from other words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from chat_server import Reply, Server, says, serve
from helpers import launch
from PIL import Image
from protocol_prompts import write_gedit

from slurm_bench.bundled import bundled
from slurm_bench.cli import main
from slurm_bench.scorers.judge import prompt

SAMPLES = ("plain", "told", "unread", "turn")
DIGIT = {"content": [{"token": "7", "logprob": -0.1, "top_logprobs": [{"token": "7", "logprob": -0.1}]}]}


def answer(body: dict[str, Any]) -> Reply:
    if body.get("logprobs"):
        return Reply(says("7", logprobs=DIGIT))
    text = json.dumps(body["messages"])
    if "natural" in text or "follow the text" in text:
        return Reply(says('{"score": [9, 8], "reasoning": "so"}'))
    return Reply(says("no number at all" if "unreadable" in text else '{"overall": 7, "quality": 6}'))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A run whose data, rubrics and prompts are gone, and the requests that its judges' server got."""
    folder = tmp_path_factory.mktemp("prompts")
    for name in ("a", "b", "r"):
        Image.new("RGB", (32, 24), {"a": "red", "b": "green", "r": "blue"}[name]).save(folder / f"{name}.png")
    rows = [
        {"id": "plain", "category": "physical", "instruction": 'say "hi" <|im_end|>', "image": "a.png"},
        {"id": "told", "category": "causal", "instruction": "do", "image": "b.png", "reference": "r.png"},
        {"id": "unread", "category": "other", "instruction": "unreadable", "image": "a.png"},
        {"id": "turn", "category": "causal", "instruction": "then", "follows": "told"},
    ]
    rows[1] |= {"description": "what it shows", "rationale": "ligne\nà ligne"}
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copy(bundled("rubrics.yaml"), folder / "rubrics.yaml")
    with serve(Reply()) as server:
        server.script = answer
        config = folder / "config.yaml"
        config.write_text(json.dumps(_config(folder, server)))
        done = launch("--config", config, "--run-dir", folder / "run", "--executor", "debug")
        assert done.returncode == 3, done.stderr  # one can't be read
    for gone in ("data.jsonl", "rubrics.yaml", "config.yaml"):
        (folder / gone).unlink()
    shutil.rmtree(folder / "checkout")
    return folder / "run", server.asked


def _config(folder: Path, server: Server) -> dict[str, Any]:
    openai = "slurm_bench.scorers.openai_api.OpenAIScorer"
    at = {"base_url": server.url, "model": "m", "api_key_env": None, "retries": 0, "patience": 5.0}
    ours = at | {"rubrics": str(folder / "rubrics.yaml"), "aspects": ["overall", "quality"]}
    protocol = {"prompts": str(write_gedit(folder / "checkout")), "judge": {"class_path": openai, "params": at}}
    return {
        "data": {"reader": "jsonl", "path": str(folder / "data.jsonl"), "fields": {"follows": "follows"}},
        "editor": {"class_path": "tests.plugins.Tint"},
        "scorers": {
            "writes": {"class_path": openai, "params": ours | {"mode": "generate"}},
            "digit": {"class_path": openai, "params": ours | {"mode": "expected"}},
            "gedit": {"class_path": "slurm_bench.scorers.protocols.GEditProtocol", "params": protocol},
        },
    }


def _texts(body: dict[str, Any]) -> list[str | None]:
    """What a request says, None where it shows an image."""
    system = [message["content"] for message in body["messages"] if message["role"] == "system"]
    parts = body["messages"][-1]["content"]
    return [*(system or [""]), *(part["text"] if part["type"] == "text" else None for part in parts)]


def test_every_records_prompts_are_made_again_word_for_word(judged: tuple[Path, list[dict[str, Any]]]) -> None:
    root, asked = judged
    done = launch("report", root, "--prompts")
    assert done.returncode == 3, done.stderr
    rows = [json.loads(line) for line in (root / "report" / "prompts.jsonl").read_text().splitlines()]
    assert {(row["scorer"], row["id"]) for row in rows} == {
        (scorer, sample) for scorer in ("writes", "digit", "gedit") for sample in SAMPLES
    }
    assert all(row["same"] for row in rows)
    made = sorted(json.dumps(texts) for row in rows for texts in row["asked"])
    assert made == sorted(json.dumps(_texts(body)) for body in asked)


def test_other_words_are_told(
    judged: tuple[Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = judged
    before = prompt.in_json
    monkeypatch.setattr(prompt, "in_json", lambda rubrics, aspects: before(rubrics, aspects) + " Please.")
    assert main(["report", str(root), "--prompts"]) == 1
    assert "4 of 12 prompts are not those that were asked, the first of 'plain'" in capsys.readouterr().err


def test_a_run_that_holds_no_prompts_says_so(finished_run: str) -> None:
    done = launch("report", finished_run, "--prompts")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "has no judge's rubrics or prompts" in done.stderr
