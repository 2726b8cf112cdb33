"""JSONL and CSV with image files beside them."""

from __future__ import annotations

import base64
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from slurm_bench.config import DataConfig
from slurm_bench.data import read_items
from slurm_bench.data.item import Item
from slurm_bench.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "ref.png"):
        Image.new("RGB", (16, 16), "teal").save(tmp_path / name)
    return tmp_path


def jsonl(folder: Path, *rows: Any, **options: Any) -> list[Item]:
    """Rows as objects, or as the bytes of a line."""
    file = folder / "bench.jsonl"
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    file.write_bytes(b"\n".join(lines))
    return list(read_items(DataConfig(reader="jsonl", path=str(file), **options)))


def table(folder: Path, content: str | bytes, **options: Any) -> list[Item]:
    file = folder / "bench.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_items(DataConfig(reader="csv", path=str(file), **options)))


def row(id: Any = 1, **more: Any) -> dict[str, Any]:
    return {"id": id, "instruction": "edit", "image": "a.png", **more}


def test_a_whole_row_becomes_an_item(folder: Path) -> None:
    texts = {"category": "风格", "description": "d", "rationale": "r"}
    expected = Item("1", "风格", "edit", folder / "a.png", "d", "r", folder / "ref.png")
    assert jsonl(folder, row(**texts, reference="ref.png")) == [expected]
    content = "id,category,instruction,image,reference,description,rationale\n1,风格,edit,a.png,ref.png,d,r\n"
    assert table(folder, content) == [expected]


def test_many_images_absolute_paths_and_an_image_root(folder: Path) -> None:
    (only,) = jsonl(folder, row(image=["a.png", str(folder / "b.png")]))
    assert only.source == (folder / "a.png", folder / "b.png")
    (folder / "sub").mkdir()
    (folder / "sub" / "c.png").write_bytes((folder / "a.png").read_bytes())
    (only,) = jsonl(folder, row(image="c.png"), image_root=str(folder / "sub"))
    assert (only.source, only.problem) == (folder / "sub" / "c.png", "")


def test_the_category_is_all_where_no_row_has_one(folder: Path) -> None:
    assert [i.category for i in jsonl(folder, row(1), row(2))] == ["all", "all"]
    assert [i.category for i in jsonl(folder, row(1), row(2, category="style"))] == ["uncategorised", "style"]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"image": "absent.png"}, "absent.png: no such file"),
        ({"image": ""}, "no source"),
        ({"image": None}, "no source"),
        ({"image": 5}, "is a int"),
        ({"image": ["a.png", None]}, "is a NoneType"),
        ({"image": "a\0b"}, "no such file"),
        ({"image": "n" * 5000}, ""),
        ({"image": "."}, "not a file"),
        ({"image": "bench.jsonl"}, "not an image"),
        ({"image": ["a.png", ["b.png"]]}, "the source image is a list, not"),
        ({"reference": "absent.png"}, "reference: "),
        ({"reference": ["a.png", "b.png"]}, "the reference image is a list, not"),
        ({"instruction": ""}, "instruction is empty"),
        ({"instruction": "\ud800"}, "broken UTF-8"),
        ({"description": {"a": 1}}, "description is a dict"),
    ],
)
def test_a_bad_row_is_named_and_hurts_no_other(bad: dict[str, Any], says: str, folder: Path) -> None:
    before, broken, after = jsonl(folder, row("a"), row("b", **bad), row("c"))
    assert broken.problem
    assert says in broken.problem
    assert broken.problem.isprintable()
    assert (before.problem, after.problem) == ("", "")


def test_broken_utf8_spoils_its_own_line_alone(folder: Path) -> None:
    broken = json.dumps(row("b", instruction="XX")).encode().replace(b"XX", b"\xff")
    assert [bool(i.problem) for i in jsonl(folder, row("a"), broken, row("c"))] == [False, True, False]
    content = b"id,instruction,image\n1,edit,a.png\n2,\xff\xfe,a.png\n"
    assert [bool(i.problem) for i in table(folder, content)] == [False, True]


