"""report.html in a real browser, opened from disk: what a person sees and does, with data that mean no good."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import HOSTILE, Browser, axe_finds
from helpers import launch
from PIL import Image

from slurm_bench.report.page import assemble
from slurm_bench.report.page.causes import causes
from slurm_bench.report.page.pictures import Picture
from slurm_bench.report.page.plots import Axis, axis_over, histogram
from slurm_bench.report.page.thumbnails import make_thumbnails
from slurm_bench.report.write import write_report
from slurm_bench.run.layout import RunDir
from slurm_bench.run.opened import open_run
from slurm_bench.run.records import read_records

PLUGINS = """
from PIL import Image
from slurm_bench.editors.base import Edited
from slurm_bench.scorers.base import Score, Scored


class Editor:
    def edit(self, batch):
        return [self.one(request) for request in batch]

    def one(self, request):
        if request.id == "fails":
            return ValueError("<b>boom</b> at 7")
        if request.id == "same":
            return request.image
        tint = Image.new("RGB", request.image.size, (request.seed % 256, 40, 90))
        return Edited(tint, {"prompt_cut": 12} if request.id == "cut" else {})


class Rewriter:
    def rewrite(self, request):
        return f"{request.instruction}, and nothing else"


class Judge:
    scores = {"overall": Score(0, 10), "quality": Score(0, 10)}
    marks = {"a": 1.0, "b": 9.0, "same": 5.0, "cut": 4.0}

    def score(self, batch):
        return [self.one(request) for request in batch]

    def one(self, request):
        if request.id == "unread":
            return Scored({}, raw="I'd rather </script><script>hacked()</script>", parse="no score in the reply")
        mark = self.marks.get(request.id, 6.0)
        return Scored({"overall": mark, "quality": 10 - mark}, raw=f"a zebra crossing, {mark}")
