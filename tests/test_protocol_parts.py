"""What a protocol is made of: formulas, replies, prompts, images; and a benchmark that is a file of one's own."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
import tiny_judge
from chat_server import Reply, Server, request, says, serve
from PIL import Image
from protocol_prompts import python_file, write_gedit, write_imgedit, write_kris, write_rise

from slurm_bench.bundled import bundled
from slurm_bench.errors import SampleError, ServiceDown, UserError
from slurm_bench.scorers.base import Scored, ScoreRequest
from slurm_bench.scorers.judge.parse import Unreadable
from slurm_bench.scorers.judge.question import Picture
from slurm_bench.scorers.protocols import BenchmarkProtocol, GEditProtocol, ImgEditProtocol, KRISProtocol, RISEProtocol
from slurm_bench.scorers.protocols.ask import Asked, encoded, questions
from slurm_bench.scorers.protocols.description import Images, ReplyForm, read_protocol
from slurm_bench.scorers.protocols.formula import parse_formula
from slurm_bench.scorers.protocols.reply import read_marks

OPENAI = "slurm_bench.scorers.openai_api.OpenAIScorer"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def judge_at(url: str, **params: Any) -> dict[str, Any]:
    quick = {"backoff": 0.001, "patience": 0.3, "api_key_env": None}
    return {"class_path": OPENAI, "params": {"base_url": url, "model": "some-judge", **quick, **params}}


def gedit(url: str, tmp_path: Path, **params: Any) -> GEditProtocol:
    made = GEditProtocol(str(write_gedit(tmp_path)), judge_at(url, **params))
    made.check()
    made.load()
    return made


GOOD = Reply(says('{"score": [9, 8], "reasoning": "so"}'))


def scored(tmp_path: Path, *replies: Reply, requests: Any = None, **params: Any) -> tuple[list[Any], Server]:
    with serve(*replies) as server:
        made = gedit(server.url, tmp_path, concurrency=1, **params)
        results = made.score(requests or [request()])
        made.close()
        return results, server


# Formulas


def test_a_formula_is_numbers_names_and_four_functions() -> None:
    values = {"a": 4.0, "b": 9.0}
    for text, value in [
        ("sqrt(a * b)", 6),
        ("max(1, (0.3 * a + 0.7 * b) / 2)", 3.75),
        ("25 * (mean(a, b, 5) - 1)", 125),
        ("-min(a, b) + 1", -3),
    ]:
        assert parse_formula(text)(values) == pytest.approx(value)
    assert parse_formula("sqrt(a) + a").names == {"a"}


@pytest.mark.parametrize(
    "text",
    [
        *("__import__('os').system('true')", "open('x')", "a.real", "a[0]", "[a]", "lambda: a", "a if b else a"),
        *("a ** 9", "a // b", "not a", "a < b", "'text'", "True", "min(a)", "sqrt(a, b)", "mean()", "max(a, key=b)"),
        *("", "a +", "a; b", "a := 1", "(" * 5000, "f'{a}'", "mean(*a)"),
    ],
)
def test_anything_else_is_no_formula(text: str) -> None:
    with pytest.raises(ValueError, match=r"formula|isn't of"):
        parse_formula(text)


@pytest.mark.parametrize("text", ["1 / a", "sqrt(a - 1)", "9e999 * 1"])
def test_what_has_no_value_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match="no value"):
        parse_formula(text)({"a": 0.0})


# Replies

FIVE = {"first": (1, 5), "second": (1, 5)}
LIST, KEYS = ReplyForm(list="score"), ReplyForm(keys=("x_score", "y_score"))
LINES, FINAL = ReplyForm(labels=("Prompt Compliance", "Detail")), ReplyForm(labels=("Final Score",))


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('{"score": [4, 2], "reasoning": "so"}', LIST),
        ('```json\n{"reasoning": "so", "score": [4, 2]}\n```', LIST),
        ('<think>{"score": [1, 1]}</think>{"score": [4, 2]}', LIST),
        ('{"x_score": 4, "reasoning": "so", "y_score": 2, "reasoning": "again"}', KEYS),
        ("Brief reasoning: 3 of 5 legs.\nPrompt Compliance: 4\nDetail: 2", LINES),
        ("**Prompt Compliance**: **4**\n- **Detail:** 2/5.\n", LINES),
        ("prompt compliance: 4 out of 5\ndetail: 2 out of 5", LINES),
        ("Prompt Compliance: 4 - good, 3 of 5 legs (two hidden)\nDetail: 2", LINES),
        ("Prompt Compliance: 4\nso, again:\nPrompt Compliance: 4\nDetail: 2", LINES),
    ],
)
def test_a_reply_that_ends_in_its_marks_is_read(text: str, form: ReplyForm) -> None:
    assert read_marks(text, form, FIVE) == {"first": 4, "second": 2}


@pytest.mark.parametrize(
    "text", ["**Final Score:** **4**", "### Final Score\n: 4", "Final Score: 4/5", "Final score：4。"]
)
def test_a_final_score_is_read_however_it_is_marked(text: str) -> None:
    assert read_marks(f"It is good.\n\n{text}", FINAL, {"mark": (1, 5)}) == {"mark": 4}


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("", LIST),
        ("[4, 2]", LIST),
        ('{"score": 4}', LIST),
        ('{"score": [4]}', LIST),
        ('{"score": [4, 2, 2]}', LIST),
        ('{"score": [4, 6]}', LIST),
        ('{"score": [4, 2.5]}', LIST),
        ('{"score": ["4", "2"]}', LIST),
        ('{"score": [true, 2]}', LIST),
        ('{"score": [4, 2]} or {"score": [5, 2]}', LIST),
        ('{"x_score": 4}', KEYS),
        ("rate_limit_exceeded", KEYS),
        ("Prompt Compliance: 4", LINES),
        ("Prompt Compliance: 4\nDetail: good", LINES),
        ("Prompt Compliance: 4\nDetail: 6", LINES),
        ("Prompt Compliance: 4\nDetail: -2", LINES),
        ("Prompt Compliance: 4\nDetail: 2.5", LINES),
        ("Prompt Compliance: 4\nDetail: 2/10", LINES),
        ("Prompt Compliance: 4\nDetail: 2\nDetail: 3", LINES),
        ("Prompt Compliance: 4\nDetail: 2\nAll in all a 5.", LINES),
        ("Prompt Compliance: 1-5\nDetail: 1-5", LINES),
        *((f"Prompt Compliance: {two}\nDetail: 2", LINES) for two in ("3-4", "**3** – 4", "3 or 4", "4,5", "3 to 4/5")),
        *((f"Prompt Compliance: {two}\nDetail: 2", LINES) for two in ("4+", "4 → 3", "3 (or 4)", ">3", "~3", "±3")),
        ("<think>Prompt Compliance: 4\nDetail: 2", LINES),
    ],
)
def test_any_other_reply_has_no_marks(text: str, form: ReplyForm) -> None:
    with pytest.raises(Unreadable):
        read_marks(text, form, FIVE)


# What is asked again, and what fails


def test_what_cannot_be_read_is_asked_again_and_that_alone(tmp_path: Path) -> None:
    (result,), server = scored(tmp_path, Reply(says("eight of ten")), GOOD)
    assert result.scores["O"] == 8
    assert result.info["judge_retries"] == 1
    assert [(body["seed"], body["temperature"]) for body in server.asked] == [(100, 0), (100, 0), (101, 0.7)]


def test_a_sample_of_which_one_reply_cannot_be_read_has_no_score(tmp_path: Path) -> None:
    (result,), server = scored(tmp_path, GOOD, Reply(says('{"score": [9, 12]}')))
    assert result.scores == {}
    assert result.parse == "naturalness, artifacts: artifacts is 12, out of 0 to 10"
    assert "success, overediting:\n" in result.raw
    assert len(server.asked) == 1 + 3


def test_a_refusal_is_counted_as_one_and_not_asked_again(tmp_path: Path) -> None:
    (result,), server = scored(tmp_path, GOOD, Reply(says(None, refusal="I won't.")))
    assert result.scores == {}
    assert result.info["refused"] is True
    assert len(server.asked) == 2


def test_a_server_that_is_away_fails_no_sample(tmp_path: Path) -> None:
    results, _ = scored(tmp_path, Reply(b"", 503), requests=[request(0), request(1)])
    assert all(isinstance(result, ServiceDown) for result in results)


def test_one_bad_sample_hurts_no_other(tmp_path: Path) -> None:
    results, server = scored(tmp_path, GOOD, requests=[request(0, instruction=" "), request(1)])
    assert isinstance(results[0], SampleError)
    assert isinstance(results[1], Scored)
    assert len(server.asked) == 2


# Images


def test_images_are_shown_as_the_protocol_says(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (40, 20), (255, 0, 0, 0))
    sample = request(sources=(clear,), edited=Image.new("RGB", (20, 40), "blue"))
    _, server = scored(tmp_path, GOOD, requests=[sample])
    urls = [part["image_url"]["url"] for part in server.asked[0]["messages"][0]["content"] if "image_url" in part]
    source, edited = (Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls)
    assert (source.format, source.size, edited.size) == ("JPEG", (40, 20), (40, 20))
    assert min(source.getpixel((5, 5))) > 250  # type: ignore[arg-type]


def test_an_image_is_made_smaller_in_its_proportions_and_never_larger() -> None:
    how = Images(format="jpeg", longest=768)
    assert encoded(Image.new("RGB", (2000, 1000)), how).image().size == (768, 384)
    assert encoded(Image.new("RGB", (20, 10)), how).image().size == (20, 10)
    noise = tiny_judge.picture(0, 32, 32)
    assert encoded(noise, Images(format="png")).image().tobytes() == noise.tobytes()


# Prompts


def test_no_code_of_a_checkout_is_run_and_any_folder_on_the_way_will_do(tmp_path: Path) -> None:
    judge = judge_at("http://127.0.0.1:1/v1")
    assert "prompt_consist" in RISEProtocol(str(write_rise(tmp_path)), judge).prompts  # its file would exit
    checkout = write_kris(tmp_path)
    for place in (checkout, checkout / "utils", checkout / "utils" / "prompts.py"):
        assert len(KRISProtocol(str(place), judge).prompts) == 10


def test_a_checkout_without_the_prompts_is_told(tmp_path: Path) -> None:
    judge = judge_at("http://127.0.0.1:1/v1")
    with pytest.raises(UserError, match=r"'params.prompts': .*nowhere: no such folder"):
        GEditProtocol(str(tmp_path / "nowhere"), judge)
    with pytest.raises(UserError, match=r"there is no GEdit-Bench/viescore/vie_prompts.py in it"):
        GEditProtocol(str(write_imgedit(tmp_path)), judge)
    python_file(tmp_path / "a" / "utils" / "prompts.py", {"prompt_quality": "q", "prompt_consists": "{instruct}"})
    with pytest.raises(UserError, match=r"no prompt 'prompt_consist_temporal'"):
        KRISProtocol(str(tmp_path / "a"), judge)


def test_a_prompt_without_a_place_for_the_instruction_is_refused(tmp_path: Path) -> None:
    file = write_gedit(tmp_path) / "GEdit-Bench" / "viescore" / "vie_prompts.py"
    file.write_text(file.read_text().replace("<instruction>", "<the instruction>"))
    with pytest.raises(UserError, match="has no <instruction>: the instruction would not be told"):
        GEditProtocol(str(file), judge_at("http://127.0.0.1:1/v1"))


def test_another_text_of_a_prompt_that_is_used_is_another_judge(tmp_path: Path) -> None:
    file = write_gedit(tmp_path) / "GEdit-Bench" / "viescore" / "vie_prompts.py"
    text, said = file.read_text(), []
    for changed in (text, text.replace("not this one", "nor this"), text.replace("One image", "An image")):
        file.write_text(changed)
        said.append(GEditProtocol(str(file), judge_at("http://127.0.0.1:1/v1")).provenance())
    assert said[0] == said[1]
    assert said[0]["prompts_sha256"] != said[2]["prompts_sha256"]
    assert said[0]["model"] == "some-judge"


def test_what_a_sample_says_is_never_a_place_of_the_prompt(tmp_path: Path) -> None:
    with serve(Reply(says('{"instruction_score": 5, "knowledge_score": 5}'))) as server:
        made = KRISProtocol(str(write_kris(tmp_path)), judge_at(server.url))
        made.load()
        made.score([request(category="physics", instruction="{explanation} {{x}}", rationale="secret {instruct}")])
        told = [body["messages"][0]["content"][0]["text"] for body in server.asked]
    assert "prompt_dual_evaluation | {explanation} {{x}} | secret {instruct} | as { JSON }" in told


def test_a_sample_without_what_the_judge_must_be_told_fails_by_name(tmp_path: Path) -> None:
    made = KRISProtocol(str(write_kris(tmp_path)), judge_at("http://127.0.0.1:1/v1"))
    made.load()
    for sample, why in [
        (request(category="physics"), "has no rationale"),
        (request(category="viewpoint_change"), "has no reference image"),
        (request(category="temporal_prediction"), "which frames"),
    ]:
        (error,) = made.score([sample])
        assert isinstance(error, SampleError)
        assert why in str(error)


# Judges


@pytest.mark.parametrize(
    ("judge", "why"),
    [
        ({}, r"'params.judge.class_path' is not set"),
        ({"class": OPENAI}, r"'params.judge.class': .* did you mean 'class_path'"),
        ({"class_path": "tests.plugins.Brightness"}, "has no method 'replies'"),
        ({"class_path": OPENAI, "params": {"model": "m"}}, r"'params.judge.params.base_url' is not set"),
        ({"class_path": OPENAI, "params": {"base_url": "x", "model": "m"}}, r"'params.judge.params.base_url' is no"),
        ({"class_path": OPENAI, "params": ["m"]}, r"'params.judge.params' is \['m'\]; it must be names with values"),
        ({"class_path": OPENAI, "params": {"rubrics": "r.yaml"}}, r"'params.judge.params.rubrics': the protocol"),
    ],
)
def test_a_judge_that_cannot_be_made_is_told_by_its_own_key(judge: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=why):
        GEditProtocol(str(write_gedit(tmp_path)), judge)


def test_a_key_that_is_not_set_is_told_at_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    made = GEditProtocol(str(write_gedit(tmp_path)), judge_at("http://127.0.0.1:1/v1", api_key_env="SOME_KEY"))
    with pytest.raises(UserError, match=r"'params.judge.params.api_key_env'"):
        made.check()


def test_a_local_judge_answers_alike_alone_and_in_a_batch(tmp_path: Path) -> None:
    """It says nothing that can be read, for its weights are random: what it says is what counts."""
    params = {"model_name": str(tiny_judge.checkpoint()), "dtype": "float32", "device": "cpu", "retries": 0}
    judge = {"class_path": "slurm_bench.scorers.qwen3vl.Qwen3VLScorer", "params": params}
    description = json.loads(json.dumps(GEditProtocol(str(write_gedit(tmp_path)), judge).provenance()["protocol"]))
    file = tmp_path / "short.yaml"
    file.write_text(json.dumps({**description, "max_tokens": 8}))
    made = BenchmarkProtocol(str(file), str(tmp_path / "Step1X-Edit"), judge)
    made.check()
    made.load()
    samples = [tiny_judge.request(number) for number in range(2)]
    together = made.score(samples)
    alone = [made.score([sample])[0] for sample in samples]
    made.close()
    assert together == alone
    assert all(isinstance(one, Scored) and "max_new_tokens is 8" in one.parse for one in together)
    assert len({one.raw for one in together if isinstance(one, Scored)}) == 2


# A benchmark of one's own

OWN = {
    "name": "Own",
    "prompts": "own.json",
    "placeholders": {"[ASKED]": "instruction"},
    "marks": {"done": [0, 1], "nice": [1, 7]},
    "reply": {"keys": ["done", "nice"]},
    "calls": [{"marks": ["done", "nice"], "prompt": ["both"], "tells": ["instruction"], "show": ["edited", "text"]}],
    "scores": [
        {"name": "sum", "range": [1, 8], "when": {"hard": True, "done": 1}, "formula": "done + nice"},
        {"name": "sum", "range": [1, 8], "formula": "nice"},
    ],
    "numbers": [{"name": "S", "of": ["sum"]}],
}


def test_a_tenth_benchmark_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps({"both": "Is [ASKED] done?", "version": 3}))
    (tmp_path / "own.yaml").write_text(json.dumps(OWN))
    with serve(Reply(says('{"done": 1, "nice": 4}'))) as server:
        made = BenchmarkProtocol(str(tmp_path / "own.yaml"), str(tmp_path), judge_at(server.url))
        made.load()
        easy, hard = made.score([request(0), request(1, facts={"hard": True})])
    assert isinstance(easy, Scored)
    assert isinstance(hard, Scored)
    assert easy.scores == {"sum": 4, "done": 1, "nice": 4}
    assert hard.scores["sum"] == 5
    content = server.asked[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "text"]
    assert content[1]["text"] == "Is Let go of the ball done?"
    assert list(made.scores) == ["sum", "done", "nice"]


def test_a_mark_of_which_a_formula_makes_no_number_is_unread(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps({"both": "Is [ASKED] done?"}))
    call = {**OWN["calls"][0], "value": "1/mark"}  # type: ignore[index]
    (tmp_path / "own.yaml").write_text(json.dumps({**OWN, "calls": [call]}))
    with serve(Reply(says('{"done": 0, "nice": 4}'))) as server:
        made = BenchmarkProtocol(str(tmp_path / "own.yaml"), str(tmp_path), judge_at(server.url, retries=0))
        made.load()
        (result,) = made.score([request(0)])
    assert isinstance(result, Scored)
    assert "1/mark has no value" in result.parse


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"nmae": "x"}, r"own: nmae.*did you mean 'name'|'own.nmae'.*did you mean 'name'"),
        ({"marks": {"done": "0 to 1"}}, r"own.marks"),
        ({"calls": []}, "at least one"),
        ({"calls": [{**OWN["calls"][0], "show": ["sauce"]}]}, r"calls\[0\].show: no 'sauce'; did you mean 'source'"),  # type: ignore[index]
        ({"calls": [{**OWN["calls"][0], "marks": ["don"]}], "reply": {"list": "s"}}, r"calls\[0\].marks: no 'don'"),  # type: ignore[index]
        ({"reply": {}}, r"calls\[0\].reply: one of"),
        ({"reply": {"keys": ["done"]}}, r"calls\[0\].reply: one of"),
        ({"scores": [{"name": "s", "range": [0, 1], "formula": "dune"}]}, r"scores\[0\].formula: 'dune'.*'done'"),
        ({"scores": [{"name": "s", "range": [0, 1], "formula": "open('x')"}]}, r"scores\[0\].formula: .*isn't of"),
        ({"numbers": [{"name": "S", "of": ["sums"]}]}, r"numbers\[0\]: no 'sums'; did you mean 'sum'"),
        ({"numbers": [{"name": "S", "of": ["sum"], "by": {"g": 3}}]}, r"own: numbers\[0\].by' is"),
        ({"numbers": [{"name": "S", "of": ["sum"], "by": ["category"]}]}, r"own: numbers\[0\].by' is"),
        ({"reply": {"labels_in_prompt": "("}}, r"calls\[0\].reply.labels_in_prompt: '\(' is no regular expression"),
        ({"reply": {"labels_in_prompt": "Score"}}, r"calls\[0\].reply.labels_in_prompt: 'Score' has no group"),
        ({"images": {"longest": 0}}, r"own: images.longest is 0; it must be 1 or more"),
        ({"images": {"format": "jpeg", "quality": 500}}, r"own: images.quality is 500; it must be 1 to 100"),
        ({"images": None}, r"own: images"),
        ({"max_tokens": -1}, r"own: max_tokens is -1; it must be 1 or more"),
        ({"placeholders": {"[A]": "instructions"}}, r"placeholders\[\[A\]\]: no 'instructions'"),
    ],
)
def test_a_fault_of_a_protocol_is_told_by_its_place(change: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        read_protocol({**OWN, **change}, "own")


@pytest.mark.parametrize("name", ["gedit", "imgedit", "risebench", "kris"])
def test_a_run_by_a_bundled_protocol_needs_no_more_than_data_prompts_and_judge(name: str) -> None:
    from slurm_bench.config import load_config

    config = load_config(bundled(f"{name}.yaml"))
    assert config.data.reader == name
    assert [*config.scorers] == [name]
    assert {*config.scorers[name].params} == {"judge"}


def test_a_rise_sample_gets_the_call_that_its_flags_ask_for(tmp_path: Path) -> None:
    made = RISEProtocol(str(write_rise(tmp_path)), judge_at("http://127.0.0.1:1/v1"))

    def asked(category: str, **more: Any) -> list[str]:
        sample: ScoreRequest = request(category=category, **more)
        return [one.call.prompt[0] for one in questions(made.protocol, made.prompts, sample)]

    picture, words = Image.new("RGB", (8, 8)), "a cup"
    assert asked("spatial_reasoning", reference=picture) == [
        *("prompt_spatial_cons", "prompt_spatial_ref_img", "prompt_spatial_qual")
    ]
    assert asked("spatial_reasoning", rationale=words, facts={"reasoning_img": True})[1] == "prompt_spatial_ref_w_input"
    assert asked("temporal_reasoning", rationale=words, facts={"consistency_free": True}) == [
        *("prompt_reasoning", "prompt_generation")
    ]
    assert asked("logical_reasoning", reference=picture) == ["prompt_logical_cons", "prompt_logical_img"]
    assert asked("logical_reasoning", reference=picture, facts={"reasoning_wo_ins": False})[1] == "prompt_logical_img"
    assert ImgEditProtocol(str(write_imgedit(tmp_path)), judge_at("http://127.0.0.1:1/v1")).protocol.samples == 737


def colours(asked: Asked) -> list[str]:
    """What the images of a question show."""
    names = {(255, 0, 0): "source", (0, 0, 255): "edited", (0, 128, 0): "reference", (255, 255, 0): "second source"}
    shown = [part.image() for part in asked.parts if isinstance(part, Picture)]
    return [
        min(names.items(), key=lambda name: sum(abs(a - b) for a, b in zip(name[0], found, strict=True)))[1]
        for found in (image.getpixel((4, 4)) for image in shown)
    ]


def test_images_stand_in_the_order_that_the_protocol_says(tmp_path: Path) -> None:
    source, edited, reference, second = (Image.new("RGB", (9, 9), c) for c in ("red", "blue", "green", "yellow"))
    judge = judge_at("http://127.0.0.1:1/v1")
    rise, kris = RISEProtocol(str(write_rise(tmp_path)), judge), KRISProtocol(str(write_kris(tmp_path)), judge)

    def shown(made: BenchmarkProtocol, category: str, **more: Any) -> list[list[str]]:
        sample = request(category=category, edited=edited, **({"sources": (source,)} | more))
        return [colours(one) for one in questions(made.protocol, made.prompts, sample)]

    assert shown(rise, "causal_reasoning", rationale="so") == [["source", "edited"], ["edited"], ["edited"]]
    looks = {"rationale": "so", "facts": {"reasoning_img": True}}
    assert shown(rise, "causal_reasoning", **looks)[1] == ["source", "edited"]
    for category in ("spatial_reasoning", "logical_reasoning"):
        assert shown(rise, category, reference=reference)[:2] == [["reference", "edited"]] * 2
    assert shown(kris, "viewpoint_change", reference=reference)[1] == ["source", "edited", "reference"]
    several: dict[str, Any] = {"sources": (source, second)}
    assert shown(kris, "multi-element_composition", **several)[0] == ["source", "second source", "edited"]
    for wanted, order in [(1, ["edited", "source", "second source"]), (3, ["source", "edited", "second source"])]:
        frames = {"frames": [2, 4], "frame": wanted}
        assert shown(kris, "temporal_prediction", facts=frames, **several)[0] == order
