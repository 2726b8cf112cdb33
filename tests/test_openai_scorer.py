import base64
import io
import json
import logging
import math
import threading

import pytest
from chat_server import Reply, says, serve
from PIL import Image

from slurm_bench.errors import SampleError, UserError
from slurm_bench.scorers.base import Scored, ScoreRequest
from slurm_bench.scorers.chat_api import ApiError, ApiRefused, Pace, retry_after
from slurm_bench.scorers.openai_api import OpenAIScorer, bounded

KEY = "sk-very-secret-key"


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for proxy in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)


def request(number=0, **changes):
    fields = {
        "id": f"sample-{number}",
        "category": "physical",
        "instruction": "Let go of the ball",
        "sources": (Image.new("RGB", (40, 20), "red"),),
        "edited": Image.new("RGB", (20, 40), "blue"),
        "reference": None,
        "description": "",
        "rationale": "",
        "seed": 100 + number,
    }
    return ScoreRequest(**(fields | changes))


def scorer(server, **params):
    made = OpenAIScorer(server.url, "some-judge", **({"backoff": 0.001, "timeout": 20.0} | params))
    made.check()
    made.load()
    return made


def judge(*replies, requests=None, **params):
    """Results, and the server that was asked."""
    with serve(*replies) as server:
        made = scorer(server, **params)
        results = made.score(requests or [request()])
        made.close()
        return results, server


def test_a_judgement():
    (result,), server = judge(Reply(says('The ball fell. {"overall": 7.5}')))
    assert result == Scored({"overall": 7.5}, raw='The ball fell. {"overall": 7.5}')
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    (body,) = server.asked
    assert body["model"] == "some-judge"
    assert body["temperature"] == 0
    assert body["seed"] == 100


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_the_server_is_shown_source_then_edit(kind):
    _, server = judge(Reply(), image_format=kind)
    content = server.asked[0]["messages"][1]["content"]
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    assert all(url.startswith(f"data:image/{kind};base64,") for url in urls)
    images = [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]
    assert [image.size for image in images] == [(40, 20), (20, 40)]
    red, blue = (image.getpixel((0, 0)) for image in images)
    assert red[0] > 200 > 50 > red[2]
    assert blue[2] > 200 > 50 > blue[0]
    assert "Let go of the ball" in content[-1]["text"]


def test_images_are_bounded_in_their_own_proportions():
    image = bounded(Image.new("RGB", (4000, 1000)), 1_000_000)
    assert image.size == (2000, 500)
    assert bounded(image, 1_000_000) is image
    assert bounded(Image.new("RGB", (5000, 1)), 1024).size[1] == 1


@pytest.mark.parametrize(
    "passing",
    [
        Reply(b"slow down", 429),
        Reply(b"", 500),
        Reply(b"bad gateway", 502),
        Reply(b"", 429, {"Retry-After": "0.01"}),
        Reply(b"<html>proxy</html>"),
        Reply(b'{"choices": []}'),
        Reply(b'{"error": {"message": "overloaded"}}'),
        Reply(b"[]"),
        Reply(b'{"choices": [{"message": {"content": ["a"]}}]}'),
    ],
)
def test_what_may_pass_is_asked_again(passing):
    (result,), server = judge(passing, Reply())
    assert result.scores == {"overall": 7.0}
    assert len(server.asked) == 2
    assert server.asked[0] == server.asked[1]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_stays_down_gives_an_error_and_no_judgement(status):
    (result,), server = judge(Reply(b'{"overall": 7}', status), max_retries=2)
    assert isinstance(result, ApiError)
    assert str(status) in str(result)
    assert "3 tries" in str(result)
    assert len(server.asked) == 3


def test_a_silent_server_is_an_error():
    free = threading.Event()
    (result,), server = judge(Reply(before=lambda: free.wait(20)), timeout=0.1, max_retries=1)
    free.set()
    assert isinstance(result, ApiError)
    assert "in time" in str(result)
    assert len(server.asked) == 2


def test_a_server_that_is_not_there_is_an_error():
    with serve(Reply()) as server:
        pass
    (result,) = scorer(server, max_retries=1).score([request()])
    assert isinstance(result, ApiError)
    assert "connection failed" in str(result)