"""

IDS = ["a", "b", "same", "cut", "fails", "unread", *HOSTILE]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of those samples, whose sources lie outside it."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "page_plugins.py").write_text(PLUGINS)
    lines = []
    for n, name in enumerate(IDS):
        Image.new("RGB", (96, 64), (200, 20 * n, 60)).save(folder / f"{n}.png")
        lines.append({"id": name, "category": "even" if n % 2 == 0 else HOSTILE[1], "instruction": f"{name} please"})
        lines[-1] |= {"difficulty": "<i>hard</i>" if n % 3 else "easy"}
        lines[-1] |= {"image": f"{n}.png", "reference": "0.png"} if n < 3 else {"image": f"{n}.png"}
    hole = Image.new("RGBA", (96, 64), (200, 40, 60, 255))
    hole.paste((0, 0, 0, 0), (30, 20, 60, 50))
    hole.save(folder / "mask.png")
    lines[IDS.index("same")]["mask"] = "mask.png"
    (folder / "bench.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = {
        "data": {"reader": "jsonl", "path": str(folder / "bench.jsonl"), "fields": {"mask": "mask"}},
        "editor": {"class_path": "page_plugins.Editor", "params": {}},
        "rewriter": {"class_path": "page_plugins.Rewriter"},
        "scorers": {"judge": {"class_path": "page_plugins.Judge"}},
        "report": {"by": ["difficulty"]},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    env = {**os.environ, "PYTHONPATH": str(folder)}
    done = launch("--config", folder / "config.yaml", "--run-dir", folder / "run", "--executor", "debug", env=env)
    assert done.returncode == 3, done.stderr  # `fails` and `unread` have no score
    done = launch("report", folder / "run", "--single-file", env=env)
    assert (folder / "run" / "report" / "report-single.html").exists(), done.stderr
    return folder / "run"


@pytest.fixture(params=["report.html", "report-single.html"])
def opened(request: pytest.FixtureRequest, run: Path, browser: Browser, tmp_path: Path) -> Browser:
    """The page in the run folder, and the single file in a folder of its own."""
    file = run / "report" / request.param
    if "single" in request.param:
        file = Path(shutil.copy(file, tmp_path))
    return browser.open(file)


SHOWN = "[...document.querySelectorAll('#gallery img')].every(e => e.complete && e.naturalWidth)"


def test_it_opens_from_disk_with_all_pictures_and_asks_nobody(opened: Browser) -> None:
    opened.js("document.querySelectorAll('#gallery img').forEach((image) => { image.loading = 'eager'; })")
    assert opened.wait(SHOWN)
    assert len(opened.ids()) == len(IDS)
    assert opened.js("return document.querySelectorAll('#gallery img').length") == 2 * len(IDS) - 1 + 3
    opened.js("location.hash = '#/a'")
    assert opened.wait("document.querySelectorAll('#stage img').length")
    assert opened.complaints() == []
    assert opened.requests() <= {"file", "data"}


@pytest.mark.parametrize("width", [1300, 1000, 640])
def test_the_means_are_named_on_one_line(run: Path, browser: Browser, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.open(run / "report" / "report.html")
        heights = browser.js("return [...document.querySelectorAll('.means .over')].map(e => e.clientHeight)")
        assert len(heights) == 4
        assert max(heights) < 40
        assert browser.js("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_hostile_texts_stay_text(opened: Browser) -> None:
    assert sorted(opened.ids()) == sorted(IDS)
    for name in [*HOSTILE, "unread"]:
        opened.js("location.hash = '#/' + encodeURIComponent(arguments[0])", name)
        opened.wait(f"document.getElementById('viewer-title').textContent === {json.dumps(name)}")
    assert "</script>" in opened.js("return document.querySelector('#about pre').textContent")
    links = opened.js("return [...document.links].map(e => e.protocol)")
    assert set(links) <= {"file:"}
    assert opened.js("return document.querySelectorAll('[onerror], [onmouseover], img[src=x]').length") == 0
    assert opened.js("return typeof hacked") == "undefined"
    assert opened.complaints() == []
    opened.js("location.hash = arguments[0]", f"#/{'%E0%A4%A'}")  # not UTF-8
    assert opened.wait("!document.getElementById('viewer').open")


def test_a_rewritten_instruction_stands_beside_the_one_that_was_planned(opened: Browser) -> None:
    texts = "[...document.querySelectorAll(arguments[0] + ' .instruction')].map(e => e.textContent)"
    both = ["a please", "a please, and nothing else"]
    assert opened.js(f"return {texts}", "#gallery li:nth-child(3)") == [both[0], f"rewritten: {both[1]}"]
    opened.js("location.hash = '#/a'")
    opened.wait("document.getElementById('viewer-title').textContent === 'a'")
    assert opened.js(f"return {texts}", "#about") == both


def test_samples_are_filtered_and_sorted(opened: Browser) -> None:
    assert opened.ids()[:4] == ["fails", "unread", "a", "cut"]
    opened.set("sort", "best")
    assert opened.ids()[0] == "b"
    opened.set("sort", "+quality")
    assert opened.ids()[0] == "b"
    opened.set("sort", "plan")
    assert opened.ids() == IDS
    opened.set("status", "error")
    assert opened.ids() == ["fails", "unread"]
    opened.set("status", "")
    opened.set("flag", "unchanged")
    assert opened.ids() == ["same"]
    opened.set("flag", "prompt cut")
    assert opened.ids() == ["cut"]
    opened.set("flag", "")
    opened.set("low", "4.5")
    opened.set("high", "5")
    assert opened.ids() == ["same"]
    assert opened.js("return document.getElementById('count').textContent") == f"1 of {len(IDS)} samples"
    opened.js("document.querySelector('#filters [type=reset]').click()")
    opened.wait(f"document.querySelectorAll('#gallery .open').length === {len(IDS)}")
    opened.set("category", HOSTILE[1])
    assert sorted(opened.ids()) == sorted(IDS[1::2])
    opened.set("category", "")
    opened.set("text", "ZEBRA 9")  # the judge's words
    assert opened.ids() == ["b"]


def test_the_keyboard_does_it_all(opened: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    opened.press("/", "please")
    assert opened.js("return document.querySelector('#filters [name=text]').value") == "please"
    opened.press(Keys.ESCAPE)
    opened.js("document.querySelector('#gallery .open').focus()")
    opened.press(Keys.ENTER)
    assert opened.wait("document.getElementById('viewer').open")
    assert opened.title() == "fails"
    opened.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    opened.wait("document.getElementById('viewer-title').textContent === 'a'")
    assert opened.js("return location.hash") == "#/a"
    opened.press("+", "+")
    opened.press(Keys.ARROW_RIGHT)
    opened.wait("document.getElementById('viewer-title').textContent === 'cut'")
    assert opened.js("return document.getElementById('zoom').textContent") == "225 %"
    opened.press("f")
    caption = "return document.querySelector('#stage figcaption').textContent"
    assert opened.js(caption).startswith("source")
    opened.press("f")
    assert opened.js(caption).startswith("edited")
    opened.press("b", "0")
    assert opened.js("return document.querySelectorAll('#stage figure').length") == 2
    opened.press(Keys.ESCAPE)
    assert opened.wait("!document.getElementById('viewer').open && location.hash === ''")


def test_zoom_and_pan_move_all_pictures_in_step(opened: Browser) -> None:
    opened.js("location.hash = '#/b'")
    opened.wait("document.querySelectorAll('#stage figure').length === 3")
    wheel = """
    const box = document.querySelectorAll('.frame')[1].getBoundingClientRect();
    document.querySelectorAll('.frame')[1].dispatchEvent(new WheelEvent('wheel',
      {deltaY: -400, bubbles: true, cancelable: true, clientX: box.right, clientY: box.top}));
    """
    opened.js(wheel)
    transforms = "return [...document.querySelectorAll('#stage img')].map(e => getComputedStyle(e).transform)"
    found = opened.js(transforms)
    assert len(set(found)) == 1
    assert found[0].startswith("matrix(2.71828")
    corner = """
    const frame = document.querySelectorAll('.frame')[1].getBoundingClientRect();
    const image = document.querySelectorAll('.frame')[1].querySelector('img').getBoundingClientRect();
    return [image.right - frame.right, image.top - frame.top];
    """
    assert opened.js(corner) == pytest.approx([0, 0], abs=1)


def test_the_slider_shows_more_of_either_picture(opened: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    opened.js("location.hash = '#/b'")
    opened.wait("document.getElementById('viewer').open")
    opened.press("s")
    exposure = "return document.querySelector('image-compare').style.getPropertyValue('--exposure')"
    opened.js("document.querySelector('image-compare').shadowRoot.querySelector('input').focus()")
    opened.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    opened.wait("document.querySelector('image-compare').style.getPropertyValue('--exposure') === '48%'")
    assert opened.title() == "b"  # the arrows were the slider's
    clip = "return getComputedStyle(document.querySelector('image-compare [slot=image-2]')).clipPath"
    assert "48%" in opened.js(clip) + opened.js(exposure)
    both = "return [...document.querySelectorAll('image-compare .frame')].map(e => e.getBoundingClientRect().height)"
    first, second = opened.js(both)
    assert first == second > 100
    opened.js("const e = document.getElementById('left'); e.value = 'reference'; e.dispatchEvent(new Event('change'))")
    assert opened.js("return document.querySelector('#stage figcaption').textContent") == "referenceedited"


def test_an_address_leads_to_a_sample(run: Path, browser: Browser) -> None:
    browser.open(run / "report" / "report.html", "#/cut")
    assert browser.wait("document.getElementById('viewer').open")
    assert browser.title() == "cut"
    seed = next(sample.seed for sample in open_run(run).samples if sample.id == "cut")
    about = browser.js("return document.getElementById('about').innerText")
    assert str(seed) in about
    assert "zebra" in about
    link = browser.js("return document.querySelectorAll('#stage figcaption a')[1].href")
    assert link == next((run / r["image"]).as_uri() for r in read_records(RunDir(run), "edit") if r["id"] == "cut")


def test_a_sample_shows_its_mask_where_it_is_wanted(opened: Browser) -> None:
    panes = "return [...document.querySelectorAll('#stage figcaption span')].map(e => e.textContent)"
    offered = "return !document.getElementById('mask').parentElement.hidden"
    assert "mask" not in opened.js("return document.getElementById('gallery').innerText").split("\n")
    opened.js("location.hash = '#/same'")
    opened.wait("document.getElementById('viewer').open")
    assert (opened.js(panes), opened.js(offered)) == (["source", "mask", "edited", "reference"], True)
    assert opened.wait("[...document.querySelectorAll('#stage img')].every(e => e.naturalWidth)")
    opened.press("m")
    assert opened.js(panes) == ["source", "edited", "reference"]
    opened.js("document.getElementById('mask').click()")
    assert opened.js(panes)[1] == "mask"
    opened.js("document.getElementById('mask').click(); location.hash = '#/b'")
    opened.wait("document.getElementById('viewer-title').textContent === 'b'")
    assert (opened.js(panes), opened.js(offered)) == (["source", "edited", "reference"], False)
    assert opened.complaints() == []


def test_a_mask_that_is_gone_is_told_in_its_place(run: Path, browser: Browser, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    mask = run.parent / "mask.png"
    mask.rename(tmp_path / "mask.png")
    try:
        write(folder)
        for name in ("report.html", "report-single.html"):
            browser.open(folder / "report" / name, "#/same")
            browser.wait("document.getElementById('viewer').open")
            pane = browser.js("return document.querySelectorAll('#stage figure')[1].innerText")
            assert "No such file" in pane or "mask.png" in pane
            assert browser.complaints() == []
    finally:
        (tmp_path / "mask.png").rename(mask)
    pictures = {name: [picture["role"] for picture in sample["pictures"]] for name, sample in data(folder).items()}
    assert [name for name, roles in pictures.items() if "mask" in roles] == ["same"]


OTHER = "<b>other"


@pytest.fixture(scope="session")
def comparison(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a page on which that run is compared with a copy in which one score is another."""
    folder = tmp_path_factory.mktemp("comparison")
    other = Path(shutil.copytree(run, folder / OTHER))
    (records,) = (other / "score" / "records").iterdir()
    records.write_text(records.read_text().replace('"overall": 4.0', '"overall": 10.0'))
    done = launch("compare", run, other, "--html", folder / "page", "--single-file", "--images")
    assert done.returncode == 0, done.stderr
    assert f"to send {folder / 'page' / 'compare-single.html'}" in done.stdout
    alone = launch("compare", run, other, "--single-file")
    assert (alone.returncode, "--html" in alone.stderr) == (1, True)
    return folder / "page"


