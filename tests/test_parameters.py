"""What a plug-in gets is what its `__init__` says that it takes; all else is one line, before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Optional

import pytest

from slurm_bench.config import Config, load_config
from slurm_bench.errors import UserError
from slurm_bench.importing import blame, import_name
from slurm_bench.logs import keep_secret
from slurm_bench.plugins import check_plugins, make_editor, with_absolute_paths
from slurm_bench.report.table import check_headline

if TYPE_CHECKING:
    from nowhere import Unknown

BUNDLED = {
    "pillow": "editor.class_path=slurm_bench.editors.pillow.PillowEditor",
    "qwen": "editor.class_path=slurm_bench.editors.qwen.QwenImageEditor",
    "diffusers": "editor.class_path=slurm_bench.editors.diffusers_pipeline.DiffusersEditor",
    "metrics": "scorers.judge.class_path=slurm_bench.scorers.metrics.ReferenceMetrics",
    "qwen3vl": "scorers.judge.class_path=slurm_bench.scorers.qwen3vl.Qwen3VLScorer",
    "server": "scorers.judge.class_path=slurm_bench.scorers.server.OpenAIScorer",
}
SERVER = ["scorers.judge.params.base_url=http://localhost:1/v1", "scorers.judge.params.model=m"]


class Takes:
    """An editor that shows what it was given."""

    def __init__(
        self,
        whole: int = 0,
        number: float | None = None,
        truth: bool = False,
        text: str = "",
        names: Sequence[str] = (),
        pair: tuple[int, int] = (0, 0),
        table: Mapping[str, float] | None = None,
        either: str | dict[str, Any] | None = None,
        choice: Literal["a", "b"] = "a",
        maybe: Optional[int] = None,  # noqa: UP045 (what users write)
        implicit: int = None,  # type: ignore[assignment]  # noqa: RUF013
        unknown: Unknown = None,
        free=None,
    ) -> None:
        self.given = {name: value for name, value in locals().items() if name != "self"}

    def edit(self, batch: Any) -> Any:
        return batch


class Open:
    def __init__(self, **options: int) -> None:
        self.options = options

    def edit(self, batch: Any) -> Any:
        return batch


class Faulty:
    """Fails where it is told to, in its own words."""

    def __init__(self, where: str) -> None:
        self.where = where
        if where == "init":
            raise KeyError("first\nsecond")
        if where == "exit":
            raise SystemExit("please set FOO")
        if where == "params":
            raise UserError("'editor.params.where' is wrong,\nvery")

    def check(self) -> None:
        if self.where == "check":
            [][0]

    def edit(self, batch: Any) -> Any:
        return batch

    score = edit


def configured(*words: str) -> Config:
    base = ["editor.class_path=test_parameters.Takes", "scorers.s.class_path=tests.plugins.Brightness"]
    return load_config(None, [*base, *words])


def refused(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        check_plugins(configured(*words))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("whole=3", 3),
        ("whole=1e6", 1_000_000),
        ("number=3", 3),
        ("number=0.5", 0.5),
        ("number=null", None),
        ("truth=true", True),
        ("truth=yes", True),
        ("text=blurry #1", "blurry #1"),
        ("text=1234567", "1234567"),
        ("names=[a, b]", ["a", "b"]),
        ("names=a", "a"),
        ("pair=[1, 2]", (1, 2)),
        ("table={a: 1}", {"a": 1}),
        ("either=lightning", "lightning"),
        ("either={shift: 3}", {"shift": 3}),
        ("choice=b", "b"),
        ("maybe=2", 2),
        ("implicit=null", None),
        ("unknown=[whatever]", ["whatever"]),
        ("free={x: [1]}", {"x": [1]}),
    ],
)
def test_a_parameter_of_the_right_type_reaches_the_plug_in(word: str, value: Any) -> None:
    given = make_editor(configured(f"editor.params.{word}")).given[word.partition("=")[0]]
    assert given == value
    assert type(given) is type(value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("whole=half", "'half'; it must be a whole number"),
        ("whole=2.5", "2.5; it must be a whole number"),
        ("whole=true", "true; it must be a whole number"),
        ("whole=null", "null; it must be a whole number"),
        ("number=abc", "'abc'; it must be a number or null"),
        ("truth=3", "3; it must be true or false"),
        ("text=0.5", "0.5; it must be a text"),
        ("text=[a]", "['a']; it must be a text"),
        ("names=[a, 0.5]", "['a', 0.5]; it must be a list, each part a text"),
        ("pair=[1]", "[1]; it must be a list"),
        ("table={a: b}", "{'a': 'b'}; it must be names with values or null"),
        ("either=[a]", "['a']; it must be a text or names with values or null"),
        ("choice=c", "'c'; it must be one of a, b"),
    ],
)
def test_a_parameter_of_another_type_is_refused_under_the_key_that_was_typed(word: str, said: str) -> None:
    assert f"'editor.params.{word.partition('=')[0]}' is {said}" in refused(f"editor.params.{word}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([BUNDLED["pillow"], "editor.params.strength=half"], "'editor.params.strength' is 'half'"),
        ([BUNDLED["pillow"], "editor.params.strength=2"], "'editor.params.strength' is 2;"),
        ([BUNDLED["pillow"], "editor.params.model_name=a"], "known: delay, strength. editor.params=null takes out"),
        ([BUNDLED["qwen"]], "'editor.params.model_name' is not set"),
        (
            [BUNDLED["qwen"], "editor.params.model_name=a/b", "editor.params.max_pixels=half"],
            "'editor.params.max_pixels'",
        ),
        ([BUNDLED["qwen"], "editor.params.model_name=a/b", "editor.params.num_inference_steps=2.5"], "2.5; it must be"),
        (
            [BUNDLED["diffusers"], "editor.params.model_name=a/b", "editor.params.pipeline=3.5"],
            "'editor.params.pipeline'",
        ),
        ([BUNDLED["metrics"], "scorers.judge.params.threshold=abc"], "'scorers.judge.params.threshold' is 'abc'"),
        ([BUNDLED["metrics"], "scorers.judge.params.threshold=300"], "'scorers.judge.params.threshold' is 300"),
        (
            [BUNDLED["qwen3vl"], "scorers.judge.params.model_name=a/b", "scorers.judge.params.retries=x"],
            "params.retries'",
        ),
        ([BUNDLED["server"], *SERVER, "scorers.judge.params.timeout=soon"], "'scorers.judge.params.timeout' is 'soon'"),
        ([BUNDLED["server"], *SERVER, "scorers.judge.params.timeout=-1"], "'scorers.judge.params.timeout' is -1"),
        ([BUNDLED["server"], *SERVER, "scorers.judge.params.tiemout=1"], "did you mean 'timeout'"),
    ],
)
def test_bundled_plug_ins_name_the_key_as_it_was_typed(words: list[str], said: str) -> None:
    assert said in refused(*words)


def test_any_name_is_taken_where_the_plug_in_takes_any() -> None:
    assert make_editor(configured("editor.class_path=test_parameters.Open", "editor.params.x=1")).options == {"x": 1}
    assert "'editor.params.x' is 'a'" in refused("editor.class_path=test_parameters.Open", "editor.params.x=a")


def test_a_value_of_the_environment_is_not_echoed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "sk-123")
    assert make_editor(configured("editor.params.text=${oc.env:MY_SECRET}")).given["text"] == "sk-123"
    message = refused("editor.params.whole=${oc.env:MY_SECRET}")
    assert "${oc.env:MY_SECRET}" in message
    assert "sk-123" not in message


@pytest.mark.parametrize("key", ["editor", "scorers.s"])
@pytest.mark.parametrize(
    ("where", "said"), [("init", "KeyError: 'first"), ("exit", "SystemExit: please set FOO"), ("check", "IndexError")]
)
def test_what_a_plug_in_raises_is_one_line_with_the_place_and_a_traceback_in_a_file(
    key: str, where: str, said: str
) -> None:
    message = refused(f"{key}.class_path=test_parameters.Faulty", f"{key}.params.where={where}")
    assert message.startswith(f"'{key}': test_parameters.Faulty: {said}")
    assert "test_parameters.py:" in message
    log = Path(message.rpartition("traceback in ")[2])
    assert "Traceback" in log.read_text()
    log.unlink()


def test_a_kept_traceback_takes_any_character_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slurm_bench.logs._secrets", {})
    keep_secret("correct-horse", "MY_KEY")
    log = Path(blame(ValueError("no file \udcff for correct-horse"), "x").rpartition("traceback in ")[2])
    assert log.read_text().rstrip().endswith(r"no file \udcff for <MY_KEY>")
    log.unlink()


def test_a_plug_ins_own_refusal_gets_the_key_that_was_typed() -> None:
    message = refused("scorers.s.class_path=test_parameters.Faulty", "scorers.s.params.where=params")
    assert message == "'scorers.s.params.where' is wrong, very"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("slurm_bench.editors.pilow.PillowEditor", "did you mean 'slurm_bench.editors.pillow'"),
        ("slurm_bench.editers.pillow.PillowEditor", "did you mean 'slurm_bench.editors'"),
        ("mien.Editor", "did you mean 'mine'"),
        ("mine.Edtior", "did you mean 'Editor'"),
        (
            "slurm_bench.editors.pillow",
            "is a module, of which something is to be named: slurm_bench.editors.pillow.Name",
        ),
        ("slurm_bench.editors.pilow", "slurm_bench.editors has no 'pilow'; did you mean 'pillow'"),
        ("os.path", "os.path is a module"),
        ("os.sep", "os.sep is a str, not a function or class"),
        ("os.surely_not", "os has no 'surely_not'"),
        ("broken.Editor", "broken.py:2"),
        ("wrong.Editor", "wrong.py:1"),
        ("lacking.Editor", "No module named 'surely_not_there'"),
        (".x.Y", "not package.module.Name"),
        ("a b.Y", "not package.module.Name"),
    ],
)
def test_a_class_that_cannot_be_had_is_named_with_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, said: str
) -> None:
    (tmp_path / "mine.py").write_text("class Editor:\n    pass\n")
    (tmp_path / "broken.py").write_text("x = 1\nraise RuntimeError('no\\nway')\n")
    (tmp_path / "wrong.py").write_text("def f(:\n")
    (tmp_path / "lacking.py").write_text("import surely_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as caught:
        import_name(path, "editor.class_path")
    assert said in str(caught.value)
    assert "'editor.class_path'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["builtins.dict", "collections.OrderedDict"])
def test_a_class_that_tells_no_parameters_is_asked_what_it_can_do(path: str) -> None:
    config = load_config(None, [f"editor.class_path={path}", BUNDLED["metrics"]])
    with pytest.raises(UserError, match=f"'editor.class_path': {path} has no method 'edit'"):
        check_plugins(config)
    assert with_absolute_paths(config, None) == config


def test_a_headline_that_no_scorer_gives_is_refused_before_anything_starts() -> None:
    def check(*words: str) -> None:
        config = configured("scorers.s=null", "scorers.m=slurm_bench.scorers.metrics.ReferenceMetrics", *words)
        check_headline(config, check_plugins(config).scores)

    check("headline=similarity")
    with pytest.raises(UserError, match=r"'headline': no scorer gives 'similarty'; did you mean 'similarity'"):
        check("headline=similarty")
    two = "scorers.t=tests.plugins.Brightness"  # names none of its scores
    check("headline=m.psnr", two)
    check("headline=psnr", two)
    check("headline=t.whatever", two)
    check("headline=whatever", two)
    with pytest.raises(UserError, match=r"no scorer gives 'u\.whatever'"):
        check("headline=u.whatever", two)
    with pytest.raises(UserError, match=r"'m\.psnt'; did you mean 'm\.psnr'"):
        check("headline=m.psnt", two)
