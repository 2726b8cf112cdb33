"""pairwise.html in a real browser, opened from disk: what a judge of pairs found, with data and a judge that mean no
good."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from browser import HOSTILE, Browser, axe_finds
from chat_server import Reply, says, serve
from helpers import make_config
from PIL import Image
from protocol_prompts import write_gedit2
from tasks import work

from slurm_bench.cli import main
from slurm_bench.config import load_config
from slurm_bench.data import read_items
from slurm_bench.report.davidson import LOSS, TIE, WIN
from slurm_bench.report.judgements import Judgement, Match
from slurm_bench.report.page import pairwise_page
from slurm_bench.report.page.replies import carried
from slurm_bench.report.pairwise_results import AGREED, FIRST_TWICE, UNREAD, Verdict
from slurm_bench.run.create import create_run
from slurm_bench.scorers.protocols.pairwise import FIRST, SECOND

IDS = ["by order", "agreed", "unread", *HOSTILE]
FAILED = HOSTILE[0]
NAMES = ["weak", "<b>strong", "lost"]


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a page of three runs, of which the last failed at a sample. The judge names what it is shown first
    at one sample, can't be read at another, and else prefers whichever is darker."""
    folder = tmp_path_factory.mktemp("pairwise")
    lines = []
    for n, name in enumerate(IDS):
        Image.new("RGB", (96, 64), (20 * n, 200, 60)).save(folder / f"{n}.png")
        lines.append({"id": name, "category": HOSTILE[1] if n % 2 else "even", "instruction": f"{name}, please"})
        lines[-1] |= {"image": f"{n}.png"}
    (folder / "bench.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    roots = []
    for number, name in enumerate(NAMES):
        params = {"strength": 4 * number + 1, "fail": [FAILED] if name == "lost" else []}
        config = load_config(make_config(folder / "run.yaml", folder / "bench.jsonl", "Tint", params), [])
        create_run(folder / name, config, lambda config=config: read_items(config.data), {}, force=False)
        work(folder / name)
        roots.append(folder / name)
    write_gedit2(folder)
    with serve(Reply()) as server:
        server.script = judge
        params = {"base_url": server.url, "model": "<i>judge", "api_key_env": None, "retries": 0}
        said = {"class_path": "slurm_bench.scorers.openai_api.OpenAIScorer", "params": params}
        (folder / "judge.yaml").write_text(json.dumps({"prompts": "GEditBench_v2", "judge": said}))
        words = ["--judge", folder / "judge.yaml", "--out", folder / "judged", "--html", folder / "page"]
        assert main(["compare", *map(str, [*roots, *words]), "--single-file"]) == 0
    return folder / "page"


def judge(body: dict[str, Any]) -> Reply:
    urls = [part["image_url"]["url"] for part in body["messages"][1]["content"] if part["type"] == "image_url"]
    first, second = urls[-2:]
    text = "".join(part.get("text", "") for part in body["messages"][1]["content"])
    if "unread, please" in text:
        return Reply(says("I can't tell <script>hacked()</script>"))
    ahead = "by order, please" in text or first < second
    words = {"reasoning": f"zebra {HOSTILE[0]}", "winner": "Image A" if ahead else "Image B"}
    return Reply(says(json.dumps(words)))


def test_of_many_replies_the_page_has_those_that_people_look_at_first(
    page: Path, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = page.parent / "judged"
    monkeypatch.setattr(pairwise_page, "MOST_SAID", 3 * 460)  # of each two runs those of four pairs
    words = ["--judge", page.parent / "judge.yaml", "--out", judged, "--html", tmp_path]
    assert main(["compare", *[str(page.parent / name) for name in NAMES], *map(str, words)]) == 0
    kept = sum(len(file.read_text().splitlines()) for file in judged.glob("judgements-*.jsonl"))
    text = (tmp_path / "page" / "data.js").read_text().removeprefix("var REPORT = ").rstrip().removesuffix(";")
    said = {sample["id"]: sample["said"] for sample in json.loads(text)["samples"]}
    here = sum(map(len, said.values()))
    assert 0 < here < kept
    assert said["unread"]
    assert said["by order"]
    assert (said["agreed"], len(said["unread"]) % 2) == ([], 0)
    browser.open(tmp_path / "pairwise.html", "#/agreed")
    browser.wait("document.getElementById('viewer').open")
    assert "0 of 18; the others are in judged/judgements-*.jsonl" in browser.js("return document.body.innerText")
    note = f"Of the judge's {kept} replies this page has {here}"
    assert note in browser.js("return document.getElementById('pairs').textContent")
    assert "this page has" not in (page / "pairwise.html").read_text(), "there all of them fit"


def test_no_kind_of_reply_takes_anothers_place() -> None:
    """A hundred ties don't push out the one win against the verdict; nor do thousand unread replies."""
    said = (Judgement(FIRST, "", "x" * 50), Judgement(SECOND, "", "x" * 50))
    kinds = {"expected": (AGREED, WIN, 300), "tied": (AGREED, TIE, 100), "against": (AGREED, LOSS, 1)}
    kinds |= {"unread": (UNREAD, None, 1000), "order": (FIRST_TWICE, TIE, 5)}
    verdicts = [
        Verdict(Match(0, other, f"{name} {n}", "", ("a", "b")), "d", kind, outcome, said)
        for name, (kind, outcome, count) in kinds.items()
        for n in range(count)
        for other in (1, 2)
    ]
    assert len(carried(verdicts, 10**9)) == len(verdicts)
    found = carried(verdicts, 2 * 50 * 100)
    assert Counter((other, sample.split()[0]) for _, other, sample, _ in found) == {
        (other, name): count
        for other in (1, 2)
        for name, count in {"against": 1, "order": 5, "tied": 22, "unread": 22}.items()
    }
    plenty = Counter(sample.split()[0] for _, _, sample, _ in carried(verdicts, 2 * 1200 * 100))
    assert plenty == {"expected": 2 * 94, "tied": 200, "against": 2, "unread": 2000, "order": 10}


@pytest.fixture(params=["pairwise.html", "pairwise-single.html"])
def opened(request: pytest.FixtureRequest, page: Path, browser: Browser, tmp_path: Path) -> Browser:
    """The page with its folder beside it, and the single file in a folder of its own."""
    file = page / request.param
    return browser.open(Path(shutil.copy(file, tmp_path)) if "single" in request.param else file)


def test_it_tells_ranking_pairs_and_where_the_order_decided(page: Path, opened: Browser) -> None:
    said = json.loads((page.parent / "judged" / "elo.json").read_text())
    ranking = opened.js("return [...document.querySelectorAll('#results .means tr')].map(e => e.innerText)")
    for row in said["runs"]:
        elo, low, high = (round(row[key]) for key in ("elo", "ci_low", "ci_high"))
        assert any(row["run"] in line and f"{elo}" in line and f"{low} to {high}" in line for line in ranking)
        for one in row["dimensions"].values():
            assert any(f"{round(one['ci_low'])} to {round(one['ci_high'])}" in line for line in ranking)
    assert opened.js("return document.querySelectorAll('#results .interval').length") >= 3 * 4
    pairs = opened.js("return [...document.querySelectorAll('#pairs h3')].map(e => e.textContent)")
    assert pairs[:3] == ["weak against <b>strong", "weak against lost", "<b>strong against lost"]
    links = opened.js("return [...document.querySelectorAll('#pairs p a')].map(e => e.textContent)")
    assert links == ["by order"]
    opened.set("flag", "the order decided: visual consistency")
    assert opened.ids() == ["by order"]


def test_the_judges_words_stand_beside_the_pictures_in_both_orders(opened: Browser) -> None:
    opened.js("document.querySelector('#pairs p a').click()")
    opened.wait("document.getElementById('viewer').open")
    assert opened.title() == "by order"
    titles = opened.js("return [...document.querySelectorAll('#about h3')].map(e => e.textContent)")
    assert len(titles) == 3 * 3 * 2
    assert "visual consistency, A is weak, B is <b>strong: weak is better" in titles
    assert "visual consistency, A is <b>strong, B is weak: <b>strong is better" in titles
    captions = opened.js("return [...document.querySelectorAll('#stage figcaption span')].map(e => e.textContent)")
    assert captions == ["source", "edited, weak", "edited, <b>strong", "edited, lost"]
    assert opened.wait("[...document.querySelectorAll('#stage img')].every(e => e.naturalWidth)")
    assert opened.complaints() == []
    assert opened.requests() <= {"file", "data"}


def test_what_is_not_judged_says_why_and_hostile_texts_stay_text(opened: Browser) -> None:
    assert sorted(opened.ids()) == sorted(IDS)
    opened.set("status", "error")
    assert sorted(opened.ids()) == sorted(["unread", FAILED])
    whys = opened.js("return [...document.querySelectorAll('#gallery .why')].map(e => e.textContent)")
    assert any("visual consistency: the judge's reply can't be read" in why for why in whys)
    opened.set("status", "")
    for name in [*HOSTILE, "unread"]:
        opened.js("location.hash = '#/' + encodeURIComponent(arguments[0])", name)
        opened.wait(f"document.getElementById('viewer-title').textContent === {json.dumps(name)}")
        assert "hacked()" in opened.js("return document.querySelector('#about pre').textContent")
    opened.js("location.hash = '#/' + encodeURIComponent(arguments[0])", FAILED)
    opened.wait(f"document.getElementById('viewer-title').textContent === {json.dumps(FAILED)}")
    assert opened.js("return document.querySelector('#about .why').textContent") == "not edited in lost"
    assert opened.js("return document.querySelectorAll('[onerror], [onmouseover], img[src=x], b b, i i').length") == 0
    assert opened.js("return typeof hacked") == "undefined"
    assert opened.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Path, browser: Browser, scheme: str) -> None:
    assert axe_finds(browser, page / "pairwise.html", "#/agreed", scheme) == []
