"""Runs judged pair by pair: against sets whose true order is known, and with judges that go by the order."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import Reply, Server, says, serve
from helpers import images, run_dir
from PIL import Image
from protocol_prompts import write_gedit2
from tasks import prepare, work

from slurm_bench.cli import main
from slurm_bench.errors import UserError
from slurm_bench.report import pairwise
from slurm_bench.report.davidson import LOSS, TIE, WIN, Judged, strengths
from slurm_bench.report.judgements import outcome
from slurm_bench.run.opened import open_run
from slurm_bench.scorers.judge.parse import Unreadable
from slurm_bench.scorers.judge.question import Picture
from slurm_bench.scorers.protocols.pairwise import FIRST, SECOND, load_askers, read_template, winner

DIMENSIONS = 3


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


# The model


def drawn(theta: list[float], nu: list[float], units: int, seed: int = 0) -> list[Judged]:
    """Judgements as these strengths would have them."""
    rng, found = np.random.default_rng(seed), []
    for unit in range(units):
        for dimension, tie in enumerate(nu):
            for a in range(len(theta)):
                for b in range(a + 1, len(theta)):
                    weights = [math.exp(theta[a]), 2 * tie * math.exp((theta[a] + theta[b]) / 2), math.exp(theta[b])]
                    outcome = (WIN, TIE, LOSS)[rng.choice(3, p=np.array(weights) / sum(weights))]
                    found.append(Judged(unit, dimension, a, b, outcome))
    return found


def test_the_strengths_that_a_simulated_set_was_drawn_from_are_found_again() -> None:
    theta, nu = [0.9, 0.4, 0.0, -0.3, -1.0], [0.5, 0.1]
    found, ties = strengths(drawn(theta, nu, 150), len(theta), resamples=60)
    for strength, true in zip(found, theta, strict=True):
        assert strength.elo == pytest.approx(1000 + 400 * true / math.log(10), abs=25)
        assert strength.ci_low is not None
        assert strength.ci_high is not None
        assert strength.ci_low < strength.elo < strength.ci_high
        assert strength.ci_high - strength.ci_low < 100
        assert not strength.too_few
    assert ties == pytest.approx(nu, rel=0.2)
    elos = [strength.elo for strength in found if strength.elo is not None]
    assert elos == sorted(elos, reverse=True)
    assert sum(elos) / len(elos) == pytest.approx(1000)


def test_two_runs_by_hand() -> None:
    """Of 7 wins and 2 losses without a tie, p = 1 / (1 + e^-2θ): the penalised likelihood is stationary where
    wins - 9 p = θ."""
    (first, second), _ = strengths([Judged(n, 0, 0, 1, WIN if n < 7 else LOSS) for n in range(9)], 2, resamples=0)
    assert first.elo is not None
    assert second.elo is not None
    theta = (first.elo - 1000) * math.log(10) / 400
    assert 7 - 9 / (1 + math.exp(-2 * theta)) == pytest.approx(theta, abs=1e-3)
    assert first.elo - 1000 == pytest.approx(1000 - second.elo)


def test_a_run_that_always_wins_has_a_strength_and_one_that_never_played_has_none() -> None:
    found, _ = strengths([Judged(n, 0, 0, 1, WIN) for n in range(20)], 3, resamples=5)
    assert found[0].elo is not None
    assert 1100 < found[0].elo < 2000
    assert found[2].elo is None
    assert [one.elo for one in strengths([], 2)[0]] == [None, None]


def test_the_order_in_which_runs_are_named_changes_nothing() -> None:
    judged = drawn([1.0, 0.0, -1.0], [0.3], 30)
    straight = [one.elo for one in strengths(judged, 3, resamples=0)[0]]
    for order in permutations(range(3)):
        moved = []
        for one in judged:
            a, b = order[one.first], order[one.second]
            turned = {WIN: LOSS, LOSS: WIN, TIE: TIE}[one.outcome]
            moved.append(Judged(one.unit, 0, min(a, b), max(a, b), one.outcome if a < b else turned))
        found = [one.elo for one in strengths(moved, 3, resamples=0)[0]]
        assert [found[order[n]] for n in range(3)] == pytest.approx(straight, abs=0.1)


def test_a_part_of_the_judgements_has_the_interval_that_it_has_alone() -> None:
    """Which numbers its units go by in the whole says nothing of it."""
    judged = drawn([0.5, -0.5], [0.3], 40)
    later = [one for one in judged if one.unit >= 28]
    renumbered = [replace(one, unit=one.unit - 28) for one in later]
    (found, _), (alone, _) = strengths(later, 2), strengths(renumbered, 2)
    assert found == alone
    assert found[0].ci_low is not None
    assert not found[0].too_few
    assert strengths(judged[:9], 2)[0][0].too_few


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("first", "second", "first"),
        ("second", "first", "second"),
        ("tie", "tie", "tie"),
        ("first", "first", "tie"),
        ("second", "second", "tie"),
        ("first", "tie", "tie"),
        ("tie", "first", "tie"),
    ],
)
def test_orders_that_do_not_agree_are_a_tie(one: str, other: str, both: str) -> None:
    assert outcome(one, other) == both


# The judge's words


def test_a_winner_is_read_strictly() -> None:
    assert winner('```json\n{"winner": "Image A"}\n```') == "first"
    assert winner('{"reasoning": "B is off", "winner": "image b"}') == "second"
    assert winner('{"winner": "Tie"}') == "tie"
    for text in ("Image A", '{"winner": "A"}', '{"winner": "Image A or B"}', '{"winner": null}', "", '{"winner": 1}'):
        with pytest.raises(Unreadable):
            winner(text)
    with pytest.raises(Unreadable, match="contradicts"):
        winner('{"winner": "Image A"} no: {"winner": "Image B"}')


def test_a_prompt_that_does_not_show_both_edits_in_order_or_tells_something_else_is_refused(tmp_path: Path) -> None:
    def written(*blocks: Any) -> Path:
        (tmp_path / "p.yaml").write_text(json.dumps({"user_prompt": list(blocks)}))
        return tmp_path / "p.yaml"

    one, two = ({"image": {"source": "edited_images", "index": n}} for n in (0, 1))
    assert read_template(written({"text": "?"}, one, two)).system == ""
    told = [{"text": "{{ edit }}"}, one, two]
    for blocks in (told, [one], [two, one], [one, one, two], [one, two, {"image": {"source": "mask"}}], ["text"]):
        with pytest.raises(UserError, match=r"p\.yaml"):
            read_template(written(*blocks))


# Whole runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs over one set of 5, which edited each sample otherwise; the last failed at one."""
    roots, folder = [], tmp_path_factory.mktemp("runs")
    for number, strength in enumerate((1, 5, 9)):
        params = {"strength": strength, "fail": ["s-3"] if number == 2 else []}
        roots.append(prepare(folder, "Tint", params, count=5, name=f"run{number}"))
        work(roots[-1])
    return roots


