"""The benchmarks' own protocols, from a downloaded folder to the benchmark's own number, held against one by hand."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmark_sets import gedit_rows, make_imgedit, make_kris, make_risebench, write_arrow, write_image
from chat_server import Reply, Server, says, serve
from helpers import REPO, summary
from protocol_prompts import write_gedit, write_imgedit, write_kris, write_rise

from slurm_bench.bundled import bundled
from slurm_bench.cli import main
from slurm_bench.config import load_config

NO_PROXY = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NO_PROXY:
        monkeypatch.delenv(name, raising=False)


def understood(path: Path) -> Path:
    """The same set, with instructions that the Pillow editor can follow."""
    for file in path.rglob("*.json"):
        text = file.read_text("utf-8")
        file.write_text(re.sub(r'("(?:instruction|prompt|ins_en)": "[^"]*)"', r'\1, at night"', text), encoding="utf-8")
    return path


def texts_of(body: dict[str, Any]) -> list[str]:
    return [part["text"] for part in content_of(body) if part["type"] == "text"]


def content_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    (message,) = body["messages"]
    assert message["role"] == "user"
    content: list[dict[str, Any]] = message["content"]
    return content


def run_by_protocol(
    name: str, tmp_path: Path, data: Path, prompts: Path, judge: Callable[[str], str]
) -> tuple[dict[str, Any], str, Server]:
    """What docs/benchmarks.md has people type, with the Pillow editor and a judge that answers by the prompt's text:
    what summary.json says of the benchmark's numbers, report.md, and what the judge was asked."""
    root = tmp_path / "run"
    with serve(Reply()) as server:
        server.script = lambda body: Reply(says(judge(texts_of(body)[0])))
        params = f"scorers.{name}.params"
        code = main(
            [
                *("--config", f"{name}.yaml", "--run-dir", str(root), "--executor", "debug", f"data.path={data}"),
                *(
                    "editor.params=null",
                    "editor=slurm_bench.editors.pillow.PillowEditor",
                    f"{params}.prompts={prompts}",
                ),
                *(f"{params}.judge.params.base_url={server.url}", f"{params}.judge.params.api_key_env=null"),
            ]
        )
    assert code in (0, 3)
    official = summary(root)["official"][name]
    return official, (root / "report" / "report.md").read_text(), server


def row(official: dict[str, Any], name: str, group: str = "all", **more: str) -> dict[str, Any]:
    (found,) = [
        row for row in official["rows"] if (row["name"], row["group"]) == (name, group) and more.items() <= row.items()
    ]
    return found


def test_gedit(tmp_path: Path) -> None:
    def judge(text: str) -> str:
        semantics = [8, 6] if "make it night" in text else [3, 10]
        scores = semantics if "Two images" in text else [9, 4]
        return f'{{"score": {scores}, "reasoning": "so"}}'

    rows = [{**row, "instruction": row["instruction"].replace("变成夜晚", "变成夜晚 (night)")} for row in gedit_rows()]
    data = write_arrow(tmp_path / "GEdit-Bench" / "train", rows).parent
    official, report, server = run_by_protocol("gedit", tmp_path, data, write_gedit(tmp_path), judge)
    english, chinese = math.sqrt(min(8, 6) * min(9, 4)), math.sqrt(min(3, 10) * min(9, 4))
    full = {"subset": "full set", "part": "en"}
    assert row(official, "G_O", **full)["value"] == pytest.approx(english)
    assert row(official, "G_SC", **full)["value"] == 6
    assert row(official, "G_PQ", **full)["value"] == 4
    assert row(official, "G_O", subset="full set", part="cn")["value"] == pytest.approx(chinese)
    assert row(official, "G_O", subset="intersection", part="en")["judged"] == 1
    assert row(official, "G_O", subset="intersection", part="cn")["value"] is None
    assert row(official, "G_O", **full)["categories"] == {"benchmark": 11, "judged": 2}
    assert len(server.asked) == 2 * 3
    assert all(body["temperature"] == 0 and body["max_tokens"] == 1400 for body in server.asked)
    content = next(content_of(body) for body in server.asked if "Two images" in texts_of(body)[0])
    assert [part["type"] for part in content] == ["text", "image_url", "image_url"]
    assert content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert "## GEdit-Bench (gedit)" in report
    assert "| G\\_O | en, full set, all, 2 of 11 categories | 4.899 | 4.899 |" in report
    assert "- judge: gpt-4.1" in report
    assert "- images: JPEG of quality 75, the edit at its source's size" in report


