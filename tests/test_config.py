"""Bad input gets one line that names the file, the key and the nearest right name, before anything starts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers import REPO, launch, make_benchmark, make_config, run_dir
from plugins import Tint

from slurm_bench.config import Config, config_hash, differences, dump, load_config
from slurm_bench.data.item import Item
from slurm_bench.errors import UserError
from slurm_bench.plugins import check_plugins
from slurm_bench.run.create import create_run, new_run_dir, store
from slurm_bench.run.records import read_records
from slurm_bench.scorers.base import ScoreRequest


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "my.yaml"
    scorers = "" if "scorers:" in text else "scorers: {s: {class_path: tests.plugins.Brightness}}\n"
    file.write_text("editor: {class_path: tests.plugins.Tint}\n" + scorers + text)
    return file


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gpu: 3", ["my.yaml", "'gpu'", "'gpus'"]),
        ("partition: h100", ["'partition'", "did you mean 'slurm.partition'"]),
        ("run_dir: runs/a", ["'run_dir'", "an option, --run-dir"]),
        ("data: {raeder: jsonl}", ["my.yaml", "data.raeder", "'reader'"]),
        ("scorers: {s: {classpath: x}}", ["scorers.s.classpath", "'class_path'"]),
        ("gpus: many", ["my.yaml", "gpus"]),
        ("gpus: 0", ["gpus", "at least 1"]),
        ("retries: -1", ["retries", "at least 0"]),
        ("data: {limit: 0}", ["data.limit"]),
        ("gpus: 1\ngpus: 2", ["my.yaml", "'gpus'", "twice"]),
        ("gpus: [", ["my.yaml", "not YAML"]),
        ("data: {path: nowhere.json}", ["data.path", "nowhere.json"]),
        ("scorers: {'a b': {class_path: x.Y}}", ["scorers.a b"]),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(("encoding", "said"), [("utf-16", "but UTF-16"), ("gb18030", "in line 3"), ("utf-8-sig", "")])
def test_a_file_in_another_encoding_is_refused_with_the_mend(tmp_path: Path, encoding: str, said: str) -> None:
    file = write(tmp_path, "# 物理")
    file.write_text(file.read_text("utf-8"), encoding=encoding)
    if not said:
        assert load_config(file) == load_config(write(tmp_path, ""))
        return
    with pytest.raises(UserError, match=rf"my\.yaml: it isn't UTF-8 {said}; save it as UTF-8"):
        load_config(file)


def test_a_missing_file_names_the_ones_there(tmp_path: Path) -> None:
    write(tmp_path, "")
    with pytest.raises(UserError, match=r"did you mean 'my\.yaml'"):
        load_config(tmp_path / "mine.yaml")


def test_words_win_over_the_file(tmp_path: Path) -> None:
    words = ["gpus=5", "editor.params.steps=28", "data.categories=[physical,causal]", "data.limit=null"]
    config = load_config(write(tmp_path, "gpus: 3"), words)
    assert config.gpus == 5
    assert config.editor.params == {"steps": 28}
    assert config.data.categories == ["physical", "causal"]


@pytest.mark.parametrize("text", ["12:00:00", "04:00:00", "1-12:00:00", "90"])
def test_a_time_is_not_read_as_a_number_in_base_60(tmp_path: Path, text: str) -> None:
    assert load_config(write(tmp_path, ""), [f"slurm.time={text}"]).slurm["time"] == text
    assert str(load_config(write(tmp_path, f"slurm: {{time: {text}}}")).slurm["time"]) == text


def test_an_account_with_leading_zeros_stays_as_typed(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, ""), ["slurm.account=0012"]).slurm["account"] == "0012"


def test_what_was_dumped_loads_as_the_same(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "slurm: {time: '12:00:00', account: '0012'}\nseed: 7"))
    (tmp_path / "again.yaml").write_text(dump(config))
    again = load_config(tmp_path / "again.yaml")
    assert again == config
    assert config_hash(again) == config_hash(config)


def test_only_what_decides_the_results_counts_as_a_difference(tmp_path: Path) -> None:
    file = write(tmp_path, "")
    config = load_config(file)
    assert differences(config, load_config(file, ["gpus=9", "slurm.qos=x", "retries=0", "batch_size=4"])) == []
    assert differences(config, load_config(file, ["seed=1"])) == ["seed: 0 → 1"]
    assert config_hash(config) != config_hash(load_config(file, ["editor.params.delay=1"]))


def begun(tmp_path: Path, *words: str, force: bool = False) -> Config:
    """The configuration that a run folder goes on with."""
    bench = tmp_path / "bench.jsonl"
    bench.touch()
    config = load_config(write(tmp_path, f"data: {{path: {bench}}}"), words)
    run = create_run(tmp_path / "run", config, lambda: [Item("a", "c", "do", None)], {}, force)
    store(run)
    assert load_config(run.folder.config) == run.config, "what the jobs will read"
    return run.config


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("seed=3", "seed: 0 → 3"),
        ("data.limit=5", "data.limit: None → 5"),
        ("editor.params.delay=1", "editor.params.delay: '(not set)' → 1"),
        (
            "editor.class_path=tests.plugins.Starved",
            "editor.class_path: 'tests.plugins.Tint' → 'tests.plugins.Starved'",
        ),
        ("scorers.s.params.x=1", "scorers.s.params.x: '(not set)' → 1"),
        ("scorers.t.class_path=m.S", "scorers.t.class_path: '(not set)' → 'm.S'"),
    ],
)
def test_a_run_is_not_gone_on_with_under_another_configuration(tmp_path: Path, word: str, said: str) -> None:
    first = begun(tmp_path)
    with pytest.raises(UserError, match="--force") as caught:
        begun(tmp_path, word)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert begun(tmp_path) == first, "what was refused has changed nothing"


def test_what_does_not_decide_the_results_may_change_from_time_to_time(tmp_path: Path) -> None:
    begun(tmp_path)
    changed = begun(tmp_path, "gpus=3", "retries=0", "slurm.partition=h100", "batch_size=4")
    assert (changed.gpus, changed.retries, changed.batch_size) == (3, 0, 4)


def test_forced_it_goes_on_with_the_new_one_but_for_what_was_planned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun(tmp_path)
    with pytest.raises(UserError, match="the plan is frozen"):
        begun(tmp_path, "seed=3")
    with pytest.raises(UserError, match=r"the plan is frozen, with the samples it has: .*--reuse"):
        begun(tmp_path, "data.limit=5")
    with caplog.at_level("WARNING"):
        forced = begun(tmp_path, "seed=3", "data.limit=5", "editor.params.delay=1", force=True)
    told = [record.getMessage() for record in caplog.records]
    assert [line.partition(",")[0] for line in told] == [f"'{key}': the plan is frozen" for key in ("seed", "data")]
    assert (forced.seed, forced.data.limit, forced.editor.params) == (0, None, {"delay": 1})
    assert begun(tmp_path, "editor.params.delay=1") == forced


def test_a_folder_that_cannot_be_a_runs_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter-1.tex").touch()
    (tmp_path / "file").touch()
    for name, said in (("thesis", "other things in it"), ("100%", "'%'"), ("file", "Not a directory")):
        with pytest.raises(UserError, match=said) as caught:
            create_run(tmp_path / name, load_config(write(tmp_path, "")), list, {}, force=False)
        assert name in str(caught.value)


def test_two_runs_begun_in_one_second_get_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len({new_run_dir("demo") for _ in range(5)}) == 5


def test_who_was_killed_while_planning_types_the_same_again(tmp_path: Path) -> None:
    config = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 2))
    words, root = ("--config", config, "--run-dir", tmp_path / "run", "--executor", "debug"), tmp_path / "run"
    assert launch(*words).returncode == 0
    for path in root.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "config.yaml":
            path.unlink()
    (root / ".plan.jsonl.host-1-1.tmp").touch()
    done = launch("status", root)
    assert done.stderr.endswith(f"type: python launch.py run --run-dir {root}\n")
    assert launch(*words).returncode == 0
    (root / "plan.jsonl").unlink()
    assert "restore it from a copy" in launch(*words).stderr


def test_a_home_that_no_shell_has_put_in_is_meant(tmp_path: Path) -> None:
    make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 1))
    words = ("--config=~/c.yaml", "--run-dir=~/run", "data.path=~/bench/bench.jsonl", "--executor=debug")
    assert launch(*words, env={**os.environ, "HOME": str(tmp_path)}).returncode == 0
    assert (tmp_path / "run" / "plan.jsonl").exists()
    assert not (REPO / "~").exists()


def test_runs_may_be_a_link_whose_folder_was_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(tmp_path / "scratch" / "runs")
    assert new_run_dir("demo").resolve().parent == tmp_path / "scratch" / "runs"
    (tmp_path / "runs").unlink()
    (tmp_path / "runs").touch()
    with pytest.raises(UserError, match="runs: not a folder"):
        new_run_dir("demo")


@pytest.mark.parametrize(
    ("class_path", "words"),
    [
        ("tests.plugins.Tnit", ["editor.class_path", "'Tint'"]),
        ("tests.plugin.Tint", ["editor.class_path", "tests.plugin"]),
        ("tests.plugins.NotAnEditor", ["editor.class_path", "'edit'"]),
        ("Tint", ["editor.class_path", "package.module.Name"]),
    ],
)
def test_a_class_that_cannot_serve_is_refused(tmp_path: Path, class_path: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        check_plugins(load_config(write(tmp_path, ""), [f"editor.class_path={class_path}"]))
    for word in words:
        assert word in str(caught.value)


class Checked(Tint):
    """An editor and a scorer that know whether they could work."""

    def __init__(self, ready: bool = False) -> None:
        super().__init__()
        self.ready = ready

    def check(self) -> None:
        if not self.ready:
            raise UserError("no weights here; download them first")

    def provenance(self) -> dict[str, str]:
        return {"revision": "abc"}

    def score(self, batch: Sequence[ScoreRequest]) -> list[dict[str, float]]:
        return [{} for _ in batch]


@pytest.mark.parametrize("key", ["editor", "scorers.s"])
def test_a_plug_in_that_could_not_work_is_refused_before_anything_starts(tmp_path: Path, key: str) -> None:
    words = [f"{key}.class_path=test_config.Checked"]
    with pytest.raises(UserError, match="no weights here"):
        check_plugins(load_config(write(tmp_path, ""), words))
    ready = load_config(write(tmp_path, ""), [*words, f"{key}.params.ready=true"])
    assert check_plugins(ready).models == {key: {"revision": "abc"}}


class SaysNothingOfItself:
    def edit(self, batch: list[object]) -> None:
        """Never called."""

    score = edit

    def provenance(self) -> None:
        """Has forgotten its return."""


class CannotSayItsScores(SaysNothingOfItself):
    provenance = dict

    @property
    def scores(self) -> None:
        raise KeyError("HOME")


@pytest.mark.parametrize(
    ("plug_in", "said"), [("SaysNothingOfItself", "provenance.* gave None"), ("CannotSayItsScores", "KeyError: 'HOME'")]
)
def test_what_a_plug_in_cannot_say_of_itself_is_one_line(tmp_path: Path, plug_in: str, said: str) -> None:
    with pytest.raises(UserError, match=rf"'scorers\.s': .*{said}"):
        check_plugins(load_config(write(tmp_path, ""), [f"scorers.s.class_path=test_config.{plug_in}"]))


def test_a_wrong_parameter_names_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'editor\.params\.dealy'.*did you mean 'delay'"):
        check_plugins(load_config(write(tmp_path, ""), ["editor.params.dealy=1"]))


def test_a_refusal_leaves_no_run_behind_and_shows_no_traceback(tmp_path: Path) -> None:
    config = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 2), editor="Tnit")
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "'Tint'" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpsu", "3"], "did you mean --gpus?"),
        (["-gpus", "3"], "did you mean --gpus?"),
        (["--partitoin=x"], "did you mean --partition?"),
        (["--gres", "gpu:2"], "slurm.gres=…"),
        (["stats", "RUN"], "did you mean status?"),
        (["gpus"], "neither a verb nor key=value"),
        (["--gpus", "3", "plan"], "'plan' is a verb, which stands first: python launch.py plan …"),
        (["{run}"], "is a run folder; say what to do with it: python launch.py status {run}"),
        (["run", "{run}"], "is a run folder"),
        (["resubmit", "{run}", "gpus"], "neither a verb nor key=value"),
        (["status", "--jsno", "{run}"], "did you mean --json?"),
        (["resubmit", "--run-dir", "{run}"], "--run-dir is an option of run, plan, rewrite"),
    ],
)
def test_wrong_usage_names_the_right_one_and_exits_2(finished_run: str, words: list[str], said: str) -> None:
    done = launch(*(word.format(run=finished_run) for word in words))
    assert done.returncode == 2
    assert said.format(run=finished_run) in done.stderr.splitlines()[-1]


def test_an_option_of_slurm_where_there_is_none_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    config = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 1))
    here = {**os.environ, "PATH": os.path.dirname(sys.executable)}
    for words in (["--partition", "h100"], ["slurm.gres=gpu:1"], ["score_slurm.mem=1G"]):
        done = launch("--config", config, "--run-dir", tmp_path / "run", *words, env=here)
        assert done.returncode == 1
        assert "no sbatch on the PATH; load the module, or --executor local" in done.stderr
    config = make_config(tmp_path / "c.yaml", tmp_path / "bench" / "bench.jsonl", executor="local")
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--partition", "h100")
    assert "the configuration says executor: local" in done.stderr
    assert not (tmp_path / "run").exists()
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--partition", "h100", "--executor", "debug")
    assert done.returncode == 0, "it was said"
    taken = launch("--config", config, "--run-dir", tmp_path / "other", "slurm.partition=null", "slurm=null")
    assert taken.returncode == 0, "what is taken away is no option"


def test_a_secret_of_the_environment_is_nowhere_in_the_run_folder(tmp_path: Path) -> None:
    config = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 2), editor="Signs")
    words = ["--config", config, "--run-dir", tmp_path / "run", "--executor", "local"]
    env = {**os.environ, "MY_SECRET": "sk-123"}
    done = launch(*words, "editor.params.key=${oc.env:MY_SECRET}", env=env)
    assert done.returncode == 0, done.stderr
    assert "sk-123" not in done.stdout + done.stderr
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert len(files) > 5
    assert not [file for file in files if b"sk-123" in file.read_bytes()]
    assert "${oc.env:MY_SECRET}" in (tmp_path / "run" / "config.yaml").read_text()
    records = read_records(run_dir(tmp_path / "run"), "edit")
    assert {record["info"]["key_length"] for record in records} == {len("sk-123")}
    assert launch("status", tmp_path / "run").returncode == 0, "only the jobs need it"


@pytest.mark.parametrize(
    "key",
    [
        "editor.params.api_key",
        "scorers.j.params.headers.Authorization",
        "scorers.j.params.headers.x-api-key",
        "data.options.token",
    ],
)
def test_a_secret_in_the_open_is_refused_and_not_shown(key: str) -> None:
    plain = ["editor.class_path=a.B", "scorers.j.class_path=a.C", "editor.params.max_tokens=sk-123"]
    with pytest.raises(UserError, match=f"'{re.escape(key)}': this secret would lie") as caught:
        load_config(None, [*plain, f"{key}=sk-123"])
    assert "sk-123" not in str(caught.value)
    assert load_config(None, [*plain, f"{key}=${{oc.env:MY_SECRET}}", f"{key}_env=MY_SECRET"])


def test_a_secret_in_a_list_is_refused_too() -> None:
    with pytest.raises(UserError, match=r"'editor\.params\.servers\.0\.token': this secret"):
        load_config(None, ["editor.class_path=a.B", "scorers.j.class_path=a.C", "editor.params.servers=[{token: sk}]"])


def test_a_refusal_leaves_no_folder_of_runs_behind(tmp_path: Path) -> None:
    words = ["--config", "demo.yaml", "data.reader=jsonl", f"data.path={tmp_path}/none.jsonl"]
    command, env = [sys.executable, "-m", "slurm_bench", *words], {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no such file" in done.stderr
    assert not list(tmp_path.iterdir())


def test_data_that_cannot_be_planned_leaves_no_run_behind(tmp_path: Path) -> None:
    data = make_benchmark(tmp_path / "bench", 2)
    data.write_text(data.read_text().replace("s-1", "s-0"))
    config = make_config(tmp_path / "c.yaml", data)
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local")
    assert done.returncode == 1
    assert "same id" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
