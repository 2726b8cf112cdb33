"""Every bundled reader: it reads what it is for, says what it takes, and complains in one line."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmark_sets import MAKERS
from helpers import REPO
from PIL import Image

from slurm_bench.config import DataConfig
from slurm_bench.data import read_items
from slurm_bench.data.item import Item
from slurm_bench.data.readers import BUNDLED, find_reader
from slurm_bench.errors import UserError

ROW = {"id": "a", "category": "Style", "instruction": "edit", "image": "a.png"}


def read(reader: str, path: Path | None, **options: Any) -> list[Item]:
    return list(read_items(DataConfig(reader=reader, path=str(path) if path else None, **options)))


def arrow(columns: dict[str, list[Any]]) -> Any:
    pyarrow = pytest.importorskip("pyarrow")
    return pyarrow.table(columns)


def columns(folder: Path, *ids: str) -> dict[str, list[Any]]:
    """Images as HuggingFace's `{bytes, path}`."""
    image = {"bytes": (folder / "a.png").read_bytes(), "path": "a.png"}
    count = len(ids)
    return {"id": list(ids), "instruction": ["edit"] * count, "category": ["Style"] * count, "image": [image] * count}


def write_stream(table: Any, file: Path) -> None:
    import pyarrow

    file.parent.mkdir(parents=True, exist_ok=True)
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def save_to_disk(folder: Path, table: Any) -> Path:
    """As `datasets.Dataset.save_to_disk` lays it out, in two shards."""
    names = [f"data-{n:05d}-of-00002.arrow" for n in (0, 1)]
    for n, name in enumerate(names):
        write_stream(table.slice(n, 1 if n == 0 else None), folder / name)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    return folder


def write_parquet(folder: Path) -> Path:
    pytest.importorskip("pyarrow.parquet").write_table(arrow(columns(folder, "a")), folder / "bench.parquet")
    return folder / "bench.parquet"


def write_json(folder: Path, rows: Any, name: str) -> Path:
    (folder / name).write_text(json.dumps(rows))
    return folder / name


def write_folder(folder: Path) -> Path:
    (folder / "bench" / "Style").mkdir(parents=True)
    (folder / "bench" / "Style" / "a.PNG").write_bytes((folder / "a.png").read_bytes())
    (folder / "bench" / "Style" / "a.txt").write_text("edit\n")
    return folder / "bench"


def write_csv(folder: Path) -> Path:
    (folder / "bench.csv").write_text(f"{','.join(ROW)}\n{','.join(ROW.values())}\n")
    return folder / "bench.csv"


FIVE = {"subset": "因果", "edit_instruction": "edit", "original_image_path": "a.png"}
WRITERS: dict[str, Callable[[Path], Path | None]] = {
    "five_category": lambda folder: write_json(folder, [FIVE], "bench.json"),
    "json": lambda folder: write_json(folder, [ROW], "bench.json"),
    "jsonl": lambda folder: write_json(folder, ROW, "bench.jsonl"),
    "csv": write_csv,
    "parquet": write_parquet,
    "huggingface": lambda folder: save_to_disk(folder / "bench", arrow(columns(folder, "a", "b"))),
    "image_folder": write_folder,
    **MAKERS,
    "demo": lambda folder: None,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (16, 16), "teal").save(tmp_path / "a.png")
    return tmp_path


@pytest.mark.parametrize("reader", BUNDLED)
def test_each_reads_what_it_is_for(reader: str, folder: Path) -> None:
    item = read(reader, WRITERS[reader](folder))[0]
    assert (item.problem, bool(item.instruction)) == ("", True)
    if reader not in ("demo", "five_category", *MAKERS):
        assert (item.id.removeprefix("Style/"), item.category, item.instruction) == ("a", "Style", "edit")


def test_the_pages_name_every_reader() -> None:
    page, benchmarks = ((REPO / "docs" / name).read_text() for name in ("data.md", "benchmarks.md"))
    assert [name for name in BUNDLED if f"`{name}`" not in page] == []
    assert [name for name in MAKERS if f"data.reader={name}" not in benchmarks or f"`{name}`" not in benchmarks] == []


@pytest.mark.parametrize("reader", BUNDLED)
def test_each_takes_what_it_says_and_refuses_the_rest(reader: str, folder: Path) -> None:
    some = {
        "path": str(folder),
        "fields": {"id": "id"},
        "image_root": str(folder),
        "encoding": "utf-8",
        "delimiter": ",",
    }
    for key, value in some.items():
        if key in BUNDLED[reader].takes:
            find_reader(DataConfig(reader=reader, **{key: value}))
        else:
            with pytest.raises(UserError, match=f"'data.{key}' is set, but the reader '{reader}' takes none"):
                find_reader(DataConfig(reader=reader, **{key: value}))
    with pytest.raises(UserError, match=f"'data.options.nothing'.*'{reader}'"):
        find_reader(DataConfig(reader=reader, options={"nothing": 1}))