def pixels(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def by_run(roots: list[Path]) -> dict[str, int]:
    """Which run an image is of."""
    return {pixels(data): number for number, root in enumerate(roots) for data in images(root).values()}


def shown(body: dict[str, Any]) -> tuple[str, str]:
    """The two edited images that a judge was shown, by their pixels."""
    urls = [part["image_url"]["url"] for part in body["messages"][1]["content"] if part["type"] == "image_url"]
    first, second = (pixels(base64.b64decode(url.partition(",")[2])) for url in urls[-2:])
    return first, second


def compare(
    tmp_path: Path, roots: list[Path], judge: Callable[[str, str], Reply], **more: Any
) -> tuple[int, dict[str, Any], Server]:
    """`compare … --judge FILE --out DIR` with a judge that is given the pixels of both: the exit code, what it found,
    and what was asked."""
    with serve(Reply()) as server:
        server.script = lambda body: judge(*shown(body))
        quick = {"backoff": 0.001, "patience": 0.3, "retries": 0, "api_key_env": None}
        params = {"base_url": server.url, "model": "a-judge", **quick}
        file = tmp_path / "judge.yaml"
        if not file.exists():  # the address is a part of who judges
            write_gedit2(tmp_path)
        said = {"class_path": "slurm_bench.scorers.openai_api.OpenAIScorer", "params": params}
        file.write_text(json.dumps({"prompts": "GEditBench_v2", "judge": said, **more}))
        code = main(["compare", *map(str, roots), "--judge", str(file), "--out", str(tmp_path / "judged")])
    found = tmp_path / "judged" / "elo.json"
    return code, json.loads(found.read_text()) if found.exists() else {}, server


def says_winner(name: str) -> Reply:
    return Reply(says(json.dumps({"winner": name})))


def prefers(roots: list[Path], order: list[int]) -> Callable[[str, str], Reply]:
    """A judge by a true order of the runs, best first, whatever the order in which it is shown them."""
    of_run = by_run(roots)

    def judge(first: str, second: str) -> Reply:
        a, b = (order.index(of_run[one]) for one in (first, second))
        return says_winner("Image A" if a < b else "Image B")

    return judge


def test_runs_are_ranked_by_their_true_order(tmp_path: Path, runs: list[Path], capsys: Any) -> None:
    code, found, server = compare(tmp_path, runs, prefers(runs, [2, 0, 1]))
    assert code == 0
    assert [row["run"] for row in found["runs"]] == ["run2", "run0", "run1"]
    assert len(server.asked) == DIMENSIONS * 2 * (5 + 4 + 4)
    best, middle, worst = found["runs"]
    assert (best["wins"], best["ties"], best["losses"]) == (3 * 8, 0, 0)
    assert (middle["wins"], middle["losses"]) == (3 * 5, 3 * 4)
    assert (worst["wins"], worst["losses"]) == (0, 3 * 9)
    assert found["left_out"] == {"not edited in run2": 2}
    for row in found["runs"]:
        for one in (*row["dimensions"].values(), *row["categories"].values()):
            assert one["ci_low"] is None or one["ci_low"] <= one["elo"] <= one["ci_high"]
    assert all(one["ci_low"] is not None for one in best["dimensions"].values())
    assert list(best["categories"]) == sorted(["physical", "environmental", "social", "causal", "referential"])
    pairs = {(pair["first"], pair["second"]): pair["dimensions"] for pair in found["pairs"]}
    assert {(row["wins"], row["losses"]) for row in pairs["run0", "run2"].values()} == {(0, 4)}
    for row in found["dimensions"].values():
        assert (row["judged"], row["agreed"], row["first_twice"], row["second_twice"]) == (13, 13, 0, 0)
    table = capsys.readouterr().out
    assert table.index("run2") < table.index("run0") < table.index("run1")
    assert "13 pairs judged in both orders by a-judge; the orders agree in 100.0 %" in table


def test_the_judge_is_asked_in_the_words_of_the_checkout(tmp_path: Path, runs: list[Path]) -> None:
    _, _, server = compare(tmp_path, runs[:2], prefers(runs, [0, 1, 2]))
    body = next(body for body in server.asked if "instruction_following" in body["messages"][0]["content"])
    system, user = body["messages"]
    assert system == {"role": "system", "content": "You look at instruction_following."}
    assert [part["type"] for part in user["content"]] == ["text", "image_url", "text", "image_url", "text", "image_url"]
    assert user["content"][0]["text"].startswith("Which one? It was: edit ")
    quality = next(body for body in server.asked if "visual_quality" in body["messages"][0]["content"])
    types = [part["type"] for part in quality["messages"][1]["content"]]
    assert types == ["text", "text", "image_url", "text", "image_url"]


def test_a_judge_is_shown_every_source_of_a_sample(tmp_path: Path) -> None:
    write_gedit2(tmp_path)
    params = {"base_url": "http://h/v1", "model": "m", "api_key_env": None}
    said = {"class_path": "slurm_bench.scorers.openai_api.OpenAIScorer", "params": params}
    (tmp_path / "judge.yaml").write_text(json.dumps({"prompts": "GEditBench_v2", "judge": said}))
    asker = load_askers(tmp_path / "judge.yaml")["instruction following"]
    red, green, blue, white = (Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue", "white"))
    asked = asker.exchange("put it on", 1, {"source": (red, green), FIRST: (blue,), SECOND: (white,)})
    pictures = [part.image().getpixel((0, 0)) for part in asked.parts if isinstance(part, Picture)]
    assert pictures == [image.getpixel((0, 0)) for image in (red, green, blue, white)]


def test_only_what_is_new_is_asked(tmp_path: Path, runs: list[Path]) -> None:
    """A judge is the same while its address is."""
    judge = prefers(runs, [0, 1, 2])
    with serve(Reply()) as server:
        server.script = lambda body: judge(*shown(body))
        write_gedit2(tmp_path)
        params = {"base_url": server.url, "model": "a-judge", "api_key_env": None}
        said = {"class_path": "slurm_bench.scorers.openai_api.OpenAIScorer", "params": params}
        (tmp_path / "judge.yaml").write_text(json.dumps({"prompts": "GEditBench_v2", "judge": said}))
        words = ["--judge", str(tmp_path / "judge.yaml"), "--out", str(tmp_path / "judged"), "--json"]
        asked = []
        for roots in (runs[:2], runs, runs[::-1]):
            assert main(["compare", *map(str, roots), *words]) == 0
            asked.append(len(server.asked))
    assert asked == [DIMENSIONS * 2 * 5, DIMENSIONS * 2 * 13, DIMENSIONS * 2 * 13]
    assert [row["run"] for row in json.loads((tmp_path / "judged" / "elo.json").read_text())["runs"]] == [
        *("run0", "run1", "run2")
    ]


def test_a_judge_that_goes_by_the_order_finds_ties_and_is_told(tmp_path: Path, runs: list[Path], capsys: Any) -> None:
    code, found, _ = compare(tmp_path, runs, lambda first, second: says_winner("Image A"))
    assert code == 0
    assert [row["elo"] for row in found["runs"]] == pytest.approx([1000] * 3, abs=1)
    assert all(row["wins"] == row["losses"] == 0 for row in found["runs"])
    for row in found["dimensions"].values():
        assert (row["judged"], row["agreed"], row["first_twice"]) == (13, 0, 13)
    assert "the orders agree in 0.0 %" in capsys.readouterr().out


def test_equal_images_are_a_tie_and_nobody_is_asked(tmp_path: Path, runs: list[Path]) -> None:
    again = prepare(tmp_path, "Tint", {"strength": 1, "fail": []}, count=5, name="again")
    work(again)
    code, found, server = compare(tmp_path, [runs[0], again], prefers(runs, [0, 1, 2]))
    assert code == 0
    assert server.asked == []
    assert {row["identical"] for row in found["dimensions"].values()} == {5}
    assert [row["ties"] for row in found["runs"]] == [DIMENSIONS * 5] * 2


def test_of_equal_images_of_several_runs_one_question_is_asked(
    tmp_path: Path, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairwise, "AT_ONCE", 4)
    again = prepare(tmp_path, "Tint", {"strength": 1, "fail": []}, count=5, name="again")
    work(again)
    _, found, server = compare(tmp_path, [*runs[:2], again], prefers(runs, [0, 1, 2]))
    assert len(server.asked) == found["asked_now"] == DIMENSIONS * 2 * 5
    assert {(row["judged"], row["identical"]) for row in found["dimensions"].values()} == {(10, 5)}


def test_a_source_that_was_exchanged_since_is_shown_to_no_judge(tmp_path: Path, capsys: Any) -> None:
    roots = [prepare(tmp_path, "Tint", {"strength": s, "fail": []}, count=3, name=f"run{s}") for s in (1, 5)]
    for root in roots:
        work(root)
    source = run_dir(roots[0]).root / open_run(roots[0]).samples[0].sources[0]
    Image.new("RGB", (48, 32), "black").save(source)
    code, found, server = compare(tmp_path, roots, lambda first, second: says_winner("Tie"))
    assert code == 3
    assert len(server.asked) == DIMENSIONS * 2 * 2
    for row in found["dimensions"].values():
        assert (row["judged"], row["missing"]) == (2, 1)
        ((why, count),) = row["problems"].items()
        assert why.startswith("the source isn't the one that was edited")
        assert count == 2
    assert "1 not judged; 2 questions: the source isn't the one that was edited" in capsys.readouterr().out


def test_why_a_judge_gave_no_answer_is_said(
    tmp_path: Path, runs: list[Path], capsys: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairwise.log, "propagate", True)
    caplog.set_level("INFO")
    too_large = itertools.count(1001)

    def judge(first: str, second: str) -> Reply:
        return Reply(f"{next(too_large)} pixels are too many".encode(), 400)

    _, found, _ = compare(tmp_path, runs[:2], judge)
    for row in found["dimensions"].values():
        ((why, count),) = row["problems"].items()
        assert re.fullmatch(r"HTTP 400: \d+ pixels are too many", why)
        assert count == 10
    assert "5 not judged; 10 questions: HTTP 400: 10" in capsys.readouterr().out
    assert "'s-0' isn't judged: HTTP 400" in caplog.text
    assert "0 of 10 judged" in caplog.text


def test_a_reply_that_cannot_be_read_is_no_judgement(tmp_path: Path, runs: list[Path]) -> None:
    code, found, server = compare(tmp_path, runs[:2], lambda first, second: Reply(says("I like both.")))
    assert code == 0
    assert {row["unread"] for row in found["dimensions"].values()} == {5}
    assert [row["elo"] for row in found["runs"]] == [None, None]
    assert len(server.asked) == DIMENSIONS * 2 * 5


def test_what_was_judged_before_a_server_went_away_is_kept(tmp_path: Path, runs: list[Path], capsys: Any) -> None:
    judge, answered = prefers(runs, [0, 1, 2]), []

    def goes_away(first: str, second: str) -> Reply:
        answered.append(first)
        return judge(first, second) if len(answered) <= 15 else Reply(b"", 503)

    code, _, _ = compare(tmp_path, runs[:2], goes_away)
    assert code == 1
    assert "what was judged is kept: type the same again" in capsys.readouterr().err
    (file,) = (tmp_path / "judged").glob("judgements-*.jsonl")
    assert 10 <= len(file.read_bytes().splitlines()) <= 15


def test_what_was_judged_is_told_where_a_server_fails_at_all_the_rest(
    tmp_path: Path, runs: list[Path], capsys: Any
) -> None:
    """Typed again, for a page say, only what it fails at is asked: that its server never answered these is no reason
    to withhold the others."""
    judge, failing, fails = prefers(runs, [0, 1, 2]), pixels(images(runs[0])["s-1"]), Reply(b"", 500)
    with serve(Reply()) as server:  # a judge is the same while its address is
        server.script = lambda body: fails if failing in (pair := shown(body)) else judge(*pair)
        write_gedit2(tmp_path)
        quick = {"backoff": 0.001, "patience": 0.3, "retries": 0, "api_key_env": None}
        params = {"base_url": server.url, "model": "a-judge", **quick}
        said = {"class_path": "slurm_bench.scorers.openai_api.OpenAIScorer", "params": params}
        (tmp_path / "judge.yaml").write_text(json.dumps({"prompts": "GEditBench_v2", "judge": said}))
        for _ in range(2):
            words = ["--judge", str(tmp_path / "judge.yaml"), "--out", str(tmp_path / "judged")]
            assert main(["compare", *map(str, runs[:2]), *words]) == 3
            assert "4 pairs judged in both orders" in (told := capsys.readouterr().out)
            assert "1 not judged; " in told


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--judge", "j.yaml"], "--judge FILE and --out DIR go together"),
        (["--judge", "j.yaml", "--out", "o", "--images"], "have no meaning"),
        (["--judge", "nowhere.yaml", "--out", "o"], "cannot read nowhere.yaml"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], why: str, runs: list[Path], capsys: Any) -> None:
    assert main(["compare", *map(str, runs[:2]), *words]) == 1
    assert why in capsys.readouterr().err


def test_a_dimension_may_have_its_own_judge_or_be_left_out(tmp_path: Path) -> None:
    write_gedit2(tmp_path)
    judge = {"class_path": "slurm_bench.scorers.openai_api.OpenAIScorer"}
    common, own = ({**judge, "params": {"base_url": "http://h/v1", "model": model}} for model in ("m", "pvc"))
    said = {"visual consistency": {"judge": own}, "visual quality": None}
    (tmp_path / "j.yaml").write_text(json.dumps({"prompts": "GEditBench_v2", "judge": common, "dimensions": said}))
    askers = load_askers(tmp_path / "j.yaml")
    assert {name: asker.judge.provenance()["model"] for name, asker in askers.items()} == {
        "instruction following": "m",
        "visual consistency": "pvc",
    }
    assert len({asker.by for asker in askers.values()}) == 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"dimensions": ["visual quality"]}, "j.yaml: 'dimensions' is"),
        (
            {"dimensions": {"visual quality": 5}},
            "j.yaml: dimensions.visual quality' is 5; it must be names with values",
        ),
        ({"images": None}, "j.yaml: images"),
        ({"images": {"longest": 0}}, "j.yaml: images.longest is 0"),
        ({"max_tokens": 0}, "j.yaml: max_tokens is 0"),
        ({"judge": {"class_path": "slurm_bench.scorers.openai_api.OpenAIScorer", "params": [1]}}, r"judge.params' is"),
    ],
)
def test_a_fault_of_the_file_is_told_by_its_place(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    write_gedit2(tmp_path)
    judge = {
        "class_path": "slurm_bench.scorers.openai_api.OpenAIScorer",
        "params": {"base_url": "http://h/v1", "model": "m"},
    }
    (tmp_path / "j.yaml").write_text(json.dumps({"prompts": "GEditBench_v2", "judge": judge, **change}))
    with pytest.raises(UserError, match=why):
        load_askers(tmp_path / "j.yaml")


def test_how_a_judge_is_asked_makes_it_no_other(tmp_path: Path) -> None:
    def by(**params: Any) -> str:
        judge = {
            "class_path": "slurm_bench.scorers.openai_api.OpenAIScorer",
            "params": {"base_url": "http://h/v1", "model": "m", **params},
        }
        (tmp_path / "j.yaml").write_text(json.dumps({"prompts": "GEditBench_v2", "judge": judge}))
        return load_askers(tmp_path / "j.yaml")["visual quality"].by

    write_gedit2(tmp_path)
    assert by() == by(patience=600.0, concurrency=16, timeout=10.0, api_key_env=None)
    assert len({by(), by(base_url="http://other/v1"), by(model="n"), by(temperature=0.1), by(max_pixels=4096)}) == 5
