"""What every reader's items go through: filter, limit, ids, problems; and readers of the user's own."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from slurm_bench.config import DataConfig
from slurm_bench.data import read_items
from slurm_bench.data.item import Item
from slurm_bench.errors import UserError

_buffer = io.BytesIO()
Image.new("RGB", (16, 16), "teal").save(_buffer, "PNG")
PNG = _buffer.getvalue()

GIVEN: list[Any] = []
READ: list[int] = []


def given(data: Any) -> Iterator[Any]:
    """A user's own reader: what the test laid into GIVEN, noting how far it was read."""
    for position, item in enumerate(GIVEN):
        READ.append(position)
        yield item


NOT_A_READER = 7


def read(*items: Any, **options: Any) -> list[Item]:
    GIVEN[:] = items
    READ.clear()
    return list(read_items(DataConfig(reader=f"{__name__}.given", **options)))


def item(id: Any, category: str = "physical", **more: Any) -> Item:
    return Item(**{"id": id, "category": category, "instruction": "edit", "source": PNG, **more})


@pytest.mark.parametrize(
    "id", ["a/b", "..", "/etc/passwd", "nul\0here", "n" * 300, '"quoted"', "=1+1", "a\nb", "物理 1", "-"]
)
def test_any_id_is_kept_as_it_is(id: str) -> None:
    assert [i.id for i in read(item(id))] == [id]


def test_numbers_are_ids() -> None:
    assert [i.id for i in read(item(7), item(7.5))] == ["7", "7.5"]


@pytest.mark.parametrize("id", [None, "", "  ", ["a"], {"a": 1}, True, b"x"])
def test_no_id_is_the_files_fault_and_names_the_place(id: Any) -> None:
    with pytest.raises(UserError, match=r"item 2.*id.*fields there"):
        read(item("a"), item(id))


def test_a_dict_will_do_and_a_wrong_name_in_it_is_told() -> None:
    (only,) = read({"id": 1, "instruction": "edit", "source": PNG})
    assert (only.id, only.category, only.problem) == ("1", "all", "")
    with pytest.raises(UserError, match="instruction"):
        read({"id": 1, "instructions": "edit", "source": PNG})
    with pytest.raises(UserError, match=r"item 1.*no id.*instruction, source"):
        read({"instruction": "edit", "source": PNG})
    with pytest.raises(UserError, match="gave a str"):
        read("a")


def test_repeated_ids_are_refused_with_both_places() -> None:
    with pytest.raises(UserError, match=r"items 1 and 3 have the same id 'a'"):
        read(item("a"), item("b"), item("a"))


def test_a_repeated_long_id_is_shortened_and_printable() -> None:
    with pytest.raises(UserError) as caught:
        read(item("\0\n" * 5000), item("\0\n" * 5000))
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_ids_that_the_filter_leaves_out_may_repeat() -> None:
    assert len(read(item("a", "causal"), item("a", "physical"), categories=["physical"])) == 1


def test_ids_that_broken_bytes_made_alike_hurt_nobody() -> None:
    kept = read(item("\ufffd"), item("\ufffd"), item("good"))
    assert len({i.id for i in kept}) == 3
    assert [bool(i.problem) for i in kept] == [True, True, False]


@pytest.mark.parametrize("name", ["physical", "PHYSICAL", " 物理 "])
def test_the_filter_knows_the_other_names(name: str) -> None:
    assert [i.id for i in read(item("a", "causal"), item("b", "physical"), categories=[name])] == ["b"]


def test_social_goes_by_three_names() -> None:
    for name in ("cultural", "Social/Cultural", "社会"):
        assert len(read(item("a", "social"), item("b", "causal"), categories=[name])) == 1


@pytest.mark.parametrize("limit", [None, 1])
def test_a_filter_that_meets_nothing_names_what_there_is(limit: int | None) -> None:
    with pytest.raises(UserError, match=r"no category 'casual'; there are: causal, physical"):
        read(item("a", "causal"), item("b"), categories=["causal", "casual"], limit=limit)


def test_the_limit_counts_what_the_filter_keeps_and_ends_the_reading() -> None:
    items = [item(n, "physical" if n % 2 else "causal") for n in range(20)]
    assert [i.id for i in read(*items, categories=["physical"], limit=2)] == ["1", "3"]
    assert READ == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"instruction": ""}, "instruction is empty"),
        ({"instruction": " \n"}, "instruction is empty"),
        ({"instruction": None}, "instruction is empty"),
        ({"instruction": ["a"]}, "instruction is a list"),
        ({"instruction": "x\ud800"}, "instruction has broken UTF-8"),
        ({"description": "x\ufffd"}, "description has broken UTF-8"),
        ({"rationale": "\udc00"}, "rationale has broken UTF-8"),
        ({"id": "x\ud800"}, "id has broken UTF-8"),
        ({"source": None}, "no source"),
        ({"source": ()}, "no source"),
        ({"source": ""}, "no source"),
        ({"source": 5}, "is a int"),
        ({"source": b"no image"}, "not an image"),
        ({"source": Path("/nowhere/x.png")}, "no such file"),
        ({"source": (PNG, b"")}, "not an image"),
        ({"reference": Path("/nowhere/x.png")}, "reference: "),
        ({"problem": "said\nso"}, "said so"),
    ],
)
def test_a_bad_sample_is_named_and_hurts_no_other(bad: dict[str, Any], says: str) -> None:
    before, broken, after = read(item("a"), item(**{"id": "b", **bad}), item("c"))
    assert says in broken.problem
    assert (before.problem, after.problem) == ("", "")
    for text in (broken.id, broken.instruction, broken.description, broken.rationale, broken.problem):
        text.encode()


def test_good_text_passes_unchanged() -> None:
    (only,) = read(item("a", instruction=" 把它变红 \U0001f600 ", description=3, rationale=float("nan")))
    assert (only.instruction, only.description, only.rationale) == (" 把它变红 \U0001f600 ", "3", "")


def test_many_sources_stay_in_order() -> None:
    (only,) = read(item("a", source=[PNG, PNG + b" "]))
    assert only.source == (PNG, PNG + b" ")


def test_nothing_that_can_be_edited_is_refused_with_the_first_reason() -> None:
    with pytest.raises(UserError, match=r"no sample of 2.*item 1 \('a'\): the instruction is empty"):
        read(item("a", instruction=""), item("b", instruction=""))
    with pytest.raises(UserError, match="no samples"):
        read()


@pytest.mark.parametrize(
    ("reader", "says"),
    [
        ("jsnol", "did you mean 'jsonl'"),
        ("nothing_like_it", "five_category"),
        ("no.such.module", "no.such"),
        (f"{__name__}.givn", "did you mean 'given'"),
        (f"{__name__}.NOT_A_READER", "not a function"),
    ],
)
def test_an_unknown_reader_names_the_nearest(reader: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        list(read_items(DataConfig(reader=reader)))
