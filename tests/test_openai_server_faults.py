import json
import logging
import threading
from types import SimpleNamespace

import pytest
from chat_server import KEY, Reply, judge, key_set, request, says, scorer, serve
from ports import free_ports

from slurm_bench.errors import SampleError, ServiceDown
from slurm_bench.scorers.server import chat
from slurm_bench.scorers.server.faults import ApiError, ApiRefused, Kind, fault_of
from slurm_bench.scorers.server.pace import Pace, retry_after


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
    (result,), server = judge(passing, Reply(), patience=20)
    assert result.scores == {"overall": 7.0}
    assert len(server.asked) == 2
    assert server.asked[0] == server.asked[1]


@pytest.fixture
def sleep(monkeypatch):
    """For an api's `_sleep`, and a clock that goes by it alone: no test waits, and a busy machine takes no time."""
    clock = 0.0

    def sleep(seconds):
        nonlocal clock
        clock += seconds

    monkeypatch.setattr(chat, "time", SimpleNamespace(monotonic=lambda: clock))
    return sleep


@pytest.mark.parametrize("status", [429, 502, 503, 504, 529])
def test_a_server_that_stays_away_is_no_sample_s_fault(status, sleep):
    with serve(Reply(b"try later", status)) as server:
        made = scorer(server, concurrency=2)
        made._api._sleep = sleep
        results = made.score([request(number) for number in range(4)])
    assert all(isinstance(result, ServiceDown) and f"HTTP {status}" in str(result) for result in results)
    assert len(server.asked) > 2


@pytest.mark.parametrize(
    "ended",
    [
        {"finish_reason": "error", "error": {"code": 502, "message": "provider disconnected"}},
        *({"finish_reason": reason} for reason in ("error", "abort", "insufficient_system_resource")),
    ],
)
def test_a_reply_that_was_broken_off_is_asked_for_again(ended):
    """The answer has status 200, and the text as far as it came: here it looks whole."""
    choice = {"message": {"content": '{"overall": 2}'}, **ended}
    (result,), server = judge(Reply(json.dumps({"choices": [choice]}).encode()), Reply())
    assert result.scores == {"overall": 7.0}
    assert len(server.asked) == 2


def test_a_server_that_is_not_there_is_no_sample_s_fault():
    with serve(Reply()) as server:
        pass
    (result,) = scorer(server).score([request()])
    assert isinstance(result, ServiceDown)
    assert server.url in str(result)


def test_a_server_that_comes_back_loses_no_sample():
    """It is away for more tries than a single request at fault would get."""
    away = [Reply(b"", 503)] * 9
    results, _ = judge(*away, Reply(), requests=[request(0), request(1)], max_retries=1, patience=20)
    assert [result.scores for result in results] == [{"overall": 7.0}] * 2


def test_a_server_that_is_started_again_is_found_at_its_address():
    (port,) = free_ports(1)
    with serve(Reply(), port=port) as server:
        made = scorer(server, patience=120, backoff=0.05)
    restarted = threading.Event()

    def restart():
        with serve(Reply(), port=port):
            restarted.wait(120)

    thread = threading.Timer(0.3, restart)
    thread.start()
    (result,) = made.score([request()])
    restarted.set()
    thread.join()
    assert result.scores == {"overall": 7.0}


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_server_that_fails_at_every_request_is_no_sample_s_fault(concurrency):
    requests = [request(number) for number in range(4)]
    results, _ = judge(Reply(b"boom", 500), requests=requests, concurrency=concurrency, patience=0.1)
    kinds = [type(result) for result in results]
    assert kinds.count(ApiError) == 1, "the first may have been at fault itself"
    assert kinds.count(ServiceDown) == 3


@pytest.mark.parametrize("status", [503, 500])
def test_a_server_that_goes_away_is_no_fault_of_those_in_flight(status):
    """They were sent before the last answers came, and fail after them."""
    together, answers, gone = threading.Barrier(4, timeout=120), [], threading.Event()
    with serve(Reply()) as server:
        server.script = lambda body: Reply(b"gone", status) if gone.is_set() else Reply()
        made = scorer(server, max_retries=1, concurrency=4)
        send = made._api._once

        def once(payload):
            if not gone.is_set():
                together.wait()
                if "zebra" in json.dumps(payload):
                    gone.wait(120)
            answers.append(send(payload))
            if len(answers) == 2:
                gone.set()
            return answers[-1]

        made._api._once = once
        results = made.score([request(n, instruction="zebra" if n > 1 else "edit") for n in range(4)])
    assert [result.scores for result in results[:2]] == [{"overall": 7.0}] * 2
    assert [type(result) for result in results[2:]] == [ServiceDown] * 2


@pytest.mark.parametrize("status", [504, 500])
def test_a_sample_at_which_a_working_server_fails_ends_no_task(status):
    """It is asked about alone, and others have been answered before."""
    with serve(Reply()) as server:
        server.script = lambda body: Reply(b"", status) if "poison" in json.dumps(body) else Reply()
        made = scorer(server, max_retries=1)
        assert made.score([request(0)])[0].scores == {"overall": 7.0}
        (result,) = made.score([request(1, instruction="poison")])
    assert isinstance(result, ApiError)
    assert f"HTTP {status}" in str(result)


