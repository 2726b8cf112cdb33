"""Exports: each format is read back as the benchmark's own scorer walks it, with its traps; what has no image is left
out and named; nothing foreign is touched."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmark_sets import MAKERS, make_magicbrush
from helpers import launch, make_config, run_dir
from PIL import Image
from tasks import edits, work

from slurm_bench.config import load_config
from slurm_bench.data import read_items
from slurm_bench.data.item import Item
from slurm_bench.errors import SampleError, UserError
from slurm_bench.export import FORMATS, write
from slurm_bench.export.folder import LOCK
from slurm_bench.export.gedit import LAYOUT as GEDIT
from slurm_bench.export.kris import LAYOUT as KRIS
from slurm_bench.export.layout import name_problem
from slurm_bench.export.write import Exported, export
from slurm_bench.run.create import create_run
from slurm_bench.run.opened import open_run
from slurm_bench.run.plan import Sample

COLOURS = {"RGB": (200, 30, 90), "RGBA": (200, 30, 90, 0)}


def encoded(kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, COLOURS[mode]).save(file, kind)
    return file.getvalue()


def make_run(tmp_path: Path, samples: Sequence[tuple[str, str]], fail: Sequence[str] = (), **more: Any) -> Path:
    """A run that has edited these (id, category), less those that fail."""
    root = tmp_path / more.pop("name", "run")
    config = load_config(make_config(tmp_path / "c.yaml", tmp_path / "data", params={"fail": list(fail)}), [])
    source, follows, facts = more.get("source", encoded()), more.get("follows", {}), more.get("facts", {})
    items = [
        Item(
            *(i, category, f"edit {i}", None if i in follows else source),
            follows=follows.get(i, ""),
            facts=facts.get(i, {}),
        )
        for i, category in samples
    ]
    create_run(root, config, lambda: items, {}, force=False)
    work(root)
    return root


def exported(root: Path, name: str, out: Path, model: str = "M") -> Exported:
    return export(open_run(root), name, out, model)


def listed(out: Path, model: str = "M") -> dict[str, Any]:
    return json.loads((out / "exported.json").read_text())["models"][model]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def of_run(root: Path, sample_id: str) -> bytes:
    return (root / edits(root)[sample_id]["image"]).read_bytes()


# Each `read_…` walks a folder as the benchmark's own script does.


def read_gedit(out: Path, model: str, rows: Sequence[tuple[str, str, str]]) -> dict[str, tuple[bytes, bytes]]:
    """Rows are (task type, key, language). One that lacks either file is skipped without a word."""
    found = {}
    for task, key, language in rows:
        edited = out / model / "fullset" / task / language / f"{key}.png"
        source = edited.with_name(f"{key}_SRCIMG.png")
        if edited.exists() and source.exists():
            found[f"{key}-{language}"] = edited.read_bytes(), source.read_bytes()
    return found


def read_imgedit(folder: Path, basic_edit: dict[str, Any]) -> dict[str, bytes]:
    return {key: (folder / f"{key}.png").read_bytes() for key in basic_edit if (folder / f"{key}.png").exists()}


def read_rise(output: Path, rows: Sequence[tuple[str, str]]) -> dict[str, bytes]:
    """Rows are (category, index). The first missing image ends the script."""
    found = {}
    for category, index in rows:
        for suffix in ("png", "jpg", "jpeg"):
            if (file := output / f"images/{category}" / f"{index}.{suffix}").exists():
                found[index] = file.read_bytes()
                break
        else:
            raise FileNotFoundError(index)
    return found


def read_kris(results: Path, model: str, annotations: dict[str, Sequence[str]]) -> dict[str, bytes]:
    return {
        f"{folder}/{number}": file.read_bytes()
        for folder, numbers in annotations.items()
        for number in numbers
        if (file := results / model / folder / f"{number}.jpg").is_file()
    }


def read_magicbrush(generated: Path, truth: dict[str, int]) -> dict[str, list[str]]:
    """`truth` has the number of turns of each session. Files beside the folders are passed over."""
    folders = {name for name in os.listdir(generated) if not (generated / name).is_file()}
    if folders != set(truth):
        raise ValueError("the folders' names are not the same")
    turns = {}
    for name in folders:
        images = [image for image in os.listdir(generated / name) if ".png" in image or ".jpg" in image]
        turns[name] = (
            [i for i in images if "_1" in i] if len(images) == 1 else [i for i in images if "_1" in i or "inde_" in i]
        )
        turns[name].sort(key=lambda image: int("".join(filter(str.isdigit, image))))
        if len(turns[name]) != truth[name]:
            raise ValueError(f"{name}: the numbers of turns are not the same")
    return turns


def read_wiseedit(root: Path, model: str, subset: str, numbers: Sequence[str]) -> dict[tuple[str, str], bytes]:
    return {
        (number, language): file.read_bytes()
        for number in numbers
        for language in ("cn", "en")
        if (file := root / model / subset / language / f"{number}.png").exists()
    }


def read_gallery(
    gallery: Path, keys: Sequence[str], models: Sequence[str], at_least: int = 201
) -> dict[str, dict[str, bytes]]:
    """Key → model → image. A model with too few files is left out; a key without a line is a KeyError."""
    models = [model for model in models if len(os.listdir(gallery / model)) >= at_least]
    rows = [json.loads(line) for line in (gallery / "metadata.jsonl").read_text().splitlines()]
    candidates = {row["key"]: row["candidates"] for row in rows}
    for each in candidates.values():
        assert len(each) == len({candidate["model"] for candidate in each})
    return {
        key: {c["model"]: (gallery / c["image"]).read_bytes() for c in candidates[key] if c["model"] in models}
        for key in keys
    }


def test_gedit_has_each_edit_and_its_source_beside_it(tmp_path: Path) -> None:
    samples = [("k1-en", "subject-add"), ("k1-cn", "subject-add"), ("k2-en", "ps_human"), ("k3-en", "ps_human")]
    root = make_run(tmp_path, samples, fail=["k2-en"])
    done = exported(root, "gedit", tmp_path / "out")
    rows = [(category, *i.rsplit("-", 1)) for i, category in samples]
    read = read_gedit(tmp_path / "out", "M", rows)
    assert read == {i: (of_run(root, i), encoded()) for i in ("k1-en", "k1-cn", "k3-en")}
    assert len(files(tmp_path / "out")) == 7
    assert list(done.left_out) == ["k2-en"]


def test_a_source_of_another_kind_becomes_a_png(tmp_path: Path) -> None:
    root = make_run(tmp_path, [("k-en", "ps_human")], source=encoded("JPEG"))
    exported(root, "gedit", tmp_path / "out")
    ((_, source),) = read_gedit(tmp_path / "out", "M", [("ps_human", "k", "en")]).values()
    with Image.open(io.BytesIO(source)) as image:
        assert (image.format, image.size) == ("PNG", (24, 16))


def test_imgedit_is_flat(tmp_path: Path) -> None:
    root = make_run(tmp_path, [("7", "add"), ("12", "remove")])
    exported(root, "imgedit", tmp_path / "out")
    assert read_imgedit(tmp_path / "out", {"7": {}, "12": {}, "13": {}}) == {i: of_run(root, i) for i in ("7", "12")}


def test_risebench_by_category_and_index(tmp_path: Path) -> None:
    rows = [("temporal_reasoning", "temporal_reasoning_1"), ("logical_reasoning", "logical_reasoning_2")]
    root = make_run(tmp_path, [(index, category) for category, index in rows])
    exported(root, "risebench", tmp_path / "out")
    assert read_rise(tmp_path / "out/outputs/M", rows) == {index: of_run(root, index) for _, index in rows}


def test_kris_is_jpeg_to_the_last_byte(tmp_path: Path) -> None:
    root = make_run(tmp_path, [("color_change/1", "color_change"), ("biology/1", "biology"), ("biology/2", "biology")])
    exported(root, "kris", tmp_path / "out")
    read = read_kris(tmp_path / "out/results", "M", {"color_change": ["1"], "biology": ["1", "2"]})
    assert len(read) == 3
    for sample_id, data in read.items():
        with Image.open(io.BytesIO(data)) as jpeg, Image.open(io.BytesIO(of_run(root, sample_id))) as png:
            assert (jpeg.format, jpeg.size) == ("JPEG", png.size)
            near = zip(jpeg.convert("RGB").getpixel((9, 9)), png.convert("RGB").getpixel((9, 9)), strict=True)
            assert all(abs(a - b) <= 4 for a, b in near)
    assert listed(tmp_path / "out")["jpeg_quality"] == 95


def test_what_is_transparent_is_white_in_jpeg(tmp_path: Path) -> None:
    root = make_run(tmp_path, [("biology/1", "biology")])
    record = edits(root)["biology/1"]
    (manifest,) = run_dir(root).records("edit").glob("*.jsonl")
    clear = encoded(mode="RGBA")
    (root / record["image"]).write_bytes(clear)
    manifest.write_text(json.dumps({**record, "sha256": hashlib.sha256(clear).hexdigest()}) + "\n")
    exported(root, "kris", tmp_path / "out")
    with Image.open(tmp_path / "out/results/M/biology/1.jpg") as image:
        assert min(image.getpixel((5, 5))) > 250


def test_magicbrush_has_a_folder_a_session(tmp_path: Path) -> None:
    root = make_run(tmp_path, [("139306-1", "all"), ("139306-2", "all"), ("52-1", "all")])
    exported(root, "magicbrush", tmp_path / "out")
    assert read_magicbrush(tmp_path / "out", {"139306": 2, "52": 1}) == {
        "139306": ["139306_1.png", "139306_inde_2.png"],
        "52": ["52_1.png"],
    }
    assert (tmp_path / "out/139306/139306_inde_2.png").read_bytes() == of_run(root, "139306-2")


def test_magicbrush_made_turn_by_turn_has_names_of_its_own(tmp_path: Path) -> None:
    root = make_run(tmp_path, [("139306-1", "all"), ("139306-2", "all")], follows={"139306-2": "139306-1"})
    exported(root, "magicbrush", tmp_path / "out")
    assert set(files(tmp_path / "out")) == {"exported.json", "139306/139306_1.png", "139306/139306_iter_2.png"}
    assert (tmp_path / "out/139306/139306_iter_2.png").read_bytes() == of_run(root, "139306-2")


def test_magicbrush_in_both_settings_has_all_that_the_official_scorer_reads(tmp_path: Path) -> None:
    """All turns from `_1` and `_inde_`, the final turn from `_iter_`: from one run, by one export."""
    data = make_magicbrush(tmp_path, turns=3)
    config = load_config(make_config(tmp_path / "c.yaml", data, "Tint"), ["data.reader=magicbrush"])
    config.data.options = {"turns": "both"}
    create_run(tmp_path / "run", config, lambda: read_items(config.data), {}, force=False)
    work(tmp_path / "run")
    samples = {sample.id: sample for sample in open_run(tmp_path / "run").samples}
    assert {i: (s.category, s.follows) for i, s in samples.items()} == {
        "242679-1": ("single-turn", ""),
        "242679-2": ("single-turn", ""),
        "242679-2-iter": ("multi-turn", "242679-1"),
        "242679-3": ("single-turn", ""),
        "242679-3-iter": ("multi-turn", "242679-2-iter"),
    }
    assert exported(tmp_path / "run", "magicbrush", tmp_path / "out").left_out == {}
    assert read_magicbrush(tmp_path / "out", {"242679": 3}) == {
        "242679": ["242679_1.png", "242679_inde_2.png", "242679_inde_3.png"]
    }
    for name, sample_id in (("iter_2", "242679-2-iter"), ("iter_3", "242679-3-iter"), ("inde_3", "242679-3")):
        assert (tmp_path / f"out/242679/242679_{name}.png").read_bytes() == of_run(tmp_path / "run", sample_id)


def test_of_a_case_of_several_turns_risebench_gets_the_last_one(tmp_path: Path) -> None:
    facts = {f"h-{n}": {"index": "h", "turn": n, "turns": 2} for n in (1, 2)}
    root = make_run(tmp_path, [(i, "hybrid_reasoning") for i in facts], follows={"h-2": "h-1"}, facts=facts)
    assert exported(root, "risebench", tmp_path / "out").left_out == {}
    image = "outputs/M/images/hybrid_reasoning/h.png"
    assert set(files(tmp_path / "out")) == {"exported.json", image}
    assert (tmp_path / "out" / image).read_bytes() == of_run(root, "h-2")
    assert listed(tmp_path / "out")["samples"] == {"h-2": [image]}
    done = launch("export", root, "--format", "risebench", "--out", tmp_path / "out", "--model", "M")
    assert done.returncode == 0, done.stderr
    assert "left out  1 turns before the last one" in done.stdout
    assert "exported  1 of 1 samples" in done.stdout


def test_a_turn_that_the_layout_has_no_image_of_is_not_left_out_for_want_of_one(tmp_path: Path) -> None:
    facts = {f"h-{n}": {"index": "h", "turn": n, "turns": 2} for n in (1, 2)}
    ids = [(i, "hybrid_reasoning") for i in facts]
    root = make_run(tmp_path, ids, fail=["h-1"], follows={"h-2": "h-1"}, facts=facts)
    found = exported(root, "risebench", tmp_path / "out")
    assert (found.samples, [*found.left_out], found.unwanted) == ({}, ["h-2"], 1)


def test_wiseedit_by_subset_and_language(tmp_path: Path) -> None:
    root = make_run(tmp_path, [(f"Awareness_1/4-{language}", "Awareness") for language in ("cn", "en")])
    exported(root, "wiseedit", tmp_path / "out")
    read = read_wiseedit(tmp_path / "out", "M", "Awareness_1", ["4", "5"])
    assert read == {("4", language): of_run(root, f"Awareness_1/4-{language}") for language in ("cn", "en")}


def test_a_gallery_gathers_models_by_key(tmp_path: Path) -> None:
    keys = [f"color_alteration_{n:06d}" for n in range(4)]
    samples = [(key, "color_alteration") for key in keys]
    one = make_run(tmp_path, samples, fail=keys[3:], name="one")
    two = make_run(tmp_path, samples[1:], fail=keys[2:], name="two")
    gallery = tmp_path / "gallery"
    exported(one, "gedit2", gallery, "A")
    exported(two, "gedit2", gallery, "B")
    exported(one, "gedit2", gallery, "A")  # again: no line and no candidate twice
    assert read_gallery(gallery, keys, ["A", "B"], at_least=1) == {
        keys[0]: {"A": of_run(one, keys[0])},
        keys[1]: {"A": of_run(one, keys[1]), "B": of_run(two, keys[1])},
        keys[2]: {"A": of_run(one, keys[2])},
        keys[3]: {},
    }
    assert read_gallery(gallery, keys, ["A", "B"]) == {key: {} for key in keys}  # so few files are left out
    line = json.loads((gallery / "metadata.jsonl").read_text().splitlines()[0])
    assert (line["task"], line["instruction"]) == ("color_alteration", f"edit {keys[0]}")


def test_what_has_no_image_is_left_out_and_named_on_stdout_and_in_the_list(tmp_path: Path) -> None:
    root = make_run(tmp_path, [(i, "add") for i in ("good", "fails", "gone", "other", "missing")], fail=["fails"])
    records = edits(root)
    (root / records["gone"]["image"]).unlink()
    (root / records["other"]["image"]).write_bytes(encoded(size=(7, 7)))
    (manifest,) = run_dir(root).records("edit").glob("*.jsonl")
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(line for line in lines if json.loads(line)["id"] != "missing"))
    done = launch("export", root, "--format", "imgedit", "--out", tmp_path / "out", "--model", "M")
    assert done.returncode == 3, done.stderr
    assert sorted(files(tmp_path / "out")) == ["exported.json", "good.png"]
    said = listed(tmp_path / "out")
    assert said["samples"] == {"good": ["good.png"]}
    assert said["whole"]
    assert list(said["left_out"]) == ["fails", "gone", "other", "missing"]
    for sample_id, words in zip(said["left_out"], ("ValueError", "is gone", "sha256", "not edited"), strict=True):
        assert words in said["left_out"][sample_id]
        assert any(sample_id in line and words in line for line in done.stdout.splitlines())
    assert "launch.py verify" in done.stdout


def test_a_whole_export_ends_with_0_and_the_run_is_untouched(tmp_path: Path) -> None:
    root = make_run(tmp_path, [("7", "add")])
    before = files(root)
    done = launch("export", root, "--format", "risebench", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "exported  1 of 1 samples" in done.stdout
    assert (tmp_path / "out/outputs/run/images/add/7.png").exists()
    (tmp_path / "out/outputs/run/images/add/7.png").write_bytes(b"a scorer's own doing")
    assert files(root) == before


def test_a_source_that_has_changed_is_not_shown_as_the_one_that_was_edited(tmp_path: Path) -> None:
    picture = tmp_path / "source.png"
    picture.write_bytes(encoded())
    root = make_run(tmp_path, [("k-en", "ps_human")], source=picture)
    picture.write_bytes(encoded(size=(9, 9)))
    done = exported(root, "gedit", tmp_path / "out")
    assert "another sha256" in done.left_out["k-en"]
    assert list(files(tmp_path / "out")) == ["exported.json"]


@pytest.mark.parametrize("name", FORMATS)
def test_no_id_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    hostile = ["../x", "/etc/x", "a/../../x", "..", ".", ".x", "x\0y", "x\ny", "\u202ex", "a\\b", "x" * 300]
    hostile += ["../x-en", "../../x-1", "../../x/1", "../x/1-en", "/x/1-en"]
    root = make_run(tmp_path, [(i, "../../c") for i in hostile] + [("exported.json", ".."), ("good", "/c")])
    before = files(tmp_path)
    export(open_run(root), name, tmp_path / "deep" / "out", "M")
    after = {path: data for path, data in files(tmp_path).items() if not path.startswith("deep/out/")}
    assert after == before
    assert set(listed(tmp_path / "deep/out")["left_out"]) >= set(hostile)
    assert launch("export", root, "--format", name, "--out", tmp_path / "o", "--model", "../M").returncode == 1


@pytest.mark.parametrize("name", ["", " ", ".", "..", "a/b", "a\\b", ".a", "a\0", "a\n", "é" * 128, "exported.json"])
def test_names_that_are_no_file_names(name: str) -> None:
    assert name_problem(name)


@pytest.mark.parametrize("name", ["a", "a b", "猫", "a.b", "x_SRCIMG", "-a", "é" * 127])
def test_names_that_are(name: str) -> None:
    assert not name_problem(name)


def test_of_two_samples_with_one_place_the_first_has_it_even_where_it_failed(tmp_path: Path) -> None:
    root = make_run(tmp_path, [("k-en", "t"), ("k_SRCIMG-en", "t"), ("f/1-en", "t")], fail=["k-en"])
    done = exported(root, "gedit", tmp_path / "out")
    assert "k-en" in done.left_out["k_SRCIMG-en"]
    assert list(files(tmp_path / "out")) == ["exported.json"]


def refused(root: Path, out: Path, name: str = "imgedit", model: str = "M") -> str:
    before = files(out.parent)
    with pytest.raises(UserError) as caught:
        exported(root, name, out, model)
    assert files(out.parent) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    root = make_run(tmp_path, [("7", "add")])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/7.png").write_bytes(b"mine")
    assert "no export made" in refused(root, tmp_path / "mine")
    (tmp_path / "file").write_bytes(b"mine")
    refused(root, tmp_path / "file")
    refused(root, tmp_path / "file/out")
    (tmp_path / "mine/exported.json").write_text("[1")
    assert "damaged" in refused(root, tmp_path / "mine")
    hostile = {"format": "imgedit", "models": {"M": {"samples": {"7": ["../run/plan.jsonl"]}}}}
    (tmp_path / "mine/exported.json").write_text(json.dumps(hostile))
    assert "not the list of an export" in refused(root, tmp_path / "mine")


def test_an_earlier_export_is_replaced_and_other_files_in_it_stay(tmp_path: Path) -> None:
    root = make_run(tmp_path, [("7", "add"), ("8", "add")])
    out = tmp_path / "out"
    exported(root, "imgedit", out)
    (out / "result.json").write_text("{}")
    (root / edits(root)["8"]["image"]).unlink()
    exported(root, "imgedit", out)
    assert sorted(files(out)) == ["7.png", "exported.json", "result.json"]
    more = make_run(tmp_path, [("result.json", "add"), ("9", "add")], name="more")
    assert "no folder a model" in refused(more, out, model="N")
    assert "the format imgedit" in refused(more, out, name="gedit")
    (out / "9.png").write_bytes(b"mine")
    assert "9.png" in refused(more, out)


def test_an_export_that_was_cut_short_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_run(tmp_path, [("b-1", "all"), ("b-2", "all")])

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(write, "_write_one", killed)
        with pytest.raises(KeyboardInterrupt):
            exported(root, "magicbrush", tmp_path / "out")
    assert not listed(tmp_path / "out")["whole"]
    exported(root, "magicbrush", tmp_path / "out")
    assert listed(tmp_path / "out")["whole"]
    assert len(files(tmp_path / "out")) == 3


def test_of_two_exports_into_one_folder_at_once_the_second_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [("a-1", "add"), ("a-2", "add")]
    one, two = (make_run(tmp_path, samples, name=name) for name in ("one", "two"))
    gallery, whys = tmp_path / "gallery", []
    write_all = write._write_images

    def meanwhile(*of: Any) -> dict[str, str]:
        whys.append(refused(two, gallery, name="gedit2", model="B"))
        return write_all(*of)

    with monkeypatch.context() as patch:
        patch.setattr(write, "_write_images", meanwhile)
        exported(one, "gedit2", gallery, "A")
    assert "another export writes there" in whys[0]
    exported(two, "gedit2", gallery, "B")
    assert sorted(json.loads((gallery / "exported.json").read_text())["models"]) == ["A", "B"]
    assert not (gallery / LOCK).exists()


def test_what_was_exported_after_the_first_look_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [("a-1", "add"), ("a-2", "add")]
    one, two = (make_run(tmp_path, samples, name=name) for name in ("one", "two"))
    gallery, alone = tmp_path / "gallery", write.alone_in

    def later(root: Path) -> Any:
        monkeypatch.setattr(write, "alone_in", alone)
        exported(two, "gedit2", gallery, "B")
        return alone(root)

    monkeypatch.setattr(write, "alone_in", later)
    exported(one, "gedit2", gallery, "A")
    assert sorted(json.loads((gallery / "exported.json").read_text())["models"]) == ["A", "B"]
    assert len(json.loads((gallery / "metadata.jsonl").read_text().splitlines()[0])["candidates"]) == 2


def test_a_format_that_there_is_not_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    done = launch("export", tmp_path, "--format", "geditbench2", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "did you mean gedit2?" in done.stderr


def test_a_gallerys_list_that_is_damaged_is_refused(tmp_path: Path) -> None:
    root = make_run(tmp_path, [("a_000001", "a")])
    exported(root, "gedit2", tmp_path / "out")
    (tmp_path / "out/metadata.jsonl").write_text('{"key": "a_000001"}\n')
    assert "metadata.jsonl: damaged" in refused(root, tmp_path / "out", "gedit2")


def test_a_full_disk_is_one_line_and_the_export_is_known_for_cut_short(tmp_path: Path, small_disk: Path) -> None:
    noise = io.BytesIO()
    Image.frombytes("RGB", (500, 400), random.Random(0).randbytes(500 * 400 * 3)).save(noise, "PNG")
    root = make_run(tmp_path, [("7", "add"), ("8", "add")], source=noise.getvalue())
    with pytest.raises(UserError, match="No space left"):
        exported(root, "imgedit", small_disk / "out")
    assert not listed(small_disk / "out")["whole"]


def test_a_link_in_the_folder_leads_nothing_elsewhere(tmp_path: Path) -> None:
    root = make_run(tmp_path, [("b-1", "all"), ("c-1", "all")])
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    exported(root, "magicbrush", out)
    elsewhere.mkdir()
    (out / "b" / "b_1.png").rename(elsewhere / "b_1.png")
    (out / "b").rmdir()
    (out / "b").symlink_to(elsewhere)
    refused(root, out, "magicbrush")
    assert (elsewhere / "b_1.png").exists()


def test_a_link_in_the_folder_takes_nothing_away_elsewhere(tmp_path: Path) -> None:
    root = make_run(tmp_path, [("b-1", "all"), ("c-1", "all")])
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    exported(root, "magicbrush", out)
    (out / "b").rename(elsewhere)
    (out / "b").symlink_to(elsewhere)
    exported(make_run(tmp_path, [("c-1", "all")], name="less"), "magicbrush", out)
    assert (elsewhere / "b_1.png").exists()


def test_an_export_that_has_less_takes_away_its_own_models_images_alone(tmp_path: Path) -> None:
    keys = [f"color_alteration_{n:06d}" for n in range(2)]
    samples = [(key, "color_alteration") for key in keys]
    both, less = make_run(tmp_path, samples), make_run(tmp_path, samples[:1], name="less")
    out = tmp_path / "gallery"
    for root, model in ((both, "A"), (both, "B"), (less, "A")):
        exported(root, "gedit2", out, model)
    images = [f"{model}/{key}.png" for model, key in (("A", keys[0]), ("B", keys[0]), ("B", keys[1]))]
    assert sorted(files(out)) == [*images, "exported.json", "metadata.jsonl"]


READERS = {"gedit": "gedit", "imgedit": "imgedit", "risebench": "risebench", "risebench2": "risebench", "kris": "kris"}
READERS |= {"magicbrush": "magicbrush", "wiseedit": "wiseedit", "gedit2": "gedit2"}


@pytest.mark.parametrize(("reader", "name"), READERS.items())
def test_all_that_a_benchmarks_reader_gives_has_a_place(tmp_path: Path, reader: str, name: str) -> None:
    file = make_config(tmp_path / "c.yaml", MAKERS[reader](tmp_path))
    config = load_config(file, [f"data.reader={reader}"])
    create_run(tmp_path / "run", config, lambda: read_items(config.data), {}, force=False)
    work(tmp_path / "run")
    made = [i for i, record in edits(tmp_path / "run").items() if record["status"] == "ok"]
    done = exported(tmp_path / "run", name, tmp_path / "out")
    assert list(done.samples) == made
    assert made
    assert {path for paths in done.samples.values() for path in paths} < files(tmp_path / "out").keys()


def test_what_the_reader_noted_counts_before_the_id() -> None:
    def sample(sample_id: str, category: str, **facts: Any) -> Sample:
        return Sample(0, sample_id, category, "do", (), 0, facts=facts)

    noted = sample("17", "subject-add", key="k", language="cn")
    assert [f.path for f in GEDIT.files(noted, "M")] == [
        "M/fullset/subject-add/cn/k.png",
        "M/fullset/subject-add/cn/k_SRCIMG.png",
    ]
    with pytest.raises(SampleError, match="zh"):
        GEDIT.files(sample("17", "a", key="k", language="zh"), "M")
    assert KRIS.files(sample("17", "biology", key=3), "M")[0].path == "results/M/biology/3.jpg"