def test_imgedit(tmp_path: Path) -> None:
    given = {"Adjust": (4, 3, 2), "Remove": (5, 5, 4), "Style": (1, 1, 1)}

    def judge(text: str) -> str:
        kind = re.search(r"(\w+) Compliance", text)[1]  # type: ignore[index]
        first, second, third = given[kind]
        return (
            f"Brief reasoning: so.\n**{kind} Compliance:** {first}\nSeamlessness & Blend: {second}/5\nDetail: {third}"
        )

    data, prompts = understood(make_imgedit(tmp_path / "data")), write_imgedit(tmp_path)
    write_image(data / "images" / "daily object" / "000278574.jpg", "olive")
    official, _, server = run_by_protocol("imgedit", tmp_path, data, prompts, judge)
    by_type = {r["group"]: r["value"] for r in official["rows"] if r["name"] == "score by type"}
    assert by_type == {"adjust": 3, "remove": pytest.approx(14 / 3), "style": 1}
    overall = row(official, "mean of all samples")
    assert overall["value"] == pytest.approx((3 + 14 / 3 + 1) / 3)
    assert overall["official"] is False
    assert overall["ours"]["clusters"] == 2  # two of the three share their source
    assert len(server.asked) == 3
    assert [part["type"] for part in content_of(server.asked[0])] == ["text", "image_url", "image_url"]


RISE = {
    "prompt_consist": 4,
    "prompt_reasoning": 5,
    "prompt_generation": 3,
    "prompt_reasoning_w_input": 1,
    "prompt_spatial_ref": 5,
    "prompt_spatial_qual": 5,
    "prompt_logical_cons_ans": 1,
    "prompt_logical_txt": 0,
    "prompt_logical_cons": 1,
    "prompt_logical_img_wo_q": 1,
}


def test_rise(tmp_path: Path) -> None:
    def judge(text: str) -> str:
        return f"First this, then that.\n\n**Final Score:** **{RISE[text.partition(' |')[0]]}**"

    data, prompts = understood(make_risebench(tmp_path)), write_rise(tmp_path / "prompts")
    official, report, server = run_by_protocol("risebench", tmp_path, data, prompts, judge)
    temporal = 0.3 * 4 + 0.5 * 5 + 0.2 * 3
    causal = max(1, (0.3 * 4 + 0.5 * 1 + 0.2 * 3) / 2)
    spatial = 0.8 * 5 + 0.2 * 5  # its consistency is free
    first, second = max(1, (0.3 * 5 + 0.7 * 1) / 2), 5
    mean = (temporal + causal + spatial + first + second) / 5
    assert row(official, "Score-Percentage")["value"] == pytest.approx(25 * (mean - 1))
    assert row(official, "Score-Percentage", "logical_reasoning")["value"] == pytest.approx(
        25 * ((first + second) / 2 - 1)
    )
    assert row(official, "Accuracy")["value"] == pytest.approx(100 * 2 / 5)
    assert row(official, "ApprConsistency")["value"] == pytest.approx(25 * ((4 + 4 + 5 + 5) / 4 - 1))
    plausible = row(official, "VisualPlausibility")
    assert (plausible["planned"], plausible["judged"]) == (3, 3)  # no logical one is asked for it
    assert sorted(texts_of(body)[0].partition(" |")[0] for body in server.asked) == sorted(
        ["prompt_consist", "prompt_generation", *RISE]
    )
    told = {texts_of(body)[0] for body in server.asked}
    assert "prompt_reasoning | draw it later, at night a rotten banana | end with **Final Score:** **X**" in told
    assert all(p["image_url"]["detail"] == "high" for p in content_of(server.asked[0]) if p["type"] == "image_url")
    assert "at most 768 pixels a side" in report


