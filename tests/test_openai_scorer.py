import base64
import io
import math

import pytest
from chat_server import KEY, Reply, judge, key_set, request, says
from PIL import Image

from slurm_bench.errors import SampleError, UserError
from slurm_bench.scorers.base import Scored
from slurm_bench.scorers.server.chat import ApiError
from slurm_bench.scorers.server.scorer import OpenAIScorer, bounded


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    key_set(monkeypatch)


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