@pytest.mark.parametrize(("status", "named"), [(401, "key"), (403, "model"), (404, "address")])
def test_what_will_never_pass_fails_at_once_for_all(status, named):
    requests = [request(number) for number in range(4)]
    results, server = judge(Reply(f"wrong: {KEY}".encode(), status), requests=requests, concurrency=1)
    assert len(server.asked) == 1
    assert all(isinstance(result, ApiRefused) and named in str(result) for result in results)
    assert not any(KEY in str(result) for result in results)


def test_a_bad_request_is_that_sample_s_error_alone():
    results, server = judge(Reply(b"image too large", 400), Reply(), requests=[request(0), request(1)], concurrency=1)
    assert isinstance(results[0], SampleError)
    assert "image too large" in str(results[0])
    assert results[1].scores == {"overall": 7.0}
    assert len(server.asked) == 2


def test_the_key_follows_no_redirect():
    with serve(Reply()) as other, serve(Reply(b"", 307, {"Location": f"{other.url}/chat/completions"})) as server:
        (result,) = scorer(server).score([request()])
        assert isinstance(result, ApiError)
        assert other.asked == []


def test_the_key_is_in_no_log_and_no_record(caplog):
    caplog.set_level(logging.DEBUG)
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    with serve(Reply(body, 500)) as server:
        made = scorer(server, max_retries=1)
        (result,) = made.score([request()])
        assert "[key]" in str(result)
        assert KEY not in str(result) + repr(made) + repr(made.provenance()) + caplog.text + json.dumps(server.asked)


@pytest.mark.parametrize(
    "reply",
    [
        says(None),
        says(""),
        says(None, refusal="I can't judge people."),
        says("Error: rate limit exceeded, score 5"),
        says('{"overall": 11}'),
        says("{'overall': 7}"),
        says("\ud800"),
    ],
)
def test_words_without_a_score_are_a_failure_and_no_number(reply):
    (result,), server = judge(Reply(reply), retries=2)
    assert result.scores == {}
    assert result.parse != "ok"
    assert isinstance(result.raw, str)
    result.raw.encode("utf-8")
    assert [body["seed"] for body in server.asked] == [100, 101, 102]
    assert [body["temperature"] for body in server.asked] == [0, 0.7, 0.7]


def test_a_refusal_is_kept_in_the_record():
    (result,), _ = judge(Reply(says(None, refusal="I can't judge people.")), retries=0)
    assert result.raw == "I can't judge people."


def test_a_failed_parse_is_asked_again_with_another_seed():
    (result,), server = judge(Reply(says("seven")), Reply())
    assert result.scores == {"overall": 7.0}
    assert result.info == {"judge_retries": 1}
    assert [body["seed"] for body in server.asked] == [100, 101]


def logprobs(candidates):
    top = [{"token": token, "logprob": value} for token, value in candidates.items()]
    return {"content": [{"token": "8", "logprob": -0.1, "top_logprobs": top}]}


def test_an_expected_score_comes_from_the_first_token_s_probabilities():
    log = math.log
    given = logprobs({"8": log(0.5), " 8": log(0.1), "2": log(0.2), "Good": log(0.15), "10": log(0.05)})
    (result,), server = judge(Reply(says("8", logprobs=given)), mode="expected")
    assert result.scores["overall"] == pytest.approx((0.6 * 8 + 0.2 * 2) / 0.8 * 10 / 9)
    assert result.info["mass"]["overall"] == pytest.approx(0.8)
    assert result.raw == "overall: 8"
    assert server.asked[0]["top_logprobs"] == 20
    assert server.asked[0]["max_tokens"] == 1


def test_too_little_mass_on_digits_is_a_failure():
    given = logprobs({"8": math.log(0.2), "The": math.log(0.7)})
    (result,), _ = judge(Reply(says("The", logprobs=given)), mode="expected")
    assert result.scores == {}
    assert "min_mass" in result.parse


@pytest.mark.parametrize("given", [None, {"content": []}, logprobs({"8": math.nan}), {"content": [{}]}, [1]])
def test_no_probabilities_are_an_error(given):
    (result,), _ = judge(Reply(says("8", logprobs=given)), mode="expected", max_retries=0)
    assert isinstance(result, ApiError)


