"""Published benchmarks in small, as they are downloaded: `make_gedit(folder)` and so on give the path to read. Each has
what is odd in the real one."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


def picture(color: str = "teal", kind: str = "PNG", size: int = 16) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), color).save(buffer, kind)
    return buffer.getvalue()


def write_image(file: Path, color: str = "teal") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(picture(color, "PNG" if file.suffix.lower() == ".png" else "JPEG"))
    return file


def write_json(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return file


def write_parquet(file: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file


def write_arrow(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """As `datasets` saves a dataset of one shard."""
    pyarrow = pytest.importorskip("pyarrow")
    folder.mkdir(parents=True)
    table = pyarrow.Table.from_pylist(rows)
    file = folder / "data-00000-of-00001.arrow"
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    write_json(folder / "state.json", {"_data_files": [{"filename": file.name}]})
    return folder


def gedit_rows() -> list[dict[str, Any]]:
    """One key in both languages, a key in one alone, a flag that is null and a raw picture that is."""
    small, raw = ({"bytes": picture("teal", size=size), "path": None} for size in (8, 24))

    def row(key: str, task: str, language: str, flag: bool | None, raw: Any = raw) -> dict[str, Any]:
        text = "make it night" if language == "en" else "变成夜晚"
        names = {"task_type": task, "key": key, "instruction": text, "instruction_language": language}
        return {**names, "input_image": small, "input_image_raw": raw, "Intersection_exist": flag}

    return [
        row("a1", "subject-add", "en", True),
        row("a1", "subject-add", "cn", False),
        row("b2", "background_change", "en", None, raw=None),
    ]


def make_gedit(folder: Path) -> Path:
    write_arrow(folder / "GEdit-Bench" / "train", gedit_rows())
    write_json(folder / "GEdit-Bench" / "dataset_dict.json", {"splits": ["train"]})
    return folder / "GEdit-Bench"


def make_gedit2(folder: Path) -> Path:
    image = {"bytes": picture(kind="JPEG"), "path": "x.jpg"}
    rows = [
        {"key": "subject_add_000012", "instruction": "add a hat", "source_image": image},
        {"key": "style-transfer_000013", "instruction": "as a sketch", "source_image": image},
    ]
    write_parquet(folder / "GEditBench_v2" / "data" / "train-00000-of-00001.parquet", rows)
    return folder / "GEditBench_v2"


def make_imgedit(folder: Path) -> Path:
    """Keys with gaps and in no order, one source of two samples, a folder with a space in its name."""
    entries = {
        "1082": {"id": "animal/000342021.jpg", "prompt": "make the shell smooth", "edit_type": "adjust"},
        "17": {"id": "animal/000342021.jpg", "prompt": "remove the animal", "edit_type": "remove"},
        "673": {"id": "daily object/000278574.jpg", "prompt": "as a woodblock print", "edit_type": "style"},
    }
    for name in {entry["id"] for entry in entries.values()}:
        write_image(folder / "Basic" / "images" / name)
    (folder / "Basic" / "aaa").mkdir()
    write_json(folder / "Basic" / "basic_edit.json", entries)
    return folder / "Basic"


def make_risebench(folder: Path) -> Path:
    """Each way to say what is right, flags as pandas writes them, one that has none."""

    def entry(index: str, **more: Any) -> dict[str, Any]:
        category = index.rpartition("_")[0]
        image = f"{category}_images/{index.rpartition('_')[2]}.png"
        write_image(folder / "RISEBench" / "data" / image)
        return {"index": index, "category": category, "instruction": "draw it later", "image": image, **more}

    nan = float("nan")
    flags = {"reasoning_img": nan, "reasoning_wo_ins": nan, "consistency_free": nan}
    answer = "logical_reasoning_images/2_ref.png"
    write_image(folder / "RISEBench" / "data" / answer)
    entries = [
        entry("temporal_reasoning_1", reference="a rotten banana", subtask="Life Progression", **flags),
        entry("causal_reasoning_1", reference="a bitten apple", **{**flags, "reasoning_img": 1.0}),
        entry("spatial_reasoning_1", reference="a cup", reference_img=nan, consistency_free=True),
        entry("logical_reasoning_1", reference_txt="C", reference=nan, reference_img=None),
        entry("logical_reasoning_2", reference_img=answer, reasoning_wo_ins="True"),
    ]
    return write_json(folder / "RISEBench" / "datav2_total_w_subtask.json", entries).parent


def make_risebench2(folder: Path) -> Path:
    """Lists of images, flags as text, both languages, and a hybrid case."""
    data = folder / "RISEBench++" / "data"
    for name in ("temporal_reasoning_images/8_1.png", "temporal_reasoning_images/8_2.png", "t/8_ref.png", "t/1.png"):
        write_image(data / name)
    write_image(data / "t/8_cons.png")
    english = {"instruction": "after ten minutes", "instruction_chinese": "十分钟后"}
    plain = {"subcategory": "common_sense", "task_type": "life", **english}
    entries = [
        {"index": "temporal_reasoning_1", "category": "temporal_reasoning", **plain, "image": ["t/1.png"]}
        | {"reference_txt": "rotten", "reference_txt_chinese": "腐烂"},
        {"index": "temporal_reasoning_8", "category": "temporal_reasoning", **plain, "multi_img": "True"}
        | {"image": ["temporal_reasoning_images/8_1.png", "temporal_reasoning_images/8_2.png"]}
        | {"consistency_img": "t/8_cons.png", "reference_img": "t/8_ref.png"},
        {"index": "hybrid_reasoning_1", "category": ["causal_reasoning", "temporal_reasoning"], "image": ["t/1.png"]}
        | {"subcategory": ["a", "b"], "task_type": ["c", "d"], "multi_turn": "True", "reference_txt": "both"}
        | {"instruction": ["halve it", "age it"], "instruction_chinese": ["减半", "变老"]},
    ]
    return write_json(data / "overall_data.json", entries).parent


def make_kris(folder: Path) -> Path:
    """Lists of images, an upper-case suffix, empty and absent answers, no explanation, an absent image, .DS_Store."""
    root = folder / "KRIS_Bench"
    tasks: dict[str, dict[str, dict[str, Any]]] = {
        "temporal_prediction": {
            "1": {"ori_img": ["1-2.jpg", "1-3.jpg"], "gt_img": "1-1.jpg", "ins_en": "frame 1?", "explain_en": ""},
            "3": {"ori_img": ["3-1.jpg", "3-2.JPG"], "gt_img": "3-3.jpg", "ins_en": "frame 3?"},
        },
        "multi-element_composition": {
            "33": {"ori_img": ["33-1.JPG", "33-2.png"], "gt_img": "", "ins_en": "put it there", "explain_en": None}
        },
        "chemistry": {
            "1": {"ori_img": "1.jpeg", "ins_en": "add acid", "explain_en": "it turns red"},
            "2": {"ori_img": "absent.jpg", "gt_img": None, "ins_en": "add a base", "explain_en": "it turns blue"},
        },
    }
    for task, entries in tasks.items():
        write_json(root / task / "annotation.json", entries)
        (root / task / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        for entry in entries.values():
            names = entry["ori_img"] if isinstance(entry["ori_img"], list) else [entry["ori_img"]]
            for name in filter(None, [*names, entry.get("gt_img")]):
                if name != "absent.jpg":
                    write_image(root / task / name)
    (root / ".DS_Store").write_bytes(b"\0")
    write_json(root / ".ipynb_checkpoints" / "annotation.json", tasks["chemistry"])
    return root


def make_magicbrush(folder: Path, turns: int = 2) -> Path:
    """Turns of one image; each but the first starts from the target of the one before."""
    colors = ("red", "green", "blue", "white")
    images = [{"bytes": picture(color), "path": None} for color in colors]
    turn = {"img_id": "242679", "mask_img": {"bytes": picture("white"), "path": None}}
    rows = [
        {**turn, "turn_index": n, "source_img": source, "instruction": f"make it {colors[n]}", "target_img": target}
        for n, (source, target) in enumerate(pairwise(images), 1)
    ][:turns]
    return write_parquet(folder / "MagicBrush" / "data" / "dev-00000-of-00001.parquet", rows).parent.parent


def make_unireditbench(folder: Path) -> Path:
    """An index twice under two names, rules before an instruction."""
    root = folder / "UniREditBench"
    entries = []
    for name, index in (("maze", 1), ("maze", 2), ("sokoban", 1)):
        images = {kind: f"original_image/{name}/{index}_{kind}.png" for kind in ("original", "reference")}
        for image in images.values():
            write_image(root / image)
        paths = {f"{kind}_image_path": image for kind, image in images.items()}
        entries.append({**paths, "instruction": "solve it", "name": name, "idx": index, "reference_effect": "solved"})
    entries[2] |= {"rules": "Push boxes.", "reference_effect": None}
    entries[1] |= {"rules": None}
    return write_json(root / "data.json", entries).parent


def make_wiseedit(folder: Path) -> Path:
    """Tables with a byte-order mark; images named from the top and from the table; several references."""
    root = folder / "WiseEdit-Benchmark"
    awareness = root / "WiseEdit" / "Awareness" / "Awareness_1"
    complex_ = root / "WiseEdit-Complex" / "WiseEdit_Complex_2"
    for file in (awareness / "imgs/1.png", awareness / "imgs/2.jpg", awareness / "img_ref/1.png"):
        write_image(file)
    for file in (complex_ / "imgs/1_1.png", complex_ / "imgs/1_2.png", complex_ / "img_ref/a.png"):
        write_image(file)
    shutil.copy(complex_ / "img_ref/a.png", complex_ / "img_ref/b.png")
    top = "WiseEdit-Complex/WiseEdit_Complex_2"
    tables = {
        awareness: [
            {"idx": "1", "prompt": "light it", "promptcn": "点亮", "hint": "it glows", "ref": "img_ref/1.png"}
            | {"input_1": "imgs/1.png"},
            {
                "idx": "2",
                "prompt": "melt it, slowly",
                "promptcn": "融化",
                "hint": "",
                "ref": "",
                "input_1": "imgs/2.jpg",
            },
        ],
        complex_: [
            {"idx": "1", "prompt": "join them", "promptcn": "合并", "hint": ""}
            | {"ref": json.dumps([f"{top}/img_ref/a.png", f"{top}/img_ref/b.png"])}
            | {"input_1": f"{top}/imgs/1_1.png", "input_2": f"{top}/imgs/1_2.png", "difficulty": "hard"}
        ],
    }
    for place, rows in tables.items():
        with (place / f"{place.name}.csv").open("w", encoding="utf-8-sig", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
        write_json(place / "ins.json", rows)
    (root / "score_Awareness_1.csv").write_text("idx,score\n1,5\n")
    return root


MAKERS: dict[str, Callable[[Path], Path]] = {
    "gedit": make_gedit,
    "gedit2": make_gedit2,
    "imgedit": make_imgedit,
    "risebench": make_risebench,
    "risebench2": make_risebench2,
    "kris": make_kris,
    "magicbrush": make_magicbrush,
    "unireditbench": make_unireditbench,
    "wiseedit": make_wiseedit,
}
