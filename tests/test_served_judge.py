"""A judge's server that the scoring job starts itself; every server here is a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import stand_in_judge
from chat_server import request
from helpers import REPO, attempts, rows, run_dir
from ports import free_ports
from tasks import heal, prepare

from slurm_bench.cluster.heard import hear
from slurm_bench.errors import ServiceDown, UserError
from slurm_bench.run.opened import open_run
from slurm_bench.run.records import read_records
from slurm_bench.scorers.server import keeper, serve
from slurm_bench.scorers.server.faults import ApiError
from slurm_bench.scorers.server.scorer import OpenAIScorer
from slurm_bench.watch.explain import read_causes

REQUESTS = [request(number) for number in range(6)]


@pytest.fixture(autouse=True)
def _a_proxy_that_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on many a cluster: what is on this node is asked without it."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(autouse=True)
def _nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # for the log of a server whose scorer has none
    yield
    wait_for(lambda: not any(alive(pid) for start in starts(tmp_path) for pid in start["pids"]), "no server left")


@pytest.fixture
def _an_hour_after_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which a server has been starting for an hour as soon as it has said something."""

    def clock() -> float:
        said = any("loading weights" in log.read_text() for log in tmp_path.rglob("*-server*.log"))
        return time.monotonic() + 3600 * said

    monkeypatch.setattr(serve, "time", SimpleNamespace(monotonic=clock))


def wait_for(happened: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def command(folder: Path, *words: object) -> str:
    own = [sys.executable, stand_in_judge.__file__, "--port {port} --model {model} --folder", folder, *words]
    return " ".join(map(str, own))


def served(folder: Path, *words: object, **params: Any) -> OpenAIScorer:
    params = {"backoff": 0.01, "serve_timeout_s": 600.0, "concurrency": 2, "patience": 20.0} | params
    return OpenAIScorer(model="some/judge", serve=command(folder, *words), **params)


def starts(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(folder.rglob("start-*"))]


def alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def judged(scorer: OpenAIScorer) -> list[Any]:
    scorer.check()
    scorer.load()
    try:
        return scorer.score(REQUESTS)
    finally:
        scorer.close()


def test_it_is_waited_for_asked_and_ended(tmp_path: Path) -> None:
    results = judged(served(tmp_path, "--healthy-after 0.5"))
    assert [result.scores for result in results] == [{"overall": 7.0}] * 6
    (start,) = starts(tmp_path)
    assert start["model"] == "some/judge"
    assert not any(map(alive, start["pids"]))


def test_one_that_dies_is_started_again_and_no_sample_is_lost(tmp_path: Path) -> None:
    results = judged(served(tmp_path, "--dies-at 3"))
    assert [getattr(result, "scores", result) for result in results] == [{"overall": 7.0}] * 6
    assert len(starts(tmp_path)) == 2


def test_one_that_dies_again_is_no_sample_s_fault_and_what_was_judged_is_kept(tmp_path: Path) -> None:
    results = judged(served(tmp_path, "--dies-at 3 --deaths 2", concurrency=1))
    assert [result.scores for result in results[:4]] == [{"overall": 7.0}] * 4
    assert all(isinstance(result, ServiceDown) for result in results[4:])
    assert "died again" in str(results[4])
    assert "the engine is out of luck | slurm_bench: the server left with exit code 3" in str(results[4])


def test_a_sample_that_it_dies_of_costs_itself_alone(tmp_path: Path) -> None:
    requests = [request(number, instruction="poison" if number == 2 else "edit") for number in range(9)]
    scorer = served(tmp_path, "--poison poison", concurrency=4)
    scorer.load()
    try:
        results = scorer.score(requests)
        again = scorer.score([requests[2], requests[0]])  # as the engine tries once more what failed
    finally:
        scorer.close()
    assert isinstance(results[2], ApiError)
    assert "with it alone" in str(results[2])
    assert [result.scores for n, result in enumerate(results) if n != 2] == [{"overall": 7.0}] * 8
    assert isinstance(again[0], ApiError)
    assert again[1].scores == {"overall": 7.0}
    assert len(starts(tmp_path)) == 3


@pytest.mark.usefixtures("_an_hour_after_its_words")
def test_one_that_is_never_healthy_is_told_with_the_limit_and_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(serve.NeverUp) as told:
        judged(served(tmp_path, "--healthy-after 6000"))
    assert "within 600 s (params.serve_timeout_s)" in str(told.value)
    assert str(told.value).endswith("loading weights")
    assert "\n" not in str(told.value)


def test_one_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(serve.EndedEarly, match="unrecognized arguments: --tensor-paralel"):
        judged(served(tmp_path, "--tensor-paralel 4"))


@pytest.mark.parametrize(("he", "we"), [("--healthy-after=600", ""), ("--healthy-after=0", "--binds-after 1")])
def test_a_port_that_somebody_else_has_is_left_to_him(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, he: str, we: str
) -> None:
    """Ours ends for want of its port, without a word; or he answers as a healthy server does before ours is so far."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    ports = free_ports(2)
    words = [sys.executable, stand_in_judge.__file__, "--port", str(ports[0]), "--folder", str(theirs)]
    stranger = subprocess.Popen([*words, he], stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: serve._answers(ports[0]), "the stranger")
        monkeypatch.setattr(serve, "free_port", iter(ports).__next__)
        ours = tmp_path / "ours"
        ours.mkdir()
        silent = f"bash -c 'exec {command(ours, we)} 2>/dev/null'"
        scorer = OpenAIScorer(model="some/judge", serve=silent, patience=20.0)
        assert judged(scorer)[0].scores == {"overall": 7.0}
        assert [start["port"] for start in starts(ours)][-1] == ports[1]
        assert not list(theirs.glob("asked-*"))
    finally:
        os.kill(starts(theirs)[0]["pids"][1], signal.SIGKILL)
        stranger.kill()
        stranger.wait()


def test_it_goes_with_a_scorer_that_is_killed_and_lives_through_slurm_s_warning(tmp_path: Path) -> None:
    """And the process that scores imports no torch, so it holds no GPU."""
    code = f"""
import sys, time
from slurm_bench.scorers.server.scorer import OpenAIScorer
scorer = OpenAIScorer(model="m", serve={command(tmp_path)!r})
scorer.load()
print("torch" in sys.modules, flush=True)
time.sleep(600)
"""
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPO, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "False\n"
    (start,) = starts(tmp_path)
    os.kill(start["pids"][0], signal.SIGUSR2)
    time.sleep(0.2)
    assert all(map(alive, start["pids"]))
    process.kill()
    process.communicate()


def kept(folder: Path, in_turn: float) -> tuple[subprocess.Popen[bytes], int]:
    """A keeper by itself, which waits so many seconds for its turn to be told, and its server's pid."""
    code = "import os, sys, keeper; keeper.IN_TURN = float(sys.argv[1]); os._exit(keeper.main(sys.argv[2:]))"
    words = [str(in_turn), *command(folder).format(port=free_ports(1)[0], model="m").split()]
    where = Path(keeper.__file__).parent
    keeping = subprocess.Popen([sys.executable, "-c", code, *words], cwd=where, stdin=subprocess.PIPE)
    wait_for(lambda: starts(folder), "the server")
    return keeping, starts(folder)[0]["pids"][0]


def test_one_that_slurm_told_to_end_before_its_keeper_is_told_and_not_dead(tmp_path: Path) -> None:
    """Slurm tells the processes of a job one after the other, in any order."""
    keeping, server = kept(tmp_path, in_turn=240)
    os.kill(server, signal.SIGTERM)
    wait_for(lambda: not alive(server), "the server's end")
    keeping.terminate()
    assert keeping.wait(120) == keeper.TOLD


def test_one_that_died_alone_is_dead(tmp_path: Path) -> None:
    keeping, server = kept(tmp_path, in_turn=0.2)
    os.kill(server, signal.SIGKILL)
    assert keeping.wait(120) == 128 + signal.SIGKILL


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"serve": "vllm serve m --port 8000"}, "has no {port}"),
        ({"serve": "vllm serve 'm --port {port}"}, "can't be split"),
        ({"serve": "A=1 vllm serve m --port {port}"}, "begin with env: env A=1 vllm"),
        ({"serve": "cd x && vllm serve m --port {port}"}, "bash -c"),
        ({"serve": "vllm serve m --port {port}", "base_url": "http://h/v1"}, "leave one of them out"),
        ({}, "'params.base_url' is not set"),
    ],
)
def test_what_can_t_work_is_refused_when_it_is_made(params: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said.replace("{", r"\{")):
        OpenAIScorer(model="m", **params)


