"""The scorer against a server that isn't ours: transformers', with a tiny judge of random weights."""

import threading

import httpx
import pytest
import tiny_judge
from chat_server import key_set
from ports import free_ports
from transformers.utils.import_utils import is_serve_available

from slurm_bench.scorers.server.faults import ApiRefused
from slurm_bench.scorers.server.scorer import OpenAIScorer

pytestmark = pytest.mark.skipif(not is_serve_available(), reason="transformers[serving] isn't installed")


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    key_set(monkeypatch)


@pytest.fixture(scope="module")
def url():
    from transformers.cli.serve import Serve

    (port,) = free_ports(1)
    model = str(tiny_judge.checkpoint())
    server = Serve(model, host="127.0.0.1", port=port, device="cpu", log_level="error", non_blocking=True)
    while not server.server.started:
        assert server._thread.is_alive()
        threading.Event().wait(0.05)
    yield f"http://127.0.0.1:{port}/v1"
    server.kill_server()


def judged(url, requests, **params):
    made = OpenAIScorer(url, str(tiny_judge.checkpoint()), api_key_env=None, patience=20, **params)
    made.check()
    made.load()
    results = made.score(requests)
    made.close()
    return results


def test_what_it_writes_is_recorded_with_its_tokens(url):
    (result,) = judged(url, [tiny_judge.request(0)], max_tokens=8)
    assert result.scores == {}
    assert "max_tokens is 8" in result.parse
    assert result.raw
    assert result.info["usage"]["completion_tokens"] == 8
    assert result.info["usage"]["prompt_tokens"] > 100
    assert str(tiny_judge.checkpoint()) in result.info["served_model"]


def test_that_it_gives_no_log_probabilities_is_told_once_for_all(url):
    results = judged(url, [tiny_judge.request(number) for number in range(3)], mode="expected", concurrency=1)
    assert all(isinstance(result, ApiRefused) and "params.mode=generate" in str(result) for result in results)


def test_a_field_that_it_does_not_know_is_told_with_the_parameter_that_brought_it(url):
    (result,) = judged(url, [tiny_judge.request(0)], extra={"unheard_of": 1})
    assert isinstance(result, ApiRefused)
    assert "unheard_of" in str(result)
    assert "params.extra" in str(result)


def test_another_model_than_it_serves_is_that_server_s_own_words(url):
    made = OpenAIScorer(url, "owner/other", api_key_env=None, patience=20)
    made.load()
    (result,) = made.score([tiny_judge.request(0)])
    assert "owner/other" in str(result)
    assert httpx.get(url.replace("/v1", "/health"), timeout=120).status_code == 200
