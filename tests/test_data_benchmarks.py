"""The readers of published benchmarks, each on a small set in exactly its format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmark_sets import (
    MAKERS,
    gedit_rows,
    make_gedit,
    make_gedit2,
    make_imgedit,
    make_kris,
    make_magicbrush,
    make_risebench,
    make_risebench2,
    make_unireditbench,
    make_wiseedit,
    picture,
    write_json,
    write_parquet,
)
from helpers import launch, make_config, rows, summary

from slurm_bench.cli import main
from slurm_bench.config import DataConfig
from slurm_bench.data import read_items
from slurm_bench.data.images import open_image
from slurm_bench.data.item import Item
from slurm_bench.errors import UserError
from slurm_bench.run.layout import RunDir
from slurm_bench.run.opened import open_run
from slurm_bench.run.plan import Plan, read_plan


def read(reader: str, path: Path, **data: Any) -> dict[str, Item]:
    return {item.id: item for item in read_items(DataConfig(reader=reader, path=str(path), **data))}


def relative(item: Item, root: Path) -> list[str]:
    sources = item.source if isinstance(item.source, tuple) else (item.source,)
    return [Path(str(source)).relative_to(root).as_posix() for source in sources]


@pytest.mark.parametrize("reader", MAKERS)
def test_a_benchmarks_folder_is_all_that_a_plan_needs(reader: str, tmp_path: Path) -> None:
    path = MAKERS[reader](tmp_path)
    run = RunDir(tmp_path / "run")
    run.root.mkdir()
    plan = Plan(run)
    items = read(reader, path)
    plan.add(items.values(), 0)
    planned = {sample.id: sample for sample in plan.freeze()}
    assert planned == {sample.id: sample for sample in read_plan(run)}
    assert {id: dict(sample.facts) for id, sample in planned.items()} == {id: item.facts for id, item in items.items()}
    assert list(read(reader, path)) == list(items)  # ids are the same again


# GEdit-Bench


def test_gedit_has_both_languages_with_the_key_and_the_language_as_id(tmp_path: Path) -> None:
    items = read("gedit", make_gedit(tmp_path))
    assert {id: (item.category, item.instruction) for id, item in items.items()} == {
        "a1-en": ("subject-add", "make it night"),
        "a1-cn": ("subject-add", "变成夜晚"),
        "b2-en": ("background_change", "make it night"),
    }
    assert items["a1-cn"].facts == {"key": "a1", "language": "cn", "intersection": False}
    assert [item.facts["intersection"] for item in items.values()] == [True, False, False]


def test_gedit_takes_the_raw_picture_unless_told_or_there_is_none(tmp_path: Path) -> None:
    path = make_gedit(tmp_path)
    assert [open_image(item.source).width for item in read("gedit", path).values()] == [24, 24, 8]
    small = read("gedit", path, fields={"image": "input_image"})
    assert [open_image(item.source).width for item in small.values()] == [8, 8, 8]


@pytest.mark.parametrize(("language", "ids"), [("en", ["a1-en", "b2-en"]), ("cn", ["a1-cn"])])
def test_gedit_in_one_language_has_the_same_ids(language: str, ids: list[str], tmp_path: Path) -> None:
    assert list(read("gedit", make_gedit(tmp_path), options={"language": language})) == ids


def test_gedit_is_read_from_parquet_too(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    file = write_parquet(folder / "train-00000-of-00001.parquet", gedit_rows())
    assert list(read("gedit", tmp_path)) == list(read("gedit", file)) == ["a1-en", "a1-cn", "b2-en"]


def test_a_language_that_is_none_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'data.options.language': no language 'zh'; known: cn, en"):
        read("gedit", make_gedit(tmp_path), options={"language": "zh"})
    file = write_parquet(tmp_path / "en.parquet", gedit_rows()[:1])
    with pytest.raises(UserError, match=r"has no sample in cn; it has: en"):
        read("gedit", file, options={"language": "cn"})


def test_gedit2_has_the_task_from_the_key(tmp_path: Path) -> None:
    items = read("gedit2", make_gedit2(tmp_path))
    assert {id: item.category for id, item in items.items()} == {
        "subject_add_000012": "subject_add",
        "style-transfer_000013": "style-transfer",
    }
    assert all(item.source == picture(kind="JPEG") and not item.problem for item in items.values())


# ImgEdit


def test_imgedit_finds_the_image_folder_beside_its_list(tmp_path: Path) -> None:
    path = make_imgedit(tmp_path)
    items = read("imgedit", path)
    assert [(item.id, item.category, item.problem) for item in items.values()] == [
        ("1082", "adjust", ""),
        ("17", "remove", ""),
        ("673", "style", ""),
    ]
    assert relative(items["673"], path) == ["images/daily object/000278574.jpg"]
    assert items["1082"].source == items["17"].source
    assert items["673"].facts == {"folder": "daily object"}
    (path / "images").rename(tmp_path / "elsewhere")
    moved = read("imgedit", path / "basic_edit.json", image_root=str(tmp_path / "elsewhere"))
    assert [item.problem for item in moved.values()] == ["", "", ""]


# RISEBench


def test_risebench_knows_each_way_to_say_what_is_right(tmp_path: Path) -> None:
    path = make_risebench(tmp_path)
    items = read("risebench", path)
    assert [item.problem for item in items.values()] == [""] * 5
    assert [item.rationale for item in items.values()] == ["a rotten banana", "a bitten apple", "a cup", "C", ""]
    reference = items["logical_reasoning_2"].reference
    assert Path(str(reference)).relative_to(path).as_posix() == "data/logical_reasoning_images/2_ref.png"
    assert [item.reference for item in items.values()][:4] == [None] * 4


def test_risebench_flags_that_are_absent_or_nan_are_false(tmp_path: Path) -> None:
    items = read("risebench", make_risebench(tmp_path))
    names = ("reasoning_img", "reasoning_wo_ins", "consistency_free")
    assert {id: [name for name in names if item.facts[name]] for id, item in items.items()} == {
        "temporal_reasoning_1": [],
        "causal_reasoning_1": ["reasoning_img"],
        "spatial_reasoning_1": ["consistency_free"],
        "logical_reasoning_1": [],
        "logical_reasoning_2": ["reasoning_wo_ins"],
    }
    assert items["temporal_reasoning_1"].facts["subtask"] == "Life Progression"
    assert "subtask" not in items["causal_reasoning_1"].facts


@pytest.mark.parametrize(
    ("value", "means"),
    [(True, True), ("true", True), (1, True), ("False", False), (0, False), (0.0, False), ("", False), (None, False)],
)
def test_a_flag_is_true_however_it_is_written(value: Any, means: bool, tmp_path: Path) -> None:
    path = make_risebench(tmp_path)
    entries = json.loads((path / "datav2_total_w_subtask.json").read_text())
    write_json(path / "data_total.json", [{**entries[0], "consistency_free": value}])
    (item,) = read("risebench", path / "data_total.json").values()
    assert (item.problem, item.facts["consistency_free"]) == ("", means)


def test_a_flag_that_is_none_spoils_its_own_sample_alone(tmp_path: Path) -> None:
    path = make_risebench(tmp_path)
    file = path / "datav2_total_w_subtask.json"
    entries = json.loads(file.read_text())
    write_json(file, [{**entries[0], "reasoning_img": "maybe"}, *entries[1:]])
    problems = [item.problem for item in read("risebench", path).values()]
    assert problems == ["reasoning_img: 'maybe' is neither true nor false", "", "", "", ""]


# RISEBench++


def test_risebench2_has_lists_of_images_and_flags_as_text(tmp_path: Path) -> None:
    path = make_risebench2(tmp_path)
    items = read("risebench2", path)
    one, two = items["temporal_reasoning_1"], items["temporal_reasoning_8"]
    assert (one.instruction, one.rationale, one.problem) == ("after ten minutes", "rotten", "")
    assert relative(one, path) == ["t/1.png"]
    assert relative(two, path) == ["temporal_reasoning_images/8_1.png", "temporal_reasoning_images/8_2.png"]
    assert (one.facts["multi_img"], two.facts["multi_img"]) == (False, True)
    assert (one.facts["task_type"], one.facts["subcategory"]) == ("life", "common_sense")
    assert two.facts["consistency_img"] == str(path / "t/8_cons.png")
    assert two.reference == path / "t/8_ref.png"


def test_risebench2_in_chinese_has_ids_of_its_own(tmp_path: Path) -> None:
    path = make_risebench2(tmp_path)
    chinese = read("risebench2", path, options={"language": "cn"})
    assert list(chinese) == ["temporal_reasoning_1-cn", "temporal_reasoning_8-cn", "hybrid_reasoning_1-cn"]
    first = chinese["temporal_reasoning_1-cn"]
    assert (first.instruction, first.rationale, first.facts["language"]) == ("十分钟后", "腐烂", "cn")
    assert first.facts["index"] == "temporal_reasoning_1"
    assert len(read("risebench2", path, options={"language": ["en", "cn"]})) == 6


def test_chinese_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = make_risebench2(tmp_path)
    entries = json.loads((path / "overall_data.json").read_text())
    first = {name: value for name, value in entries[0].items() if name != "instruction_chinese"}
    write_json(path / "overall_data.json", [first])
    assert list(read("risebench2", path)) == ["temporal_reasoning_1"]
    with pytest.raises(UserError, match=r"no field 'instruction_chinese' for 'instruction_cn'"):
        read("risebench2", path, options={"language": "cn"})


def test_a_hybrid_case_is_run_turn_by_turn_where_that_is_asked_for(tmp_path: Path) -> None:
    path = make_risebench2(tmp_path)
    item = read("risebench2", path)["hybrid_reasoning_1"]
    assert "data.options.turns=multi" in item.problem
    assert (item.category, item.on_storage, item.facts["turns"]) == ("hybrid_reasoning", False, 2)
    assert list(read("risebench2", path, categories=["temporal_reasoning"])) == [
        "temporal_reasoning_1",
        "temporal_reasoning_8",
    ]
    turns = list(read("risebench2", path, options={"turns": "multi", "language": "cn"}).values())[2:]
    first, last = turns
    assert [turn.id for turn in turns] == ["hybrid_reasoning_1-cn-1", "hybrid_reasoning_1-cn-2"]
    assert [(turn.instruction, turn.category, turn.problem) for turn in turns] == [
        ("减半", "hybrid_reasoning", ""),
        ("变老", "hybrid_reasoning", ""),
    ]
    assert (first.source, first.follows, last.source, last.follows) == (path / "t/1.png", "", None, first.id)
    assert (first.rationale, last.rationale) == ("", "both")
    assert [(turn.facts["turn"], turn.facts["turns"], turn.facts["task_type"]) for turn in turns] == [
        (1, 2, "c"),
        (2, 2, "d"),
    ]
    with pytest.raises(UserError, match=r"'data.options.turns': .*'multi'"):
        read("risebench2", path, options={"turns": "mutli"})


# KRIS-Bench


def test_kris_reads_every_folder(tmp_path: Path) -> None:
    path = make_kris(tmp_path)
    items = read("kris", path)
    assert list(items) == [
        "chemistry/1",
        "chemistry/2",
        "multi-element_composition/33",
        "temporal_prediction/1",
        "temporal_prediction/3",
    ]
    assert [item.category for item in items.values()] == [id.partition("/")[0] for id in items]
    frames = items["temporal_prediction/1"]
    assert relative(frames, path) == ["temporal_prediction/1-2.jpg", "temporal_prediction/1-3.jpg"]
    assert frames.reference == path / "temporal_prediction/1-1.jpg"
    assert relative(items["multi-element_composition/33"], path)[0].endswith("33-1.JPG")
    assert [item.reference is None for item in items.values()] == [True, True, True, False, False]
    assert list(read("kris", path.parent)) == list(items)


def test_kris_without_an_explanation_says_so_and_is_no_problem(tmp_path: Path) -> None:
    items = read("kris", make_kris(tmp_path))
    assert [item.facts["explained"] for item in items.values()] == [True, True, False, False, False]
    assert items["chemistry/1"].rationale == "it turns red"
    assert [id for id, item in items.items() if item.problem] == ["chemistry/2"]
    assert "absent.jpg: no such file" in items["chemistry/2"].problem
    assert items["chemistry/2"].on_storage  # looked for again when it is read


# MagicBrush, UniREditBench, WiseEdit


def test_magicbrush_takes_each_turn_from_its_own_source(tmp_path: Path) -> None:
    first, second = read("magicbrush", make_magicbrush(tmp_path)).values()
    assert (first.id, second.id) == ("242679-1", "242679-2")
    assert first.reference == second.source == picture("green")
    assert first.mask == picture("white")
    assert second.facts == {"img_id": "242679", "turn": 2}


def test_a_later_turn_of_magicbrush_follows_the_one_before_where_that_is_asked_for(tmp_path: Path) -> None:
    first, second = read("magicbrush", make_magicbrush(tmp_path), options={"turns": "multi"}).values()
    assert (first.source, first.follows) == (picture("red"), "")
    assert (second.source, second.follows, second.problem) == (None, "242679-1", "")
    assert second.reference == picture("blue")


def test_a_turn_of_magicbrush_that_stands_behind_a_later_one_follows_none(tmp_path: Path) -> None:
    path = make_magicbrush(tmp_path, turns=3)
    file = path / "data" / "dev-00000-of-00001.parquet"
    table = pytest.importorskip("pyarrow.parquet").read_table(file)
    pytest.importorskip("pyarrow.parquet").write_table(table.take([1, 0, 2]), file)
    found = read("magicbrush", path, options={"turns": "both"})
    assert {i: item.problem for i, item in found.items() if item.problem} == {
        "242679-1-iter": "turn 1 stands behind turn 2"
    }


def test_magicbrush_of_two_splits_wants_one_named(tmp_path: Path) -> None:
    path = make_magicbrush(tmp_path)
    file = path / "data" / "dev-00000-of-00001.parquet"
    (path / "data" / "train-00000-of-00001.parquet").write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"splits dev, train; say data.options.split=dev"):
        read("magicbrush", path)
    assert len(read("magicbrush", path, options={"split": "dev"})) == 2


def test_unireditbench_puts_rules_before_the_instruction(tmp_path: Path) -> None:
    path = make_unireditbench(tmp_path)
    items = read("unireditbench", path)
    assert {id: item.instruction for id, item in items.items()} == {
        "maze/1": "solve it",
        "maze/2": "solve it",
        "sokoban/1": "Push boxes. solve it",
    }
    assert [item.facts["rules"] for item in items.values()] == [False, False, True]
    assert [item.rationale for item in items.values()] == ["solved", "solved", ""]
    assert items["maze/1"].reference == path / "original_image/maze/1_reference.png"


def test_wiseedit_reads_every_table_of_its_folders_name(tmp_path: Path) -> None:
    path = make_wiseedit(tmp_path)
    items = read("wiseedit", path)
    assert {id: (item.category, item.instruction, item.problem) for id, item in items.items()} == {
        "Awareness_1/1-en": ("Awareness", "light it", ""),
        "Awareness_1/2-en": ("Awareness", "melt it, slowly", ""),
        "WiseEdit_Complex_2/1-en": ("WiseEdit_Complex", "join them", ""),
    }
    joined = items["WiseEdit_Complex_2/1-en"]
    folder = path / "WiseEdit-Complex" / "WiseEdit_Complex_2"
    assert joined.source == (folder / "imgs/1_1.png", folder / "imgs/1_2.png")
    assert joined.reference == folder / "img_ref/a.png"
    assert joined.facts["references"] == [str(folder / "img_ref" / name) for name in ("a.png", "b.png")]
    assert (joined.facts["inputs"], joined.facts["difficulty"], joined.facts["idx"]) == (2, "hard", "1")
    assert (items["Awareness_1/1-en"].rationale, items["Awareness_1/2-en"].reference) == ("it glows", None)


def test_the_first_image_of_wiseedit_may_stand_under_another_name(tmp_path: Path) -> None:
    path = make_wiseedit(tmp_path)
    for table in path.rglob("*.csv"):
        table.write_text(table.read_text(encoding="utf-8").replace("input_1", "picture"), encoding="utf-8")
    joined = read("wiseedit", path, fields={"image": "picture"})["WiseEdit_Complex_2/1-en"]
    folder = path / "WiseEdit-Complex" / "WiseEdit_Complex_2" / "imgs"
    assert joined.source == (folder / "1_1.png", folder / "1_2.png")


def test_wiseedit_in_chinese_and_in_both(tmp_path: Path) -> None:
    path = make_wiseedit(tmp_path)
    chinese = read("wiseedit", path, options={"language": "cn"})
    assert chinese["Awareness_1/1-cn"].instruction == "点亮"
    assert len(read("wiseedit", path, options={"language": ["cn", "en"]})) == 6


# What a stranger's file may hold

CHANGED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "imgedit": ("basic_edit.json", lambda entries: {**entries, "17": {**entries["17"], "id": "../../secret.png"}}),
    "risebench": ("datav2_total_w_subtask.json", lambda rows: [*rows[1:], {**rows[0], "image": "/etc/passwd"}]),
    "risebench2": ("overall_data.json", lambda rows: [rows[1], {**rows[0], "image": ["t/1.png", "a/../../x"]}]),
    "kris": ("chemistry/annotation.json", lambda rows: {**rows, "1": {**rows["1"], "ori_img": "..\\secret.png"}}),
    "unireditbench": ("data.json", lambda rows: [*rows[1:], {**rows[0], "reference_image_path": "../x.png"}]),
}


@pytest.mark.parametrize("reader", CHANGED)
def test_an_image_name_that_leads_out_of_the_folder_is_not_followed(reader: str, tmp_path: Path) -> None:
    path = MAKERS[reader](tmp_path)
    name, change = CHANGED[reader]
    write_json(path / name, change(json.loads((path / name).read_text())))
    items = read(reader, path).values()
    problems = [item for item in items if "leads out of" in item.problem]
    assert len(problems) == 1
    assert not problems[0].on_storage


@pytest.mark.parametrize("image", [5, {"a": 1}, ["1.png", None], [], "n" * 5000, "a\0b", "\ud800.png", None])
def test_an_image_name_that_is_none_spoils_its_own_sample_alone(image: Any, tmp_path: Path) -> None:
    path = make_risebench(tmp_path)
    file = path / "datav2_total_w_subtask.json"
    entries = json.loads(file.read_text())
    file.write_text(json.dumps([{**entries[0], "image": image}, *entries[1:]]))
    assert [bool(item.problem) for item in read("risebench", path).values()] == [True, False, False, False, False]


def test_links_of_a_download_cache_are_followed(tmp_path: Path) -> None:
    path = make_unireditbench(tmp_path)
    for image in path.rglob("*.png"):
        blob = tmp_path / "blobs" / image.name
        blob.parent.mkdir(exist_ok=True)
        image.rename(blob)
        image.symlink_to(blob)
    assert [item.problem for item in read("unireditbench", path).values()] == ["", "", ""]


@pytest.mark.parametrize("reader", MAKERS)
def test_a_folder_without_the_benchmark_is_named_with_what_is_looked_for(reader: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'data.path': .*(there is no|not a dataset|no folder)") as caught:
        read(reader, tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("reader", ["gedit", "gedit2", "magicbrush"])
def test_a_dataset_of_another_benchmark_is_told_by_its_fields(reader: str, tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "other.parquet", [{"prompt": "edit", "picture": b"x"}])
    with pytest.raises(UserError, match=r"no field '\w+' for 'id'.*fields there: prompt, picture"):
        read(reader, file)


def test_a_list_of_another_benchmark_is_told_by_its_fields(tmp_path: Path) -> None:
    file = write_json(tmp_path / "data.json", [{"prompt": "edit", "index": 1}])
    with pytest.raises(UserError, match=r"no field 'idx' for 'id'.*data.fields.id=.*fields there: prompt, index"):
        read("unireditbench", file)
    file = write_json(tmp_path / "basic_edit.json", {"1": {"text": "edit"}, "2": {}})
    with pytest.raises(UserError, match=r"no field 'prompt' for 'instruction'.*fields there: text"):
        read("imgedit", file)
    with pytest.raises(UserError, match=r"basic_edit.json: '1' is a str; each entry must be an object"):
        read("imgedit", write_json(file, {"1": "edit"}))
    file.write_text("\n")
    with pytest.raises(UserError, match=r"basic_edit.json: .* the file is empty"):
        read("imgedit", file)


def test_from_the_folder_to_a_report_in_one_command(tmp_path: Path) -> None:
    config = make_config(tmp_path / "config.yaml", tmp_path, gpus=1)
    words = ["data.reader=gedit", f"data.path={make_gedit(tmp_path)}", "data.options.language=en"]
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "debug", *words)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "run" / "report" / "scores.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in lines[1:]] == ["a1-en", "b2-en"]


@pytest.mark.parametrize("reader", MAKERS)
def test_each_benchmark_s_folder_becomes_a_report_in_one_command(reader: str, tmp_path: Path) -> None:
    """By the Pillow editor, which a rewriter makes understand, and a stand-in judge: each sample is scored, or says why
    it isn't."""
    path, root = MAKERS[reader](tmp_path), tmp_path / "run"
    config = make_config(tmp_path / "config.yaml", path, gpus=1)
    plugins = ["editor=slurm_bench.editors.pillow.PillowEditor", "rewriter=tests.plugins.AtNight"]
    words = ["--executor", "debug", f"data.reader={reader}", *plugins]
    code = main(["--config", str(config), "--run-dir", str(root), *words])
    table, counts = rows(root), summary(root)["counts"]
    assert [row["id"] for row in table] == [sample.id for sample in open_run(root).samples]
    assert all(bool(row["brightness"]) != bool(row["error"]) for row in table)
    assert code == (3 if counts["failed"] else 0)
    assert (counts["missing"], counts["scored"] > 0) == (0, True)
    assert (root / "report" / "report.html").exists()