def test_waiting_for_one_s_turn_takes_none_of_the_patience(sleep):
    with serve(Reply(b"", 500), Reply()) as server:
        made = scorer(server, patience=30)
        made._api._sleep = sleep
        made._api._pace.reserve = iter([60.0, 0.0]).__next__
        assert made.score([request()])[0].scores == {"overall": 7.0}


def test_after_the_service_was_down_the_next_batch_asks_again():
    with serve(Reply(b"", 503)) as server:
        made = scorer(server, patience=0.05)
        assert isinstance(made.score([request()])[0], ServiceDown)
        server.replies[:] = [Reply()]
        assert made.score([request()])[0].scores == {"overall": 7.0}


def test_what_was_judged_before_the_server_went_away_is_kept():
    results, _ = judge(
        Reply(), Reply(b"", 503), requests=[request(number) for number in range(3)], concurrency=1, patience=0.05
    )
    assert results[0].scores == {"overall": 7.0}
    assert all(isinstance(result, ServiceDown) for result in results[1:])


def test_a_server_that_fails_at_one_request_and_answers_others_fails_that_sample_alone():
    with serve(Reply(b"boom", 500)) as server:
        asked = threading.Event()
        boom, answer = Reply(b"boom", 500, before=asked.set), Reply(before=lambda: asked.wait(120))
        server.script = lambda body: boom if "poison" in json.dumps(body) else answer
        poison, good = request(0, instruction="poison"), [request(number) for number in range(1, 5)]
        made = scorer(server, patience=3600, max_retries=2, backoff=0.05, concurrency=2)
        results = made.score([poison, *good])
    assert isinstance(results[0], ApiError)
    assert "HTTP 500" in str(results[0])
    assert all(result.scores == {"overall": 7.0} for result in results[1:])


def test_a_silent_server_is_an_error():
    free = threading.Event()
    (result,), _ = judge(Reply(before=lambda: free.wait(120)), timeout=0.1, patience=0)
    free.set()
    assert isinstance(result, ApiError)
    assert "in time" in str(result)


@pytest.mark.parametrize(
    ("status", "error", "named"),
    [
        (429, {"code": "insufficient_quota", "type": "insufficient_quota"}, "quota"),
        (429, {"type": "exceeded_current_quota_error"}, "quota"),
        (400, {"code": "billing_hard_limit_reached"}, "quota"),
        (400, {"code": "Arrearage"}, "quota"),
        (402, {"message": "Insufficient Balance"}, "paid"),
        (400, {"code": "unsupported_parameter", "param": "max_tokens"}, "params.extra"),
        (400, {"code": "unsupported_value", "param": "temperature"}, "params.extra"),
    ],
)
def test_what_holds_for_all_requests_is_refused_once(status, error, named):
    requests = [request(number) for number in range(4)]
    results, server = judge(
        Reply(json.dumps({"error": error}).encode(), status), requests=requests, concurrency=1, patience=20
    )
    assert len(server.asked) == 1
    assert all(isinstance(result, ApiRefused) and named in str(result) for result in results)
    assert "\n" not in str(results[0])


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, '{"error": {"code": "rate_limit_exceeded"}}', Kind.AWAY),
        (429, "<html>quota</html>", Kind.AWAY),
        (500, '{"error": {"type": "billing"}}', Kind.BROKEN),
        (400, '{"error": {"message": "the image is too large"}}', Kind.REJECTED),
        (422, '{"detail": [{"type": "too_long"}]}', Kind.REJECTED),
        (422, '{"detail": [{"type": "extra_forbidden"}]}', Kind.REFUSED),
        (422, '{"detail": "Unexpected fields in the request: {\'x\'}"}', Kind.REFUSED),
        (400, "[" * 100_000, Kind.REJECTED),
        (403, '{"error": "no"}', Kind.REFUSED),
    ],
)
def test_an_error_is_told_by_its_code(status, body, kind):
    assert fault_of(status, body).kind is kind


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
        assert isinstance(result, ApiRefused)
        assert f"{other.url}/chat/completions" in str(result)
        assert other.asked == []


def test_the_key_is_in_no_log_and_no_record(caplog):
    caplog.set_level(logging.DEBUG)
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY} a-second-secret"}}).encode()
    with serve(Reply(body, 500)) as server:
        made = scorer(server, headers={"X-Token": "a-second-secret"})
        (result,) = made.score([request()])
        assert "[key]" in str(result)
        assert "a-second-secret" not in str(result) + repr(made)
        assert KEY not in str(result) + repr(made) + repr(made.provenance()) + caplog.text + json.dumps(server.asked)


def test_requests_run_at_once_and_results_keep_their_order():
    together = threading.Barrier(4, timeout=120)
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
        made, results = scorer(server, patience=300), []
        thread = threading.Thread(target=lambda: results.extend(made.score([request()])), daemon=True)
        thread.start()
        assert asked.wait(120)
        made.close()
        thread.join(120)
    assert isinstance(results[0], ApiError)