@pytest.mark.parametrize("name", ["compare.html", "compare-single.html"])
def test_two_runs_are_shown_in_step_the_largest_difference_first(
    run: Path, comparison: Path, browser: Browser, tmp_path: Path, name: str
) -> None:
    file = comparison / name
    browser.open(Path(shutil.copy(file, tmp_path)) if "single" in name else file)
    assert browser.ids()[0] == "cut"
    assert sorted(browser.ids()) == sorted(IDS)
    assert "10 of 10 identical" in browser.js("return document.getElementById('results').innerText")
    difference = f"{OTHER} − {run.name}"
    browser.set("sort", f"+{difference}")
    browser.set("score", difference)
    browser.set("low", "6")
    assert browser.ids() == ["cut"]
    browser.js("location.hash = '#/cut'")
    browser.wait("document.getElementById('viewer').open")
    browser.press("s")
    caption = browser.js("return [...document.querySelectorAll('#stage figcaption span')].map(e => e.textContent)")
    assert caption == [f"edited, {run.name}", f"edited, {OTHER}"]
    assert browser.wait("[...document.querySelectorAll('#stage img')].every(e => e.naturalWidth)")
    assert browser.complaints() == []
    assert browser.requests() <= {"file", "data"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["report", "compare"])
def test_axe_finds_nothing_serious(run: Path, comparison: Path, browser: Browser, page: str, scheme: str) -> None:
    file = run / "report" / "report.html" if page == "report" else comparison / "compare.html"
    assert axe_finds(browser, file, "#/b", scheme) == []


