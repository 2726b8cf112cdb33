"""The five-category benchmark's own file: streamed, both languages, and whatever is wrong in it."""

from __future__ import annotations

import base64
import io
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import REPO
from PIL import Image

from slurm_bench.config import DataConfig
from slurm_bench.data import read_items
from slurm_bench.data.item import Item
from slurm_bench.errors import UserError

_buffer = io.BytesIO()
Image.new("RGB", (16, 16), "teal").save(_buffer, "PNG")
PNG = _buffer.getvalue()
B64 = base64.b64encode(PNG).decode()


def record(n: int, **more: Any) -> dict[str, Any]:
    return {
        "subset": "物理",
        "edit_instruction": f"改 {n}",
        "original_image_path": f"images/{n}.jpg",
        "src_img_b64": B64,
        "tags": ["a", {"deep": [1, None]}],
        "difficulty": 1.5,
        "seed": 42,
        **more,
    }


def read(folder: Path, content: Any, **options: Any) -> list[Item]:
    file = folder / "bench.json"
    if not isinstance(content, bytes):
        content = json.dumps(content).encode()
    file.write_bytes(content)
    return list(read_items(DataConfig(reader="five_category", path=str(file), **options)))


def test_a_whole_record_becomes_an_item(tmp_path: Path) -> None:
    texts = {
        "edit_instruction_en": "melt it",
        "original_description": "冰",
        "original_description_en": "ice",
        "rationale_short": "热",
        "rationale_short_en": None,
    }
    facts = {"tags": ["a", {"deep": [1, None]}], "difficulty": 1.5}
    expected = Item("1", "physical", "melt it", PNG, "ice", "热", facts=facts)
    assert read(tmp_path, [record(1, **texts)]) == [expected]


def test_optional_fields_may_be_absent_or_null_and_empty_english_gives_way(tmp_path: Path) -> None:
    first, second = read(tmp_path, [record(1, edit_instruction_en=" "), record(2, rationale_short=None)])
    assert (first.instruction, first.description, first.rationale) == ("改 1", "", "")
    assert second.rationale == ""


@pytest.mark.parametrize(
    ("subset", "category"),
    [
        ("物理", "physical"),
        ("环境", "environmental"),
        ("社会", "social"),
        ("Cultural", "social"),
        ("social/cultural", "social"),
        ("SOCIAL", "social"),
        ("因果", "causal"),
        (" Causal ", "causal"),
        ("指代", "referential"),
        ("referential", "referential"),
    ],
)
def test_categories_go_by_all_their_names(subset: str, category: str, tmp_path: Path) -> None:
    assert [i.category for i in read(tmp_path, [record(1, subset=subset)])] == [category]


def test_an_unknown_category_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"item 2: unknown category 'phisical'; known: physical, .*物理"):
        read(tmp_path, [record(1), record(2, subset="phisical")])
    with pytest.raises(UserError, match=r"'data.categories': unknown category 'casual'"):
        read(tmp_path, [record(1)], categories=["casual"], limit=1)


@pytest.mark.parametrize(
    ("path", "id"),
    [("a/b/x.y.png", "x.y"), ("C:\\pics\\冰 1.JPG", "冰 1"), ("plain", "plain"), ("../..", ".."), ("", "77")],
)
def test_the_id_is_the_stem_of_the_image_path_else_id(path: str, id: str, tmp_path: Path) -> None:
    assert [i.id for i in read(tmp_path, [record(1, original_image_path=path, id=77)])] == [id]


def test_two_images_of_one_stem_are_two_samples_and_one_image_twice_is_none(tmp_path: Path) -> None:
    paths = ["a/1.jpg", "b/1.jpg", "c\\d\\1.png", "2.jpg"]
    items = read(tmp_path, [record(n, original_image_path=path) for n, path in enumerate(paths)])
    assert [item.id for item in items] == ["1", "b/1", "c/d/1", "2"]
    with pytest.raises(UserError, match=r"items 1 and 2 have the same id '1'"):
        read(tmp_path, [record(1), record(1)])


def test_without_any_id_the_fields_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"item 2: no id.*subset, edit_instruction"):
        read(tmp_path, [record(1), record(2, original_image_path=None)])


def test_the_datasets_own_seed_changes_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, [record(1, seed=1)]) == read(tmp_path, [record(1, seed=2)])