def test_a_path_that_the_demo_would_ignore_names_the_readers_that_fit() -> None:
    with pytest.raises(UserError, match=r"say data.reader=five_category or data.reader=json$"):
        read("demo", Path("/somewhere/bench.json"))


@pytest.mark.parametrize("reader", [name for name, reader in BUNDLED.items() if "path" in reader.takes])
@pytest.mark.parametrize("content", [None, b"", b"\0\1\2 nothing of the kind"])
def test_each_complains_in_one_line_that_names_the_file(reader: str, content: bytes | None, folder: Path) -> None:
    path = folder / "bench.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(reader, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"'data.path' is not set"):
        read(reader, None)


def test_a_dataset_of_several_splits_wants_one_named(folder: Path) -> None:
    save_to_disk(folder / "bench" / "train", arrow(columns(folder, "a", "b")))
    save_to_disk(folder / "bench" / "test", arrow(columns(folder, "c", "d")))
    (folder / "bench" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert [i.id for i in read("huggingface", folder / "bench", options={"split": "test"})] == ["c", "d"]
    with pytest.raises(UserError, match=r"splits train, test; say data.options.split=train"):
        read("huggingface", folder / "bench")
    with pytest.raises(UserError, match=r"no split 'tset'; did you mean 'test'"):
        read("huggingface", folder / "bench", options={"split": "tset"})


def test_a_mask_is_read_where_its_field_is_named_and_else_is_a_fact(folder: Path) -> None:
    file = folder / "masked.jsonl"
    file.write_text(json.dumps({**ROW, "mask": "hard", "region": "a.png"}) + "\n")
    (plain,) = read("jsonl", file)
    assert (plain.mask, plain.facts) == (None, {"mask": "hard", "region": "a.png"})
    (masked,) = read("jsonl", file, fields={"mask": "region"})
    assert (masked.mask, masked.facts) == (folder / "a.png", {"mask": "hard"})


def test_a_snapshot_with_parquet_files_is_a_dataset_too(folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (folder / "bench" / "data").mkdir(parents=True)
    for n, name in enumerate(("train-00001-of-00002", "train-00000-of-00002", "test-00000-of-00001")):
        parquet.write_table(arrow(columns(folder, str(n))), folder / "bench" / "data" / f"{name}.parquet")
    assert [i.id for i in read("huggingface", folder / "bench", options={"split": "train"})] == ["1", "0"]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train-00000-of-00001-0123456789abcdef.parquet", "test-00000-of-00001.parquet"], "test, train"),
        (["default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"], "test, train"),
        (["en/train-00000-of-00001.parquet", "cn/train-00000-of-00001.parquet"], "cn/train, en/train"),
        (["bench-train.arrow", "bench-test-00000-of-00001.arrow", "cache-0123456789abcdef.arrow"], "test, train"),
    ],
)
def test_splits_are_told_from_the_names_of_their_files(names: list[str], splits: str, folder: Path) -> None:
    for name in names:
        (folder / "bench" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "bench" / name).touch()
    with pytest.raises(UserError, match=f"it has the splits {splits}; say"):
        read("huggingface", folder / "bench")