def test_empty_lines_marks_and_line_ends_are_no_matter(folder: Path) -> None:
    mark = b"\xef\xbb\xbf"
    rows = jsonl(folder, mark + json.dumps(row(1)).encode() + b"\r", b"", json.dumps(row(2)).encode(), b"  ")
    assert [(i.id, i.problem) for i in rows] == [("1", ""), ("2", "")]
    rows = table(folder, mark + b"id,instruction,image\r\n1,edit,a.png\r\n\r\n2,edit,a.png")
    assert [(i.id, i.problem) for i in rows] == [("1", ""), ("2", "")]


def test_a_line_separator_within_a_text_ends_no_row(folder: Path) -> None:
    text = "one\u2028two\x0bthree"
    assert jsonl(folder, json.dumps(row(instruction=text), ensure_ascii=False).encode())[0].instruction == text
    assert table(folder, f"id,instruction,image\n1,{text},a.png\n")[0].instruction == text


def test_csv_cells_may_be_quoted_and_span_lines(folder: Path) -> None:
    (only,) = table(folder, 'id,instruction,image\n007,"say ""hi"",\r\nthen go",a.png\n')
    assert (only.id, only.instruction, only.problem) == ("007", 'say "hi",\r\nthen go', "")


def test_an_unquoted_comma_is_a_problem_and_a_short_row_too(folder: Path) -> None:
    rows = table(folder, "id,instruction,image\n1,first, then,a.png\n2,edit\n3,edit,a.png\n")
    assert "1 cells more than the header" in rows[0].problem
    assert "no source" in rows[1].problem
    assert rows[2].problem == ""


def test_fields_can_be_mapped(folder: Path) -> None:
    given = {"key": 7, "prompt": "edit", "file": "a.png", "type": "style"}
    fields = {"id": "key", "instruction": "prompt", "image": "file", "category": "type"}
    (only,) = jsonl(folder, given, fields=fields)
    assert (only.id, only.category, only.instruction, only.source) == ("7", "style", "edit", folder / "a.png")


def test_a_field_of_another_meaning_can_be_left_unread(folder: Path) -> None:
    given = row(reference="a dark street", category="A")
    (only,) = jsonl(folder, given, fields={"reference": "", "category": ""})
    assert (only.reference, only.category, only.problem) == (None, "all", "")
    assert only.facts == {"reference": "a dark street", "category": "A"}
    with pytest.raises(UserError, match=r"'data.fields.image' is empty"):
        jsonl(folder, given, fields={"image": ""})


@pytest.mark.parametrize(
    ("given", "fields", "says"),
    [
        (row(instructions="x", instruction=None), {"instruction": "instructionss"}, "did you mean 'instructions'"),
        ({"id": 1, "prompt": "x", "image": "a.png"}, {}, r"no field 'instruction'.*fields there: id, prompt, image"),
        ({"key": 1, "text": "x"}, {}, r"'id'.*'instruction'.*'image'.*data.fields.id=… data.fields.instruction=…"),
        (row(), {"rationale": "explain"}, r"no field 'explain' for 'rationale'.*fields there: id, instruction, image"),
        (row(), {"category": "type"}, "no field 'type' for 'category'"),
        (row(), {"imge": "image"}, "did you mean 'image'"),
    ],
)
def test_a_wrong_map_never_reads_as_empty(given: Any, fields: dict[str, str], says: str, folder: Path) -> None:
    with pytest.raises(UserError, match=says):
        jsonl(folder, given, fields=fields, limit=1)
    header, cells = zip(*((k, str(v or "")) for k, v in given.items()), strict=True)
    with pytest.raises(UserError, match=says):
        table(folder, f"{','.join(header)}\n{','.join(cells)}\n", fields=fields)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"id": 1', r"bench.jsonl:2: not JSON"),
        (b"[" * 100_000, r"bench.jsonl:2: not JSON"),
        (b'{"a": ' + b"1" * 6000 + b"}", r"bench.jsonl:2: not JSON"),
        (b"5", r"bench.jsonl:2: a int"),
        (b'{"instruction": "x", "image": "a.png"}', r"bench.jsonl:2: no id.*instruction, image"),
        (b'{"id": 1, "instruction": "x", "image": "a.png"}', r"items 1 and 2 have the same id '1'"),
    ],
)
def test_a_line_that_is_no_row_is_told_with_its_number(line: bytes, says: str, folder: Path) -> None:
    with pytest.raises(UserError, match=says) as caught:
        jsonl(folder, row(1), line)
    assert len(str(caught.value)) < 500 + len(str(folder))