@pytest.mark.parametrize("encoded", [f"data:image/png;base64,{B64}", f"\n {B64[:40]}\r\n{B64[40:]} \t"])
def test_a_data_url_and_white_space_are_base64_too(encoded: str, tmp_path: Path) -> None:
    assert [i.source for i in read(tmp_path, [record(1, src_img_b64=encoded)])] == [PNG]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"src_img_b64": "@" + B64}, "isn't base64"),
        ({"src_img_b64": B64[:-3]}, "isn't base64"),
        ({"src_img_b64": "冰"}, "isn't base64"),
        ({"src_img_b64": 5}, "is a int"),
        ({"src_img_b64": base64.b64encode(b"no image").decode()}, "not an image"),
        ({"src_img_b64": None}, "no such file"),
        ({"src_img_b64": None, "original_image_path": "../../x.png"}, "leads out of"),
        ({"src_img_b64": "", "original_image_path": "/etc/passwd"}, "leads out of"),
        ({"src_img_b64": None, "original_image_path": "a\0b.png"}, "no"),
        ({"src_img_b64": None, "original_image_path": None, "id": 5}, "fields there: subset"),
        ({"edit_instruction": None}, "no instruction (in edit_instruction_en or edit_instruction)"),
        ({"edit_instruction": "\ud800"}, "broken UTF-8"),
        ({"subset": None}, "no category (in subset)"),
    ],
)
def test_a_bad_sample_is_named_and_hurts_no_other(bad: dict[str, Any], says: str, tmp_path: Path) -> None:
    before, broken, after = read(tmp_path, [record(1), record(2, **bad), record(3)])
    assert says in broken.problem
    assert (before.problem, after.problem) == ("", "")


def test_base64_beyond_the_limit_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slurm_bench.data.readers.embedded.MAX_BYTES", 30)
    small = record(1, src_img_b64=None, original_image_path="1.png")
    (tmp_path / "1.png").write_bytes(PNG)
    assert "at most 40 are read" in read(tmp_path, [small, record(2)])[1].problem


def test_bytes_that_are_not_utf8_spoil_their_own_item_alone(tmp_path: Path) -> None:
    content = json.dumps([record(1), record(2, edit_instruction="XX"), record(3)], ensure_ascii=False).encode()
    first, second, third = read(tmp_path, b"\xef\xbb\xbf" + content.replace(b"XX", b"\xff\xfe"))
    assert "broken UTF-8" in second.problem
    assert (first.problem, third.problem, third.instruction) == ("", "", "改 3")


def test_characters_cut_by_the_reading_buffer_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slurm_bench.data.readers.encoding.CHUNK", 1)
    content = json.dumps([record(1, edit_instruction="把冰变成水😀" * 9)], ensure_ascii=False).encode()
    assert read(tmp_path, content)[0].instruction == "把冰变成水😀" * 9


def test_quotes_and_brackets_within_texts_end_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ['say "hi"', "back\\", "\\\\", 'a\\"}],[{"b', "]", "{[,", '\\" , \\\\"']
    content = json.dumps([record(n, edit_instruction=text) for n, text in enumerate(texts)], indent=1).encode()
    for size in (1, 2, 3, 7, 1000):
        monkeypatch.setattr("slurm_bench.data.readers.encoding.CHUNK", size)
        assert [item.instruction for item in read(tmp_path, content)] == texts


def test_a_lone_surrogate_is_told_from_a_question_mark(tmp_path: Path) -> None:
    content = json.dumps([record(1, edit_instruction="why?"), record(2, edit_instruction="\ud83d?")]).encode()
    assert [bool(item.problem) for item in read(tmp_path, content)] == [False, True]
    assert read(tmp_path, json.dumps([record(1, edit_instruction="\U0001f600")]).encode())[0].problem == ""


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "gb18030", "utf-8"])
def test_another_encoding_can_be_said(encoding: str, tmp_path: Path) -> None:
    content = json.dumps([record(1)], ensure_ascii=False).encode(encoding)
    assert read(tmp_path, content, encoding=encoding)[0].instruction == "改 1"


def test_an_image_file_is_found_beside_the_list_or_in_the_root(tmp_path: Path) -> None:
    for folder in (tmp_path / "images", tmp_path / "root" / "images"):
        folder.mkdir(parents=True)
        (folder / "1.jpg").write_bytes(PNG)
    one = [record(1, src_img_b64=None)]
    assert read(tmp_path, one)[0].source == (tmp_path / "images/1.jpg").resolve()
    root = str(tmp_path / "root")
    assert read(tmp_path, one, image_root=root)[0].source == (tmp_path / "root/images/1.jpg").resolve()


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "bench" / "link.png").symlink_to(tmp_path / "secret.png")
    items = read(tmp_path / "bench", [record(1), record(2, src_img_b64=None, original_image_path="link.png")])
    assert "leads out of" in items[1].problem