def test_cards_are_made_as_one_scrolls(browser: Browser, copied: Callable[[int], Path]) -> None:
    browser.open(copied(300) / "report" / "report.html")
    assert len(browser.ids()) < 300
    browser.wait(
        "(scrollTo(0, document.body.scrollHeight), document.querySelectorAll('#gallery .open').length === 300)"
    )


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Callable[[int], Path]:
    """The same run with so many samples more, which nobody worked on."""

    def copy(count: int) -> Path:
        folder = Path(shutil.copytree(run, tmp_path / "run", dirs_exist_ok=True))
        plan = folder / "plan.jsonl"
        row = json.loads(plan.read_text().splitlines()[0])
        rows = [{**row, "id": f"more-{n}", "index": len(IDS) + n} for n in range(count - len(IDS))]
        plan.write_text(plan.read_text() + "".join(json.dumps(row) + "\n" for row in rows))
        facts = json.loads((folder / "provenance.json").read_text())
        (folder / "provenance.json").write_text(json.dumps({**facts, "plan": {}}))
        write(folder)
        return folder

    return copy


def write(root: Path) -> None:
    opened = open_run(root)
    write_report(opened, opened.state(), single_file=True)


def data(root: Path) -> dict[str, dict[str, Any]]:
    text = (root / "report" / "page" / "data.js").read_text()
    gallery = json.loads(text.removeprefix("var REPORT = ").rstrip().removesuffix(";"))
    return {sample["id"]: sample for sample in gallery["samples"]}


