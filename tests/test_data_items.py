"""What every reader's items go through: filter, limit, ids, problems; and readers of the user's own."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import images, launch, make_benchmark, make_config
from hypothesis import given as given_text
from hypothesis import strategies as st
from PIL import Image

from slurm_bench.config import DataConfig, load_config
from slurm_bench.data import read_items
from slurm_bench.data.categories import rubric_lines
from slurm_bench.data.checks import checked
from slurm_bench.data.item import Item
from slurm_bench.data.text import printable
from slurm_bench.errors import UserError
from slurm_bench.run.layout import RunDir
from slurm_bench.run.plan import Plan

PLUGINS = (
    "editor.class_path=slurm_bench.editors.pillow.PillowEditor",
    "scorers.metrics.class_path=slurm_bench.scorers.metrics.ReferenceMetrics",
)

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


def failing(data: Any) -> Iterator[Any]:
    """A user's own reader with a fault in its second item."""
    yield {"id": 1, "instruction": "edit", "source": PNG}
    raise ZeroDivisionError("of\nmine")


def with_options(data: Any) -> Iterator[Any]:
    yield {"id": data.options["split"], "instruction": "edit", "source": PNG}


def without_arguments() -> None:
    """Not what a reader is."""


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
        ("geditbench2", "did you mean 'gedit2'"),
        ("nothing_like_it", "five_category"),
        ("no.such.module", "no.such"),
        (f"{__name__}.givn", "did you mean 'given'"),
        (f"{__name__}.NOT_A_READER", "not a function"),
    ],
)
def test_an_unknown_reader_names_the_nearest(reader: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        list(read_items(DataConfig(reader=reader)))


@pytest.mark.parametrize(
    ("reader", "says"),
    [
        (
            "failing",
            r"'test_data_items.failing' failed after 1 items: ZeroDivisionError: of mine \(.*test_data_items.py:\d+\)",
        ),
        ("without_arguments", "failed after 0 items: TypeError"),
    ],
)
def test_any_exception_of_a_reader_is_one_line_that_names_the_place(reader: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        list(read_items(DataConfig(reader=f"{__name__}.{reader}")))
    assert "\n" not in str(caught.value)


def test_a_reader_of_ones_own_takes_options() -> None:
    config = load_config(None, [f"data.reader={__name__}.with_options", "data.options.split=train", *PLUGINS])
    assert [i.id for i in read_items(config.data)] == ["train"]


def test_an_image_file_that_is_absent_or_cut_is_named_but_not_planned(tmp_path: Path) -> None:
    """What lies on storage may be mended; what lies in the data can't be."""
    absent, cut = tmp_path / "absent.png", tmp_path / "cut.png"
    cut.write_bytes(PNG[:-20])
    kept = read(
        item("absent", source=absent),
        item("cut", source=(PNG, cut)),
        item("reference", reference=absent),
        item("mask", mask=absent),
        item("bytes", source=PNG[:-20]),
        item("masked", mask=PNG[:-20]),
        item("both", source=absent, instruction=""),
        item("said", source=absent, problem="the reader's own"),
        item("good"),
    )
    assert {i.id: i.on_storage for i in kept if i.problem} == {
        "absent": True, "cut": True, "reference": True, "mask": True,
        "bytes": False, "masked": False, "both": False, "said": False,
    }  # fmt: skip
    run = RunDir(tmp_path / "run")
    run.root.mkdir()
    plan = Plan(run)
    plan.add(kept, 0)
    assert [s.id for s in plan.freeze() if s.problem] == ["bytes", "masked", "both", "said"]
    assert next(i.problem for i in kept if i.id == "mask").startswith("mask: ")


def test_an_image_that_comes_later_is_edited_by_resubmit(tmp_path: Path) -> None:
    data = make_benchmark(tmp_path / "bench", 2)
    late = tmp_path / "bench" / "1.png"
    image = late.read_bytes()
    late.unlink()
    run = tmp_path / "run"
    done = launch("--config", make_config(tmp_path / "c.yaml", data), "--run-dir", run, "--executor", "debug")
    assert done.returncode == 3, done.stderr
    assert "1.png: no such file" in done.stderr
    late.write_bytes(image)
    done = launch("resubmit", run, "--executor", "debug")
    assert done.returncode == 0, done.stderr
    assert sorted(images(run)) == ["s-0", "s-1"]


def test_items_stay_in_order_whatever_their_images_take(tmp_path: Path) -> None:
    ids = [str(n) for n in range(100)]
    for n in ids:
        (tmp_path / f"{n}.png").write_bytes(PNG + bytes(100_000 if int(n) % 7 == 0 else 0))
    assert [i.id for i in read(*(item(n, source=tmp_path / f"{n}.png") for n in ids))] == ids


def test_of_a_long_reading_progress_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("slurm_bench.data.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    read(*(item(n) for n in range(5)))
    assert " read, " in capsys.readouterr().err


def test_a_category_has_one_spelling() -> None:
    names = ["Physical", "物理", " physical ", "Cultural", "Text  Change", "text change", "TEXT CHANGE ", "风格"]
    kept = read(*(item(n, name) for n, name in enumerate(names)))
    assert [i.category for i in kept] == [*["physical"] * 3, "social", *["Text Change"] * 3, "风格"]
    assert [i.category for i in read(*(item(n, name) for n, name in enumerate(names)), categories=["text change"])] == [
        "Text Change"
    ] * 3


def test_a_turn_may_name_the_one_before_as_pandas_writes_a_column_with_gaps() -> None:
    first, second, third = read(item(1), item(2, source=None, follows="1.0"), item(3, source=None, follows=2.5))
    assert (second.follows, second.problem) == ("1", "")
    assert "it follows '2.5', which isn't before it" in third.problem
    assert not first.follows


def test_a_whole_number_is_the_same_text_however_it_is_kept() -> None:
    """As 2.0 by pandas, where a column has gaps. The text "2.0" is the author's own."""
    kept = read(item(1.0, 2.0), item("2.0", "2"), item(1.5), item(2.0**60))  # type: ignore[arg-type]
    assert [i.id for i in kept] == ["1", "2.0", "1.5", str(2.0**60)]
    assert [i.category for i in kept[:2]] == ["2", "2"]


def test_a_number_is_a_categorys_name_too() -> None:
    kept = read(item("a", 1), item("b", "2"), item("c", "1"), categories=["1"])  # type: ignore[arg-type]
    assert [(i.id, i.category) for i in kept] == [("a", "1"), ("c", "1")]


def test_what_has_no_category_can_be_chosen_by_what_it_is_counted_under() -> None:
    assert [i.id for i in read(item("a", ""), item("b", "x"), categories=["uncategorised"])] == ["a"]
    with pytest.raises(UserError, match="there are: uncategorised, x"):
        read(item("a", ""), item("b", "x"), categories=["y"])


def test_an_accents_two_spellings_are_one_category() -> None:
    kept = read(item("a", "caf\u00e9"), item("b", "cafe\u0301"))
    assert {i.category for i in kept} == {"caf\u00e9"}


def test_what_is_judged_by_which_rubric_is_told_and_near_misses_are_named() -> None:
    counts = {"physical": 12, "phisical": 1, "Text Change": 2, "other": 3}
    lines = rubric_lines(counts, ["physical", "text change", "causal", "default"])
    assert lines == [
        "Text Change: 2 samples, rubric 'text change'",
        "other: 3 samples, rubric 'default'",
        "phisical: 1 sample, rubric 'default'",
        "physical: 12 samples, rubric 'physical'",
        "category 'phisical' has no rubric of its own; is it 'physical', mistyped?",
        "rubrics that no sample needs: causal",
    ]
    assert rubric_lines({"text change": 1}, ["text chagne", "default"])[1:] == [
        "category 'text change' has no rubric of its own; is it 'text chagne', mistyped?"
    ]


@given_text(
    st.lists(st.text(st.sampled_from("a\\nrtxu01\n\r\t\0\x1b\x9b\u2028\u202e"), max_size=6), min_size=2, max_size=2)
)
def test_printable_text_has_no_control_characters_and_stays_distinct(texts: list[str]) -> None:
    safe = [printable(text) for text in texts]
    assert all(text.isprintable() for text in safe)
    assert (safe[0] == safe[1]) == (texts[0] == texts[1])


@pytest.mark.parametrize("text", ["物理　1", "a/b", "C:\\pics", "é 👩‍👩‍👧", ""])
def test_ordinary_text_is_printable_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_a_problem_that_a_reader_says_to_lie_on_storage_does() -> None:
    """Such a sample is named at launch, and not planned with it: its file may be there by the time it is read."""
    item = checked(Item("a", "c", "do", Path("/x.png"), problem="not downloaded yet", on_storage=True), "item 1")
    assert (item.problem, item.on_storage) == ("not downloaded yet", True)