def test_requests_run_at_once_and_results_keep_their_order():
    together = threading.Barrier(4, timeout=20)
    replies = [Reply(says(json.dumps({"overall": score})), before=together.wait) for score in range(4)]
    requests = [request(number, instruction=f"number {number}") for number in range(4)]
    results, server = judge(*replies, replies[0], requests=requests, concurrency=4)
    assert not together.broken
    texts = [body["messages"][1]["content"][-1]["text"] for body in server.asked]
    for number, result in enumerate(results):
        place = next(at for at, text in enumerate(texts) if f'"number {number}"' in text)
        assert result.scores == {"overall": float(place)}


def test_no_more_than_concurrency_run_at_once():
    lock, running, most = threading.Lock(), 0, 0

    def count():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.02)
        with lock:
            running -= 1

    judge(Reply(before=count), requests=[request(number) for number in range(8)], concurrency=2)
    assert most <= 2


def test_the_pace_leaves_no_minute_with_more_than_its_number():
    now = 0.0
    pace = Pace(3, clock=lambda: now)
    starts = []
    for step in range(20):
        now = step * 7.0
        starts.append(now + pace.reserve())
    assert starts[:3] == [0.0, 7.0, 14.0]
    assert starts == sorted(starts)
    for start in starts:
        assert sum(start <= other < start + 60 for other in starts) <= 3
    assert starts[3] == 60.0
    assert Pace(None).reserve() == 0


def test_retry_after_is_read_or_ignored():
    assert retry_after("3") == 3
    assert retry_after("Wed, 21 Oct 2099 07:28:00 GMT") > 1e6
    for value in (None, "", "soon", "-5", "nan", "inf", "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert retry_after(value) == 0


def test_extra_is_merged_last_and_null_takes_a_field_out():
    _, server = judge(Reply(), extra={"max_tokens": None, "max_completion_tokens": 99, "temperature": 1})
    (body,) = server.asked
    assert "max_tokens" not in body
    assert body["max_completion_tokens"] == 99
    assert body["temperature"] == 1


def test_a_server_without_a_key():
    (result,), server = judge(Reply(), api_key_env=None)
    assert result.scores == {"overall": 7.0}
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize("key", [None, "", " \n", "schlüssel"])
def test_a_missing_key_is_told_by_its_variable_and_never_shown(monkeypatch, key):
    if key is None:
        monkeypatch.delenv("MY_KEY", raising=False)
    else:
        monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(UserError, match="MY_KEY") as raised:
        OpenAIScorer("http://host/v1", "m", api_key_env="MY_KEY").check()
    assert "schlüssel" not in str(raised.value)


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"base_url": "host:8000"}, "base_url"),
        ({"base_url": "http://user:pass@host/v1"}, "base_url"),
        ({"mode": "guess"}, "mode"),
        ({"image_format": "gif"}, "image_format"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 1.5}, "concurrency"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"timeout": math.inf}, "timeout"),
        ({"aspects": ["beauty"]}, "aspects"),
    ],
)
def test_bad_params_are_refused_before_anything_starts(params, named):
    with pytest.raises(UserError, match=named) as raised:
        OpenAIScorer(**({"base_url": "http://host/v1", "model": "m"} | params))
    assert "pass@" not in str(raised.value)


def test_an_empty_instruction_asks_nobody():
    results, server = judge(Reply(), requests=[request(0, instruction=" "), request(1)])
    assert isinstance(results[0], SampleError)
    assert results[1].scores == {"overall": 7.0}
    assert len(server.asked) == 1


def test_a_wait_ends_when_the_scorer_is_closed():
    asked = threading.Event()
    with serve(Reply(b"", 429, {"Retry-After": "100"}, before=asked.set)) as server:
        made, results = scorer(server), []
        thread = threading.Thread(target=lambda: results.extend(made.score([request()])), daemon=True)
        thread.start()
        assert asked.wait(20)
        made.close()
        thread.join(20)
    assert isinstance(results[0], ApiError)