def test_fields_can_be_mapped_and_a_wrong_map_is_refused(tmp_path: Path) -> None:
    rows = [record(1, key="k1", prompt="do it"), record(2, key="k2", prompt="do it")]
    first = read(tmp_path, rows, fields={"id": "key", "instruction": "prompt"})[0]
    assert (first.id, first.instruction) == ("k1", "do it")
    with pytest.raises(UserError, match=r"no field 'rational_short' for 'rationale'.*data.fields.rationale"):
        read(tmp_path, rows, fields={"rationale": "rational_short"})
    with pytest.raises(UserError, match=r"'data.fields.instrucion'.*did you mean 'instruction'"):
        read(tmp_path, rows, fields={"instrucion": "prompt"})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a whole JSON list"),
        (b"hello", "not a whole JSON list"),
        (b"\x89PNG\r\n\x1a\n", "not a whole JSON list"),
        (b'{"a": 1}', "begins with a JSON object"),
        (b'"text"', "begins with a JSON string"),
        (b"[]", "no samples"),
        (b"[5]", "item 1 is a int"),
        (b"[null]", "item 1 is a NoneType"),
        (b"[[{}]]", "item 1 is a list"),
        (b"[" * 100_000, "nested"),
        (b'[{"a": NaN}]', "not a whole JSON list"),
        (b"[" + b"1" * 6000 + b"]", "not a whole JSON list"),
        (json.dumps([record(1)]).encode()[:-9], "at item 1"),
        (json.dumps([record(1)]).encode() + b" x", "not a whole JSON list"),
        (json.dumps([record(1)]).encode() + b" []", "more text follows"),
        (b'[{"a": "never closed}]', "ends within it"),
        (b'[{"id": 1},]', r"at item 2"),
        (b"[,{}]", r"at item 1"),
        (b'[{"a": [}]', "not a whole JSON list"),
        (b'[\n{"id": 1},\n{"a": 1,\n"a": 2}]', r"bench.json:3: .*\"a\" stands twice.*at item 2"),
        ("[]".encode("utf-16"), "reads as UTF-16; say data.encoding=utf-16"),
        (json.dumps([record(1, edit_instruction="把这张图变成冬天")], ensure_ascii=False).encode("gbk"), "gb18030"),
    ],
)
def test_a_file_that_is_no_list_is_one_clear_line(content: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says) as caught:
        read(tmp_path, content)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600 + len(str(tmp_path))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    for path, says in (
        (None, "'data.path' is not set"),
        (str(tmp_path / "x"), "no such file"),
        (str(tmp_path), "not a file"),
    ):
        with pytest.raises(UserError, match=says):
            list(read_items(DataConfig(reader="five_category", path=path)))


PROBE = """
import sys
from slurm_bench.config import DataConfig
from slurm_bench.data import read_items
from slurm_bench.data.images import open_image
from tests.memory import peak_kilobytes
list(read_items(DataConfig(reader="five_category", path=sys.argv[2])))
before = peak_kilobytes()
count = sum(1 for item in read_items(DataConfig(reader="five_category", path=sys.argv[1])))
print(count, (peak_kilobytes() - before) * 1024)
"""


def test_the_file_is_never_held_whole(tmp_path: Path) -> None:
    """600 images of 100 k base64 characters: reading them takes less memory than half the file, beyond what one needs.
    What the allocator keeps is some hundred times an image, however many there are."""
    image = io.BytesIO()
    Image.frombytes("RGB", (200, 125), random.Random(0).randbytes(75_000)).save(image, "PNG")
    encoded = base64.b64encode(image.getvalue()).decode()
    file, single = tmp_path / "large.json", tmp_path / "single.json"
    for path, count in ((file, 600), (single, 1)):
        path.write_text(json.dumps([record(n, src_img_b64=encoded) for n in range(count)]))
    assert file.stat().st_size > 60e6
    command = [sys.executable, "-c", PROBE, str(file), str(single)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    count, grown = map(int, done.stdout.split())
    assert count == 600
    assert grown < file.stat().st_size / 2