@pytest.mark.parametrize(
    ("reader", "name", "text", "says"),
    [
        ("csv", "a.jsonl", json.dumps(row()), r"no field 'id'.*; a .jsonl file is mostly for data.reader=jsonl$"),
        ("parquet", "a.jsonl", json.dumps(row()), r"of another kind .*; a .jsonl file is mostly for"),
        ("json", "a.json", json.dumps(row()) + "\n" + json.dumps(row()), r"for one a line say data.reader=jsonl\)$"),
        ("five_category", "a.csv", "id,instruction\n1,x", r"; a .csv file is mostly for data.reader=csv$"),
        ("jsonl", "a.yaml", "data: x", r"a.yaml:1: not JSON: .*, or name another reader where the file is no JSONL"),
    ],
)
def test_a_wrong_reader_says_which_may_be_right(reader: str, name: str, text: str, says: str, folder: Path) -> None:
    (folder / name).write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        list(read_items(DataConfig(reader=reader, path=str(folder / name))))
    assert str(caught.value).count(text[:20]) <= 1, "a name that is none is said once"


def test_nested_fields_and_lists_with_any_fields(folder: Path) -> None:
    given = {"meta": {"key": 7, "deep": {"text": "edit"}}, "meta.file": "a.png"}
    fields = {"id": "meta.key", "instruction": "meta.deep.text", "image": "meta.file"}
    (folder / "bench.json").write_text(json.dumps([given, {"meta": None}], indent=1))
    for items in (
        jsonl(folder, given, {"meta": None, "id": 1}, fields={**fields, "id": "meta.key"}, limit=1),
        list(read_items(DataConfig(reader="json", path=str(folder / "bench.json"), fields=fields, limit=1))),
    ):
        assert [(i.id, i.instruction, i.source, i.problem) for i in items] == [("7", "edit", folder / "a.png", "")]
    with pytest.raises(UserError, match=r"no field 'meta.txet' for 'instruction'.*meta.deep.text"):
        jsonl(folder, given, fields={**fields, "instruction": "meta.txet"})


def test_an_image_may_lie_within_the_data(folder: Path) -> None:
    data = (folder / "a.png").read_bytes()
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    first, second, third = jsonl(
        folder, row(1, image=url), row(2, image={"path": "a.png"}), row(3, image=[url, url[:-9]])
    )
    assert (first.source, second.source, first.problem, second.problem) == (data, folder / "a.png", "", "")
    assert "isn't base64" in third.problem
    assert not third.on_storage


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_bare_base64_is_an_image_too(format_: str, folder: Path) -> None:
    file = io.BytesIO()
    Image.effect_noise((32, 32), 50).save(file, format_)
    text = base64.b64encode(file.getvalue()).decode()
    wrapped = "\n".join(text[at : at + 60] for at in range(0, len(text), 60))
    plain, lines, cut = jsonl(folder, row(1, image=text), row(2, image=wrapped), row(3, image=text[:-5]))
    assert plain.source == lines.source == file.getvalue()
    assert "isn't base64" in cut.problem


def test_an_image_may_lie_in_a_csvs_cell(folder: Path) -> None:
    file = io.BytesIO()
    Image.effect_noise((512, 512), 50).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    assert len(text) > 131_072  # beyond which Python's reader refuses a cell
    assert [i.source for i in table(folder, f"id,instruction,image\n1,edit,{text}\n")] == [file.getvalue()]


@pytest.mark.parametrize("url", ["https://example.com/a.png", "file:///a.png", "s3://bucket/a.png"])
def test_a_url_is_never_fetched_and_named_as_what_it_is(url: str, folder: Path) -> None:
    _, item = jsonl(folder, row(1), row(2, image=url))
    assert "is a URL" in item.problem
    assert url in item.problem


def test_a_key_twice_in_one_object_is_refused_with_its_line(folder: Path) -> None:
    twice = b'{"id": 2, "a": {"instruction": 1, "instruction": 2}}'
    with pytest.raises(UserError, match=r'bench.jsonl:2: .*"instruction" stands twice'):
        jsonl(folder, row(1), twice)


