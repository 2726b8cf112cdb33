import base64
import io
import math

import pytest
from chat_server import KEY, Reply, judge, key_set, request, says
from PIL import Image

from slurm_bench.errors import SampleError, UserError
from slurm_bench.scorers.server.faults import ApiError, ApiRefused
from slurm_bench.scorers.server.scorer import OpenAIScorer, bounded
from slurm_bench.scorers.usage import sum_usage


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    key_set(monkeypatch)


def test_a_judgement():
    (result,), server = judge(Reply(says('The ball fell. {"overall": 7.5}')))
    assert (result.scores, result.raw, result.parse) == ({"overall": 7.5}, 'The ball fell. {"overall": 7.5}', "ok")
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


@pytest.mark.parametrize("words", ["I can't judge people.", '{"overall": 0}'])
def test_a_refusal_is_told_as_one_and_kept_in_the_record(words):
    (result,), _ = judge(Reply(says(None, refusal=words)), retries=0)
    assert (result.raw, result.parse, result.scores) == (words, "the judge refused to answer", {})


def test_a_failed_parse_is_asked_again_with_another_seed():
    (result,), server = judge(Reply(says("seven")), Reply())
    assert result.scores == {"overall": 7.0}
    assert result.info["judge_retries"] == 1
    assert [body["seed"] for body in server.asked] == [100, 101]


def logprobs(candidates, first="8"):
    top = [{"token": token, "logprob": value} for token, value in candidates.items()]
    return {"content": [{"token": first, "logprob": -0.1, "top_logprobs": top}]}


def test_an_expected_score_comes_from_the_first_token_s_probabilities():
    log = math.log
    given = logprobs({"8": log(0.5), " 8": log(0.1), "2": log(0.2), "Good": log(0.15), "10": log(0.05)})
    (result,), server = judge(Reply(says("8", logprobs=given)), mode="expected")
    assert result.scores["overall"] == pytest.approx((0.6 * 8.75 + 0.2 * 2) / 0.8)
    assert result.info["mass"]["overall"] == pytest.approx(0.8)
    assert result.raw == "overall: 8"
    assert server.asked[0]["top_logprobs"] == 20
    assert server.asked[0]["max_tokens"] == 2


def test_too_little_mass_on_digits_is_a_failure():
    given = logprobs({"8": math.log(0.2), "The": math.log(0.7)}, first="The")
    (result,), _ = judge(Reply(says("The", logprobs=given)), mode="expected")
    assert result.scores == {}
    assert "min_mass" in result.parse


@pytest.mark.parametrize("given", [logprobs({"8": math.nan}), {"content": [{}]}, [1]])
def test_probabilities_of_another_shape_are_an_error(given):
    (result,), _ = judge(Reply(says("8", logprobs=given)), mode="expected", patience=0)
    assert isinstance(result, ApiError)


@pytest.mark.parametrize("given", [None, {"content": []}, logprobs({})])
def test_a_server_without_log_probabilities_is_refused_once(given):
    requests = [request(number) for number in range(5)]
    results, server = judge(Reply(says("8", logprobs=given)), mode="expected", requests=requests, concurrency=1)
    assert len(server.asked) == 1
    assert all(isinstance(result, ApiRefused) and "generate" in str(result) for result in results)


SURE = logprobs({"8": math.log(0.9)})


@pytest.mark.parametrize(
    "reply",
    [
        says(None, logprobs=SURE, finish="length", message={"reasoning_content": "8"}),
        says(None, logprobs=SURE, finish="length", message={"reasoning": "8"}),
        says("8", logprobs=SURE, message={"reasoning_content": "Let me see."}),
        says("", logprobs=SURE, finish="length"),
        says("<think>", logprobs=logprobs({"<think>": -0.1, "8": -2.0}, first="<think>"), finish="length"),
        says([{"type": "thinking", "thinking": []}, {"type": "text", "text": ""}], logprobs=SURE),
    ],
)
def test_the_first_token_of_a_thought_is_no_score_and_what_works_is_told_once(reply):
    results, server = judge(Reply(reply), mode="expected", requests=[request(0), request(1)], concurrency=1)
    assert len(server.asked) == 1
    assert all(isinstance(result, ApiRefused) and "enable_thinking" in str(result) for result in results)


@pytest.mark.parametrize(
    ("reply", "named"),
    [
        (says("8.", logprobs=SURE, finish="length"), "goes on"),
        (says("80", logprobs=SURE), "goes on"),
        (says("7", logprobs=SURE), "begins otherwise"),
        (says("", logprobs=None), "said nothing"),
        (says("8", logprobs=SURE, finish="content_filter"), "filter"),
        (says(None, refusal="I can't judge people."), "refused"),
    ],
)
def test_a_first_token_that_may_be_no_answer_is_that_sample_s_failure(reply, named):
    (result,), _ = judge(Reply(reply), mode="expected")
    assert result.scores == {}
    assert named in result.parse


def test_several_aspects_keep_their_order():
    (result,), _ = judge(Reply(says("8", logprobs=SURE)), mode="expected", aspects=["quality", "overall"])
    assert list(result.scores) == ["quality", "overall"]


