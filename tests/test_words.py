"""What is typed means what it says, in a word `key=value` and in a YAML file: text stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_bench.config import Config, config_hash, differences, dump, load_config, with_environment
from slurm_bench.errors import UserError

BASE = ["editor.class_path=tests.plugins.Tint", "scorers.s.class_path=tests.plugins.Brightness"]


def said(*words: str) -> Config:
    return load_config(None, [*BASE, *words])


def refusal(*words: str, file: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_config(file, [*(BASE if file is None else []), *words])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def from_file(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "my.yaml"
    file.write_text(text, encoding="utf-8")
    return load_config(file, [] if "editor:" in text else BASE)


def again(tmp_path: Path, config: Config) -> Config:
    """What a job reads of it."""
    return from_file(tmp_path, dump(config))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" ", " "),
        ("", ""),
        ("blurry #1 low", "blurry #1 low"),
        ("bad: blurry", "bad: blurry"),
        ("no", "no"),
        ("~", "~"),
        ("2026-12-01", "2026-12-01"),
        ("12:00:00", "12:00:00"),
        ("0012", "0012"),
        ("1_0", "1_0"),
        ("???", "???"),
        ("{blurry}", "{blurry}"),
        ("[blurry", "[blurry"),
        ('"SALE" sign', '"SALE" sign'),
        ("two\nlines", "two\nlines"),
        ("c:\\new", "c:\\new"),
        ("[" * 5000 + "]" * 5000, "[" * 5000 + "]" * 5000),
        ("'5'", "5"),
        ('"[a]"', "[a]"),
        ("5", 5),
        ("-0.5", -0.5),
        ("1e6", 1e6),
        ("1e-1", 0.1),
        ("true", True),
        ("null", None),
        ("[a, 1, {b: 2}]", ["a", 1, {"b": 2}]),
        ("{scale: 0.5}", {"scale": 0.5}),
    ],
)
def test_a_parameter_is_text_unless_it_plainly_is_something_else(tmp_path: Path, text: str, value: Any) -> None:
    config = said(f"editor.params.p={text}")
    assert config.editor.params["p"] == value
    assert type(config.editor.params["p"]) is type(value)
    assert again(tmp_path, config) == config


@pytest.mark.parametrize(
    "text",
    [
        "echo start: now",
        "run #5",
        "[a|b]",
        "[n1,n2]",
        "2026-12-01T10:00:00",
        "0012",
        "1e6",
        "no",
        " ",
        "x=${HOME}",
        "{a}",
    ],
)
def test_an_option_of_slurm_is_the_text_that_was_typed(tmp_path: Path, text: str) -> None:
    config = said(f"slurm.comment={text}", f"score_slurm.setup={text}")
    assert (config.slurm, config.score_slurm) == ({"comment": text}, {"setup": text})
    assert again(tmp_path, config) == config


def test_a_flag_of_slurm_is_true_or_false_and_null_takes_an_option_out(tmp_path: Path) -> None:
    config = said("slurm.exclusive=false", "slurm.requeue=true", "slurm.time=90", "slurm.time=null")
    assert config.slurm == {"exclusive": False, "requeue": True, "time": None}
    assert again(tmp_path, config) == config


def test_in_a_file_slurms_options_may_be_written_as_yaml_has_them(tmp_path: Path) -> None:
    config = from_file(
        tmp_path,
        "slurm:\n  setup: [module load a, 'echo b: c']\n  srun-args: [--a=1, --b]\n  exclude: [n1, n2]\n"
        "  begin: 2026-12-01\n  time: 12:00:00\n  account: 0012\n  cpus_per_task: 8\n"
        "  constraint: '[a|b]'\n  exclusive: false\n  qos:\n",
    )
    assert config.slurm == {
        "setup": ["module load a", "echo b: c"],
        "srun-args": ["--a=1", "--b"],
        "exclude": "n1,n2",
        "begin": "2026-12-01",
        "time": "12:00:00",
        "account": "0012",
        "cpus_per_task": "8",
        "constraint": "[a|b]",
        "exclusive": False,
        "qos": None,
    }
    for one_text in ("constraint: [a|b]", "python: [apptainer, exec]", "comment: [a, b]", "exclude: {a: b}"):
        with pytest.raises(
            UserError, match=rf"'slurm\.{one_text.split(':')[0]}': (a list|names with values) where a text"
        ):
            from_file(tmp_path, f"slurm: {{{one_text}}}")


def test_names_in_the_data_are_text_in_words_and_files(tmp_path: Path) -> None:
    words = ["data.fields.id=no", "data.fields.image=1e3", "data.categories=[no, 1]", "data.reader=null"]
    text = "data: {fields: {id: no, image: 1e3}, categories: [no, 1], reader: null}"
    for config in (said(*words), from_file(tmp_path, text)):
        assert config.data.fields == {"id": "no", "image": "1e3"}
        assert config.data.categories == ["no", "1"]
        assert config.data.reader == "null"


def test_one_category_needs_no_list_and_a_class_no_mapping(tmp_path: Path) -> None:
    assert said("data.categories=physical").data.categories == ["physical"]
    config = from_file(tmp_path, "editor: tests.plugins.Tint\nscorers: {s: tests.plugins.Brightness}")
    assert (config.editor.class_path, config.scorers["s"].class_path) == (
        "tests.plugins.Tint",
        "tests.plugins.Brightness",
    )


def test_null_takes_away_what_was_said_before(tmp_path: Path) -> None:
    config = said(
        "scorers.t=m.T", "scorers.s=null", "editor.params.a=1", "editor.params=null", "slurm.x=1", "slurm=null"
    )
    assert list(config.scorers) == ["t"]
    assert (config.editor.params, config.slurm) == ({}, {})
    assert "scorers' is empty" in refusal("scorers.s=null")
    assert "'scorers.judge=null': no scorer 'judge'" in refusal("scorers.judge=null")


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("scorers=[a]", ["'scorers'", "a list", "scorers: {judge:"]),
        ("slurm=3", ["'slurm'", "slurm: {partition: h100}"]),
        ("editor.params=3", ["'editor.params'"]),
        ("gpus=2.5", ["'gpus'", "whole number"]),
        ("gpus=true", ["'gpus'", "whole number"]),
        ("strict=3", ["'strict'", "neither true nor false"]),
        ("gpus.x=1", ["'gpus'", "nothing under it"]),
        ("slurm.gres.x=1", ["'slurm.gres'", "nothing under it"]),
        ("limit=3", ["did you mean 'data.limit'"]),
        ("editors.pilow=3", ["did you mean 'editor'"]),
        ("scorers.ss.params.delay=3", ["'scorers.ss.class_path' is not set", "did you mean 'scorers.s'"]),
        ("editor.params.p=${x}", ["'editor.params.p'", "${x} refers to no setting", r"\${x}"]),
        ("editor.params.p=${", ["'editor.params.p'", r"\${"]),
        ("editor.params.p=${foo:1}", ["'editor.params.p'", "foo"]),
        ("seed=${x}", ["'seed'", "${x}"]),
        ("data.path=${oc.env:SURELY_NOT_SET}/b.json", ["'data.path'", "SURELY_NOT_SET is not set"]),
        ("editor.params.p=" + "9" * 5000, ["'editor.params.p="]),
        ("editor.params.p=\udcff", ["not UTF-8"]),
        ("repeats=0", ["'repeats'", "at least 1"]),
    ],
)
def test_what_makes_no_sense_is_one_line_in_the_users_words(word: str, words: list[str]) -> None:
    message = refusal(word)
    for part in words:
        assert part in message
    assert len(message) < 500


@pytest.mark.parametrize(
    "text",
    [
        "scorers: [x.Y]",
        "a: &a [*a]",
        "editor: {params: &a {x: *a}}",
        "data: [1]",
        "[" * 3000,
        "gpus: 1\n---\ngpus: 2",
        "5",
    ],
)
def test_a_file_that_makes_no_sense_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "my.yaml").write_text(text)
    assert "my.yaml" in refusal(file=tmp_path / "my.yaml")


def test_what_is_not_yaml_is_told_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("gpus: 1\nslurm: {time: 1\n")
    assert "my.yaml: not YAML: line 3: expected ',' or '}'" in refusal(file=tmp_path / "my.yaml")


def test_a_file_may_repeat_itself_by_an_anchor(tmp_path: Path) -> None:
    text = "scorers:\n  a: &a {class_path: m.S, params: {x: 1}}\n  b: {<<: *a, params: {x: 2}}\neditor: m.E\n"
    assert [s.params for s in from_file(tmp_path, text).scorers.values()] == [{"x": 1}, {"x": 2}]


def test_a_reference_is_resolved_once_and_a_literal_stays_one(tmp_path: Path) -> None:
    config = said(
        "seed=7",
        "editor.params.a=${seed}",
        "editor.params.b=n\\${seed} is ${seed}",
        "editor.params.c=\\\\${seed}",
        r"editor.params.d=\\\${seed}",
    )
    assert config.editor.params == {"a": 7, "b": "n${seed} is 7", "c": "\\7", "d": r"\${seed}"}
    reread = again(tmp_path, config)
    assert reread == config
    assert again(tmp_path, reread) == config


def test_what_the_environment_says_is_known_to_the_plug_in_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "sk-123 ${seed}")
    config = said(
        "editor.params.key=Bearer ${oc.env:MY_SECRET}",
        "editor.params.call.deep=[1, '${oc.env:MY_SECRET}']",
        "editor.params.literal=\\${oc.env:MY_SECRET}",
        "scorers.s.params.same=${editor.params.key}",
        "scorers.s.params.fallback=${oc.env:SURELY_NOT_SET,none}",
    )
    for text in (dump(config), repr(config), repr(differences(config, said()))):
        assert "sk-123" not in text
    reread = again(tmp_path, config)
    assert reread == config
    assert with_environment(reread, "editor.params") == {
        "key": "Bearer sk-123 ${seed}",
        "call": {"deep": [1, "sk-123 ${seed}"]},
        "literal": "${oc.env:MY_SECRET}",
    }
    assert with_environment(reread, "scorers.s.params") == {"same": "Bearer sk-123 ${seed}", "fallback": "none"}
    monkeypatch.setenv("MY_SECRET", "another")
    assert config_hash(said("editor.params.key=${oc.env:MY_SECRET}")) == config_hash(
        said("editor.params.key=${oc.env:MY_SECRET}")
    )
    monkeypatch.delenv("MY_SECRET")
    with pytest.raises(UserError, match=r"'editor\.params\.key': .*MY_SECRET is not set"):
        with_environment(reread, "editor.params")


def test_a_whole_plug_in_may_be_referred_to_and_changed_then(tmp_path: Path) -> None:
    judge = ("scorers.j.class_path=m.J", "scorers.j.params={x: 1, key: '${oc.env:KEY}', list: [1, 2]}")
    config = said(*judge, "scorers.again=${scorers.j}", "scorers.other=${scorers.j}", "scorers.other.params.x=2")
    assert config.scorers["again"] == config.scorers["j"]
    assert config.scorers["other"].params == {**config.scorers["j"].params, "x": 2}
    assert again(tmp_path, config) == config
    text = "editor: m.E\nscorers: {j: {class_path: m.J, params: {x: 1}}, again: '${scorers.j}'}\n"
    assert from_file(tmp_path, text).scorers["again"].params == {"x": 1}
    assert "refers to no setting" in refusal("scorers.again=${scorers.nobody}")


@pytest.mark.parametrize("name", ["api_key", "hf_token", "PASSWORD"])
def test_a_secret_in_the_open_is_refused(name: str) -> None:
    message = refusal(f"scorers.s.params.{name}=sk-123")
    assert f"scorers.s.params.{name}" in message
    assert "${oc.env:" in message
    said(
        f"scorers.s.params.{name}=${{oc.env:KEY}}", "scorers.s.params.api_key_env=KEY", "scorers.s.params.max_tokens=5"
    )


texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("${}\\'\"[]:#,0 eE-.\n"), max_size=12)
values = st.recursive(
    texts | st.booleans() | st.none() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40)
@given(params=st.dictionaries(texts, values, max_size=3), option=texts, name=texts)
def test_what_was_dumped_loads_as_the_same_whatever_it_is(
    tmp_path_factory: pytest.TempPathFactory, params: dict[str, Any], option: str, name: str
) -> None:
    config = said()
    config.editor.params, config.slurm, config.data.fields = params, {"comment": option}, {"id": name}
    assert again(tmp_path_factory.mktemp("words"), config) == config


@settings(max_examples=40)
@given(text=texts)
def test_a_word_is_a_value_or_one_line(text: str) -> None:
    for key in ("editor.params.p", "slurm.comment", "data.fields.id", "gpus", "data.categories"):
        try:
            config = said(f"{key}={text}")
        except UserError as error:
            assert str(error).isprintable()  # noqa: PT017
        else:
            if key == "data.fields.id":
                assert config.data.fields["id"] == text