def test_kris(tmp_path: Path) -> None:
    def judge(text: str) -> str:
        name = text.partition(" |")[0]
        if name == "prompt_dual_evaluation":
            marks = {"instruction_score": 4, "knowledge_score": 2}
        elif name == "prompt_quality":
            marks = {"quality_score": 3}
        else:
            marks = {("consistency" if "consist" in name else "instruction") + "_score": 5}
        return "```json\n" + json.dumps({"reasoning": "1. so", **marks}) + "\n```"

    data, prompts = understood(make_kris(tmp_path)), write_kris(tmp_path)
    official, _, server = run_by_protocol("kris", tmp_path, data, prompts, judge)
    plain, knowing = [5, 5, 3], [5, 4, 2, 3]
    marks = plain * 3 + knowing
    overall = row(official, "Overall")
    assert overall["value"] == pytest.approx(25 * (sum(marks) / len(marks) - 1))
    ours = [25 * (sum(plain) / 3 - 1)] * 3 + [25 * (sum(knowing) / 4 - 1)]
    assert overall["ours"]["mean"] == pytest.approx(sum(ours) / 4)
    assert overall["with_failures"] == pytest.approx(sum(ours) / 5)  # one's image isn't in the download
    assert (overall["judged"], overall["failed"], overall["refused"], overall["missing"]) == (4, 1, 0, 0)
    assert row(official, "type of knowledge", "Conceptual Knowledge")["value"] == pytest.approx(25 * (14 / 4 - 1))
    assert row(official, "dimension", "Temporal Prediction")["judged"] == 2
    assert row(official, "dimension", "Spatial Perception")["value"] is None
    temporal = [texts_of(body) for body in server.asked if "prompt_consist_temporal" in texts_of(body)[0]]
    assert sorted(texts[1:] for texts in temporal) == [
        ["Frame 1, edited image:", "Frame 2, original image:", "Frame 3, original image:"],
        ["Frame 1, original image:", "Frame 2, original image:", "Frame 3, edited image:"],
    ]
    assert temporal[0][0].endswith("| as { JSON }")
    (multi,) = [texts_of(body) for body in server.asked if "prompt_consist_multi" in texts_of(body)[0]]
    assert multi[1:] == ["Original image 1:", "Original image 2:", "Edited image:"]
    (dual,) = [texts_of(body)[0] for body in server.asked if "prompt_dual" in texts_of(body)[0]]
    assert dual == "prompt_dual_evaluation | add acid, at night | it turns red | as { JSON }"


COMMANDS = re.findall(
    r"^python launch.py --config (\S+) +(.+)$", (REPO / "docs" / "benchmarks.md").read_text("utf-8"), re.M
)


@pytest.mark.parametrize(("config", "words"), COMMANDS)
def test_the_command_that_the_page_tells_is_understood(
    config: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a run above: data and prompts are all that it must be told."""
    monkeypatch.chdir(tmp_path)
    typed = dict(word.split("=") for word in words.split())
    name = config.removesuffix(".yaml")
    assert [*typed] == ["data.path", f"scorers.{name}.params.prompts"]
    (tmp_path / typed["data.path"]).mkdir()
    assert f"test_{name.removesuffix('bench')}" in globals()
    assert load_config(bundled(config), words.split()).scorers[name].params["prompts"] == typed[[*typed][1]]


def test_the_page_tells_of_each_protocol() -> None:
    files = bundled("protocols").glob("*.yaml")
    by_pairs = {"gedit2.yaml"}
    assert {config for config, _ in COMMANDS} == {file.name for file in files} - by_pairs