@pytest.mark.parametrize("reader", ["huggingface", "parquet"])
def test_a_download_that_lacks_files_is_no_smaller_benchmark(reader: str, folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (folder / "bench").mkdir()
    for n in (0, 2):
        parquet.write_table(arrow(columns(folder, str(n))), folder / "bench" / f"train-0000{n}-of-00004.parquet")
    with pytest.raises(UserError, match=r"train-\*-of-00004: 2 of 4 files missing, the first 00001"):
        read(reader, folder / "bench")
    (asked_for,) = read(reader, folder / "bench" / "train-00002-of-00004.parquet")
    assert asked_for.id == "2"


def test_which_of_several_files_is_damaged_is_said(folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (folder / "bench").mkdir()
    for n in range(3):
        parquet.write_table(arrow(columns(folder, str(n))), folder / "bench" / f"train-0000{n}-of-00003.parquet")
    damaged = folder / "bench" / "train-00001-of-00003.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"train-00001-of-00003.parquet: damaged.*download it again"):
        read("huggingface", folder / "bench")
    damaged.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(
        UserError, match=r"00001-of-00003.parquet: it is no table but a git-lfs pointer; .*git lfs pull"
    ):
        read("huggingface", folder / "bench")


def test_what_the_first_of_several_files_lacks_is_read_from_the_others(folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (folder / "bench").mkdir()
    first, second = columns(folder, "a"), columns(folder, "b")
    del first["category"]
    for n, each in enumerate((first, second)):
        parquet.write_table(arrow(each), folder / "bench" / f"{n}.parquet")
    assert [i.category for i in read("parquet", folder / "bench")] == ["uncategorised", "Style"]


def test_class_labels_are_read_as_their_names(folder: Path) -> None:
    table = arrow({**columns(folder, "a", "b"), "category": [1, 0]})
    features = {"category": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    noted = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    assert [i.category for i in read("huggingface", save_to_disk(folder / "bench", noted))] == ["dog", "cat"]


def test_a_cell_that_lies_outside_of_the_file_ends_no_process(folder: Path) -> None:
    bench = save_to_disk(folder / "bench", arrow({**columns(folder, "a", "b"), "note": ["n" * 777, "n" * 777]}))
    file = bench / "data-00001-of-00002.arrow"
    head, begins_and_ends, cells = file.read_bytes().rpartition(struct.pack("<ii", 0, 777))
    assert begins_and_ends
    file.write_bytes(head + struct.pack("<ii", 0, 2**31 - 1) + cells)
    words = ["plan", "--config", "demo.yaml", "data.reader=huggingface", f"data.path={bench}"]
    said = subprocess.run(
        [sys.executable, "-m", "slurm_bench", *words], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert said.returncode == 1, said
    assert f"{file}: damaged behind row 0" in said.stderr


def test_a_column_that_stands_twice_is_refused(folder: Path) -> None:
    table = arrow(columns(folder, "a", "b"))
    doubled = table.append_column("instruction", table.column("instruction"))
    with pytest.raises(UserError, match="the column 'instruction' stands twice"):
        read("huggingface", save_to_disk(folder / "bench", doubled))


def test_without_pyarrow_the_mend_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_parquet(folder)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"needs pyarrow.*pip install 'slurm_bench\[data\]'"):
        read("parquet", file)


def test_a_folder_of_images_with_texts(folder: Path) -> None:
    bench = write_folder(folder)
    image = (folder / "a.png").read_bytes()
    for name in ("b.png", "b.jpg", "c.png", ".hidden.png", ".git/x.png"):
        (bench / name).parent.mkdir(exist_ok=True)
        (bench / name).write_bytes(image)
    (bench / "b.txt").write_text("make it night")
    items = read("image_folder", bench)
    assert [(i.id, i.category, i.instruction) for i in items] == [
        ("Style/a", "Style", "edit"),
        ("b.jpg", "all", "make it night"),
        ("b.png", "all", "make it night"),
        ("c", "all", ""),
    ]
    assert "c.txt: No such file" in items[-1].problem
    assert not items[-1].on_storage


def test_no_image_of_a_folder_is_passed_over_in_silence(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench, image = write_folder(folder), (folder / "a.png").read_bytes()
    for name in ("linked/l.png", "b.jfif", "c.heic", "d.heic", "d.png"):
        place = folder / name if name.startswith("linked") else bench / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"\0\0\0\x18ftypheic" if name.endswith(".heic") else image)
        place.with_suffix(".txt").write_text("edit")
    (bench / "to").symlink_to(folder / "linked")
    (folder / "linked" / "back").symlink_to(bench)
    (bench / "lone.txt").write_text("edit")
    items = {i.id: i.problem for i in read("image_folder", bench)}
    assert [i for i, problem in items.items() if not problem] == ["Style/a", "b", "d", "to/l"]
    assert "but a HEIC file; save it" in items["c"]
    assert "texts without an image of their name (1): lone.txt" in caplog.text


def test_a_folder_that_cannot_be_looked_into_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench, scandir = write_folder(folder), os.scandir
    (bench / "b.png").write_bytes((folder / "a.png").read_bytes())
    (bench / "b.txt").write_text("edit")

    def closed(path: Any) -> Any:
        if str(path).endswith("Style"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert [i.id for i in read("image_folder", bench)] == ["b"]
    assert "Style: can't be looked into: Permission denied" in caplog.text


def test_a_run_within_the_datas_folder_is_no_data(folder: Path) -> None:
    """Who launches from there has it in `runs`."""
    bench = write_folder(folder)
    image = bench / "runs" / "demo" / "edit" / "images" / "3f" / "a.png"
    image.parent.mkdir(parents=True)
    image.write_bytes((folder / "a.png").read_bytes())
    for name in ("config.yaml", "plan.jsonl", "provenance.json"):
        (bench / "runs" / "demo" / name).touch()
    assert [i.id for i in read("image_folder", bench)] == ["Style/a"]


def test_a_folders_texts_may_be_in_another_encoding(folder: Path) -> None:
    bench = write_folder(folder)
    (bench / "Style" / "a.txt").write_bytes("把猫变成狗".encode("gb18030"))
    with pytest.raises(UserError, match=r"say data\.encoding"):
        read("image_folder", bench)
    assert [i.instruction for i in read("image_folder", bench, encoding="gb18030")] == ["把猫变成狗"]
