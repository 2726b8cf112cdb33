import json
import logging
import threading

import pytest
from chat_server import KEY, Reply, judge, key_set, request, says, scorer, serve

from slurm_bench.errors import SampleError
from slurm_bench.scorers.server.chat import ApiError, ApiRefused, Pace, retry_after


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    key_set(monkeypatch)


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