def test_a_program_that_is_not_here_is_refused_or_left_to_the_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = OpenAIScorer(model="m", serve="nowhere-to-be-found serve m --port {port}")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no program nowhere-to-be-found on the PATH"):
        scorer.check()
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setattr(serve.log, "propagate", True)
    scorer.check()
    assert "only the node can tell" in caplog.text
    with pytest.raises(UserError, match="no program nowhere-to-be-found on the PATH of"):
        scorer.load()


def judged_run(folder: Path, *words: object, **params: Any) -> tuple[Path, int | None]:
    """A run of six samples, and its exit code."""
    params = {"serve": command(folder, *words), "model": "m", "backoff": 0.01} | params
    judge = {"class_path": "slurm_bench.scorers.openai_api.OpenAIScorer", "params": params}
    root = prepare(folder, "Tint", {}, scorers={"judge": judge}, gpus=1, score_batch_size=2)
    return root, heal(root)


def test_in_a_run_the_chain_heals_what_dies_twice_and_its_log_lies_in_the_run(tmp_path: Path) -> None:
    root, code = judged_run(tmp_path, "--dies-at 2 --deaths 2", concurrency=1)
    assert code == 0
    assert {row["overall"] for row in rows(root)} == {"7.0"}
    assert [record["status"] for record in read_records(run_dir(root), "score")] == ["ok"] * 6
    assert len(attempts(root, "score")) == 2
    log = (root / "logs" / "score-001-0000-server.log").read_text()
    assert log.count("loading weights") == 2
    assert log.count("the server left with exit code 3") == 2


@pytest.mark.usefixtures("_an_hour_after_its_words")
def test_one_that_never_came_up_is_explained_and_not_tried_again(tmp_path: Path) -> None:
    root, code = judged_run(tmp_path, "--healthy-after 6000")
    assert code == 3
    assert len(attempts(root, "score")) == 1
    (cause,) = read_causes(open_run(root), hear, over=True)[1]
    assert cause.kind == "server_never_up"
    assert len(cause.samples) == 6
    assert "loading weights" in cause.what