def test_thumbnails_are_made_once_and_again_where_the_image_is_another(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    thumbnails = folder / "report" / "page" / "thumbnails"
    before = {file.name: file.stat().st_mtime_ns for file in thumbnails.iterdir()}
    records = {r["id"]: r for r in read_records(RunDir(folder), "edit") if r["status"] == "ok"}
    (thumbnails / f"{records['a']['sha256'][:32]}.webp").unlink()
    (folder / records["a"]["image"]).write_bytes(b"another")
    (thumbnails / "left-over.webp").write_bytes(b"")
    os.utime(thumbnails / "left-over.webp", (0, 0))
    others = {"by-another-report.webp", "and.1-2.tmp"}  # at work on this run just now
    for name in others:
        (thumbnails / name).write_bytes(b"")
    write(folder)
    after = {file.name: file.stat().st_mtime_ns for file in thumbnails.iterdir()}
    assert others <= after.keys()
    after = {name: time for name, time in after.items() if name not in others}
    assert after == {name: time for name, time in before.items() if name != f"{records['a']['sha256'][:32]}.webp"}
    edited = data(folder)["a"]["pictures"][1]
    assert edited["thumb"] == ""
    assert "sha256" in edited["problem"]


def test_a_large_run_has_thumbnails_of_its_worst_samples_and_says_so(
    copied: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "MOST_PICTURED", 3)
    folder = copied(len(IDS))
    pictured = {name for name, sample in data(folder).items() if sample["pictures"][0]["thumb"]}
    assert pictured == {"fails", "unread", "a"}
    assert "The 3 worst of 11 samples have thumbnails" in (folder / "report" / "report.html").read_text()
    monkeypatch.setattr(assemble, "MOST_BYTES", 0)
    write(folder)
    assert "pictures of the 0 worst of 11" in (folder / "report" / "report-single.html").read_text()


@pytest.mark.parametrize("words", [10, 20_000])
@pytest.mark.parametrize("samples", [30, 3000])
def test_a_single_file_is_no_larger_than_it_says(
    words: int, samples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts and pictures share it, and a picture that many samples show stands there once."""
    noise = Image.effect_noise((200, 200), 80)
    for name in ("source", *map(str, range(30))):
        noise.rotate(len(list(tmp_path.iterdir()))).save(tmp_path / f"{name}.png")

    def pictures(number: int) -> list[Picture]:
        names = {"source": "source", "edited": str(number)}
        return [Picture(role, str(tmp_path / f"{name}.png")) for role, name in names.items()]

    def gallery(show: Any, whole: int, listed: int) -> dict[str, Any]:
        def sample(number: int) -> dict[str, Any]:
            shown = {"id": str(number), "pictures": [show(picture) for picture in pictures(number)]}
            return shown | ({"said": [{"raw": "w" * words}]} if number < whole else {})

        return {"headline": "o", "samples": map(sample, range(listed))}

    monkeypatch.setattr(assemble, "MOST_BYTES", 400_000)
    monkeypatch.setattr(assemble, "_render", rendered_plainly)
    page = assemble.Page(
        *("page", tmp_path, "p", samples, "worst", lambda most: [pictures(n) for n in range(min(most, 30))]),
        *(lambda picture: "", gallery, {}),
    )
    text = assemble.write_single_file(page).read_text()
    assert 200_000 < len(text) <= 400_000
    assert 1 < text.count("data:image/webp") <= 31
    assert 0 < text.count('"id"') <= samples
    assert (text.count('"id"') == samples) == (samples == 30)


def rendered_plainly(page: Any, pictured: int, whole: int, listed: int, **more: Any) -> str:
    return f"{pictured} {whole} {listed}" + "".join(more["inline_scripts"])


def test_a_page_tells_what_was_run(run: Path) -> None:
    text = (run / "report" / "report.html").read_text()
    facts = json.loads((run / "provenance.json").read_text())
    told = ("page_plugins.Editor", "By difficulty", "&lt;i&gt;hard&lt;/i&gt;")
    for fact in (facts["config_hash"], facts["plan"]["sha256"], facts["by"]["editor"], *told):
        assert fact in text
    assert data(run)["a"]["told"]["difficulty"] == "easy"


def test_failures_alike_are_one_cause() -> None:
    rows = [{"id": f"s-{n}", "why": f"edit: OOM: s-{n} wants {n} GiB"} for n in range(3)]
    found = causes([*rows, {"id": "x", "why": "edited, and not scored"}])
    assert [(cause.what, cause.ids) for cause in found] == [
        ("edit: OOM: s-0 wants 0 GiB", ["s-0", "s-1", "s-2"]),
        ("edited, and not scored", ["x"]),
    ]
    files = ("/data/a1 b/cat.png: no such file", "/data/a1 b/dog.png: no such file", "bird.JPG: no such file")
    found = causes({"id": name, "why": f"edit: {name}'s {file}"} for name, file in zip("xyz", files, strict=True))
    assert [cause.ids for cause in found] == [["x", "y"], ["z"]], "a file's name has its words"
    folders = [
        {"id": f"s-{len(name)}", "why": f"edit: OSError: /models/{name}/weights: stale"} for name in ("my", "our")
    ]
    assert len(causes(folders)) == 1
    keys = [{"id": name, "why": f"edit: KeyError: {name!r}"} for name in ("mask", "seed")]
    assert len(causes([{**row, "id": "s-1"} for row in keys])) == 2, "what is quoted tells them apart"


def test_a_plot_holds_every_value() -> None:
    axis = axis_over([0.601, None, 0.998])
    assert axis is not None
    assert axis.low <= 0.601 < 0.998 <= axis.high
    assert 0 <= axis.at(0.601) < axis.at(0.998) <= 100
    assert axis_over([None]) is None
    assert axis_over([3.0, 3.0]) is not None
    assert sum(bar.count for bar in histogram([0.601, 0.7, 0.998], axis)) == 3
    marks = histogram([1.0, 5.0, 5.0], Axis(1, 5, [1, 5]))
    assert [(bar.low, bar.count) for bar in marks] == [(1, 1), (2, 0), (3, 0), (4, 0), (5, 2)]


@pytest.mark.parametrize("size", [1e-320, 1e-12, 0.1, 1.0, 3e5, 1e17, 1e299])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_plot_has_a_width_where_rounding_alone_is_between_the_values(size: float, sign: int) -> None:
    for apart in (0.0, 2e-16, 1e-12, 3e-9, 1e-3):
        values = [sign * size, sign * size * (1 + apart)]
        axis = axis_over(values)
        assert axis is not None
        assert axis.low < axis.high
        assert all(0 <= axis.at(value) <= 100 for value in values), apart
        assert 2 <= len(axis.ticks) <= 8
        assert sum(bar.count for bar in histogram(values, axis)) == 2
    assert axis_over([-1e308, 1e308]) is None


def test_the_same_picture_in_many_runs_is_made_by_as_many_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8))
    files = [tmp_path / f"{n}.png" for n in range(8)]
    for file in files:
        Image.new("RGB", (600, 400), (200, 10, 10)).save(file)
    sha256 = hashlib.sha256(files[0].read_bytes()).hexdigest()
    for turn in range(20):
        pictures = [Picture("edited", file, sha256) for file in files]
        made = make_thumbnails(pictures, tmp_path / f"thumbnails-{turn}")
        assert {problem for _, problem in made.values()} == {""}
        assert len(list((tmp_path / f"thumbnails-{turn}").iterdir())) == 1