@pytest.mark.parametrize(
    ("reply", "named"),
    [
        (Reply(says('{"overall": 7}', finish="length")), "max_tokens is 512"),
        (Reply(says(None, finish="length", message={"reasoning_content": "Hm"})), "thinking"),
        (Reply(says('{"overall": 7}', finish="content_filter")), "filter"),
        (Reply(says('{"overall": 7}', finish="SAFETY")), "filter"),
        (Reply(says('{"overall": 7}', finish="MAX_TOKENS")), "max_tokens is 512"),
        (Reply(b'{"error": {"code": "content_filter", "message": "no"}}', 400), "filter"),
        (Reply(b'{"error": {"code": 403, "message": "no", "metadata": {"flagged_input": "x"}}}', 403), "filter"),
    ],
)
def test_a_reply_that_was_cut_or_filtered_says_so_and_is_not_asked_for_again(reply, named):
    (result,), server = judge(reply, retries=2)
    assert result.scores == {}
    assert named in result.parse
    assert len(server.asked) == 1


def test_content_in_parts_is_read_without_its_thoughts():
    parts = [{"type": "thinking", "thinking": '{"overall": 2}'}, {"type": "text", "text": '{"overall": 7}'}]
    (result,), _ = judge(Reply(says(parts)))
    assert result.scores == {"overall": 7.0}


def test_tokens_and_the_served_model_are_recorded_and_summed():
    usage = {"prompt_tokens": 100, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}
    first = Reply(says("seven", usage=usage, model="judge-2026-01-01", system_fingerprint="fp_1"))
    again = Reply(says('{"overall": 7}', usage=usage, model="judge-2026-02-02", system_fingerprint="fp_1"))
    results, _ = judge(first, again, requests=[request(0), request(1)], concurrency=1)
    infos = [result.info for result in results]
    assert infos[0] == {
        "prompt": infos[1]["prompt"],
        "judge_retries": 1,
        "usage": {"prompt_tokens": 200, "completion_tokens": 18, "reasoning_tokens": 8},
        "served_model": {"judge-2026-01-01": 1, "judge-2026-02-02": 1},
        "system_fingerprint": "fp_1",
    }
    assert infos[1]["served_model"] == "judge-2026-02-02"
    assert sum_usage([*infos, {}, {"usage": None, "served_model": 3}, {"usage": {"prompt_tokens": "9"}}]) == {
        "usage": {"prompt_tokens": 300, "completion_tokens": 27, "reasoning_tokens": 12},
        "served_model": {"judge-2026-01-01": 1, "judge-2026-02-02": 2},
        "system_fingerprint": "fp_1",
    }
    assert sum_usage([{}, {"mass": {}}]) == {}


def test_detail_headers_and_azure_s_version_are_sent():
    _, server = judge(Reply(), detail="low", headers={"X-Team": "vision"}, api_version="2024-10-21")
    images = [part for part in server.asked[0]["messages"][1]["content"] if part["type"] == "image_url"]
    assert [image["image_url"]["detail"] for image in images] == ["low", "low"]
    assert server.paths == ["/v1/chat/completions?api-version=2024-10-21"]
    sent = {name.lower(): value for name, value in server.headers[0].items()}
    assert sent["x-team"] == "vision"
    assert sent["api-key"] == KEY
    assert "authorization" not in sent


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
        ({"base_url": "http://:pass@host/v1"}, "base_url"),
        ({"base_url": 8000}, "base_url"),
        ({"base_url": "http://host:99999/v1"}, "base_url"),
        ({"base_url": "http://[host/v1"}, "base_url"),
        ({"headers": {"X Team": "a"}}, "X Team"),
        ({"base_url": "http://host/v1/chat/completions"}, r"take it off.*http://host/v1$"),
        ({"base_url": "http://host/v1/chat/completions/"}, "take it off"),
        ({"base_url": "http://host/v1/responses"}, "take it off"),
        ({"base_url": "https://r.openai.azure.com/openai/deployments/d?api-version=1"}, "params.api_version"),
        ({"model": 4}, "'params.model'"),
        ({"detail": "fine"}, "'params.detail'"),
        ({"headers": {"X-Team": 3}}, r"'params\.headers\.X-Team'"),
        ({"headers": ["X-Team"]}, r"'params\.headers'"),
        ({"extra": {"top_p": math.nan}}, "'params.extra'"),
        ({"extra": "top_p"}, "'params.extra'"),
        ({"extra": {"stream": True}}, "'params.extra.stream'"),
        ({"patience": "long"}, "'params.patience'"),
        ({"api_version": 2024}, "'params.api_version'"),
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


@pytest.mark.parametrize("typed", ["sk-proj-abc123", "AKIAIOSFODNN7EXAMPLE", "abcdef0123456789", "sk_live_X", 7])
def test_a_key_typed_in_place_of_its_variable_is_not_shown(typed):
    with pytest.raises(UserError, match=r"'params\.api_key_env'") as raised:
        OpenAIScorer("http://host/v1", "m", api_key_env=typed).check()
    assert str(typed) not in str(raised.value)


def test_an_empty_instruction_asks_nobody():
    results, server = judge(Reply(), requests=[request(0, instruction=" "), request(1)])
    assert isinstance(results[0], SampleError)
    assert results[1].scores == {"overall": 7.0}
    assert len(server.asked) == 1