@pytest.mark.parametrize("sign", [";", "\t", "|", ",", ", "])
def test_the_delimiter_of_a_csv_is_found(sign: str, folder: Path) -> None:
    lines = [["id", "note", "instruction", "image"], ["1", "a,b;c", '"then; go, on"', "a.png"]]
    lines[1][1] = '"a,b;c"'
    (only,) = table(folder, "\n".join(sign.join(line) for line in lines))
    assert (only.id, only.instruction, only.problem) == ("1", "then; go, on", "")


def test_the_delimiter_of_a_csv_can_be_said(folder: Path) -> None:
    content = "id:instruction:image\n1:a,b:a.png\n"
    assert table(folder, content, delimiter=":")[0].instruction == "a,b"
    assert table(folder, content.replace(":", "\t"), delimiter="tab")[0].instruction == "a,b"
    with pytest.raises(UserError, match=r"'data.delimiter' is '::'; it must be one character"):
        table(folder, content, delimiter="::")


CHINESE = "id,instruction,image\n" + "".join(f"{n},把图里的天空变成夜晚,a.png\n" for n in range(3))


@pytest.mark.parametrize(
    ("encoding", "mend"), [("utf-16", "utf-16"), ("utf-16-le", "utf-16"), ("gbk", "gb18030"), ("gb18030", "gb18030")]
)
def test_another_encoding_is_named_with_the_mend_and_read_when_said(encoding: str, mend: str, folder: Path) -> None:
    with pytest.raises(UserError, match=f"isn't UTF-8.*data.encoding={mend}"):
        table(folder, CHINESE.encode(encoding))
    assert table(folder, CHINESE.encode(encoding), encoding=encoding)[0].instruction == "把图里的天空变成夜晚"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "gb18030"])
def test_a_byte_order_mark_is_no_part_of_the_text(encoding: str, folder: Path) -> None:
    assert len(table(folder, ("\ufeff" + CHINESE).encode(encoding), encoding=encoding)) == 3


def test_broken_utf8_is_taken_for_no_other_encoding(folder: Path) -> None:
    broken = CHINESE.encode().replace("天".encode(), "天".encode()[:2], 1)
    assert [bool(item.problem) for item in table(folder, broken)] == [True, False, False]
    for bad in (b"\xe6\x94", b"\xc3", b"\xe9l", b"\x80", b"\xed\xa0\x80"):
        assert table(folder, b"id,instruction,image\n1,x" + bad + b",a.png\n2,x,a.png\n")[0].problem


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (gzip.compress(b"id,instruction,image\n" * 9, mtime=0), "an archive, or a packed file; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a git-lfs pointer; fetch"),
        (b"<!DOCTYPE html><html>404</html>", "an HTML page; the download went wrong"),
    ],
    ids=["packed", "pointer", "page"],
)
def test_what_is_no_table_at_all_is_named(content: bytes, says: str, folder: Path) -> None:
    for read in (table, jsonl):
        with pytest.raises(UserError, match=f"it is no text but {says}"):
            read(folder, content)


def test_an_unknown_encoding_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"'data.encoding': no encoding 'utf-61'"):
        table(folder, CHINESE, encoding="utf-61")


def test_a_json_list_is_no_jsonl(folder: Path) -> None:
    with pytest.raises(UserError, match="list"):
        jsonl(folder, [row()])
    with pytest.raises(UserError, match="a JSON list is no JSONL"):
        jsonl(folder, b"[\n{}\n]")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no samples"),
        ("id,instruction,image\n", "no samples"),
        ("id:instruction:image\n1:x:a.png\n", r"no field 'id'.*id:instruction:image"),
        ("id,image,instruction,image\n1,a.png,x,a.png\n", "'image' stands twice"),
        ('id,instruction,image\n1,"x"y,a.png\n', r"bench.csv:2: not CSV"),
    ],
)
def test_a_csv_that_is_none_is_one_clear_line(content: str, says: str, folder: Path) -> None:
    with pytest.raises(UserError, match=says):
        table(folder, content)
