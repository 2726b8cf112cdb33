"""Where a run may lie, who may look at it, and what may never be read in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from chat_server import Reply, says, serve
from cluster import SlurmCluster
from helpers import REPO, launch, make_benchmark, make_config, rows, run_dir, summary

from slurm_bench import logs
from slurm_bench.report.judgements import Asked, Judgement, read_judgements, writing
from slurm_bench.run.records import read_records

NAMES = ["with space", 'it\'s "quoted"', "变成夜晚", "-dash", "two\nlines", "$(touch x); `x` & #", "a=b", "~", "*"]


def test_what_sbatch_would_misread_is_refused_before_anything_is_made(slurm: SlurmCluster, tmp_path: Path) -> None:
    config = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 2))
    for name in ("two\nlines", "back\\slash", "100%"):
        done = launch("--config", config, "--partition", "h100", "--run-dir", tmp_path / name, env=slurm.env)
        assert done.returncode == 1
        assert "choose another --run-dir" in done.stderr
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize("verb", ["status", "compare"])
def test_who_listens_no_more_has_made_no_mistake(finished_run: str, verb: str) -> None:
    """`| head`, or a shell that closes what nobody reads."""
    typed = [sys.executable, "launch.py", verb, *([finished_run] * (2 if verb == "compare" else 1))]
    end, broken = os.pipe()
    os.close(end)
    for words, out in ((typed, broken), (["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *typed], subprocess.PIPE)):
        done = subprocess.run(words, cwd=REPO, stdout=out, stderr=subprocess.PIPE, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    os.close(broken)


def test_two_configurations_are_refused_not_the_first_one_passed_over(tmp_path: Path) -> None:
    bench = make_benchmark(tmp_path / "bench", 2)
    one, other = (make_config(tmp_path / name, bench, gpus=1) for name in ("a.yaml", "b.yaml"))
    words = ("--run-dir", tmp_path / "run", "--executor", "debug")
    done = launch("--config", one, "--config", other, *words)
    assert done.returncode == 2
    assert "--config: said twice" in done.stderr
    assert not (tmp_path / "run").exists()
    assert launch("plan", "--config", one, *words).returncode == 0


def test_a_folder_that_was_deleted_under_a_shell_is_said(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    typed = f'cd {tmp_path}/gone && rmdir {tmp_path}/gone && exec "$@"'
    words = [sys.executable, str(REPO / "launch.py"), "status"]
    done = subprocess.run(["sh", "-c", typed, "sh", *words, "run"], capture_output=True, text=True)
    assert (done.returncode, "is gone; cd to another one" in done.stderr) == (1, True), done.stderr


def test_who_quits_a_breakpoint_leaves_the_run(tmp_path: Path) -> None:
    """It was each sample's failure, with a breakpoint more for each try."""
    bench = make_benchmark(tmp_path / "bench", 2)
    words = ["--config", make_config(tmp_path / "c.yaml", bench, "Breaks"), "--run-dir", tmp_path / "run"]
    typed = [sys.executable, "launch.py", *map(str, words), "--executor", "debug"]
    done = subprocess.run(typed, cwd=REPO, input="q\n", capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    assert done.stdout.count("(Pdb)") == 1
    assert f"resubmit {tmp_path / 'run'}" in done.stderr
    assert json.loads(launch("status", tmp_path / "run", "--json").stdout)["counts"]["failed"] == 0


@pytest.mark.parametrize("executor", ["debug", "local"])
def test_a_run_folder_may_be_called_anything(tmp_path: Path, executor: str) -> None:
    names = NAMES if executor == "debug" else ['it\'s "two\nlines" 变; $(touch x)']
    bench = make_benchmark(tmp_path / "the bench's", 2)
    config = make_config(tmp_path / "c d.yaml", bench, gpus=1)
    for name in names:
        run = tmp_path / "runs" / name
        done = launch("--config", config, "--run-dir", run, "--executor", executor)
        assert done.returncode == 0, (name, done.stderr)
        assert summary(run)["counts"]["scored"] == 2
        for verb in ("status", "explain", "resubmit")[: 3 if executor == "local" else 1]:
            looked = launch(verb, run)
            assert (looked.returncode, "Traceback" in looked.stderr) == (0, False), (name, verb, looked.stderr)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted(names)
    assert not (REPO / "x").exists()


@pytest.mark.parametrize(
    "extra", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}], ids=str
)
def test_a_locale_without_utf8_makes_the_same_run_or_is_one_line(
    tmp_path: Path, finished_run: str, extra: Mapping[str, str]
) -> None:  # fmt: skip
    bench = make_benchmark(tmp_path / "bench", 2)
    config = make_config(tmp_path / "c.yaml", bench, gpus=1)
    env = {**os.environ, **extra}
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local", env=env)
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "run")) == 2
    for words in (["status", finished_run], ["explain", finished_run], ["compare", finished_run, finished_run]):
        looked = launch(*words, env=env)
        assert (looked.returncode, "Traceback" in looked.stderr) == (0, False), looked.stderr
    chinese = launch("--config", config, "--run-dir", tmp_path / "变成", "--executor", "debug", env=env)
    assert "Traceback" not in chinese.stderr
    assert chinese.returncode in (0, 1)


def test_without_asserts_nothing_is_lost(tmp_path: Path, undisturbed: Path) -> None:
    config = make_config(tmp_path / "c.yaml", undisturbed.parent / "bench.jsonl", gpus=2)
    env = {**os.environ, "PYTHONOPTIMIZE": "1"}
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local", env=env)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "run") == rows(undisturbed)


SECRETS = {"OPENAI_API_KEY": "sk-9f31-judge", "MY_SECRET": "s3cr3t-of-mine", "HF_TOKEN": "hf_8d2c_token"}


def test_a_secret_is_neither_on_disk_nor_on_a_terminal_whatever_fails(tmp_path: Path) -> None:
    """The editor quotes its key when it fails; the judge's server quotes what it was sent."""
    echo = b'{"error": {"message": "Incorrect API key provided: sk-9f31-judge"}}'
    quotes = Reply(says('{"overall": 7, "reason": "you sent sk-9f31-judge"}'))
    with serve(quotes, quotes, Reply(echo, 400)) as server:
        judge = {"base_url": server.url, "model": "m", "max_retries": 0, "patience": 0.0, "backoff": 0.0}
        config = make_config(
            tmp_path / "c.yaml",
            make_benchmark(tmp_path / "bench", 4),
            editor="QuotesItsKey",
            params={"key": "${oc.env:MY_SECRET}", "fail": ["s-1"]},
            scorers={"judge": {"class_path": "slurm_bench.scorers.openai_api.OpenAIScorer", "params": judge}},
            gpus=1,
        )
        run = tmp_path / "run"
        env = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()} | SECRETS
        said = ""
        for words in (
            ["--config", config, "--run-dir", run, "--executor", "local"],
            *(["status", run, "--json"], ["explain", run], ["report", run, "--single-file"], ["resubmit", run]),
        ):
            done = launch(*words, env=env)
            assert "Traceback" not in done.stderr
            said += done.stdout + done.stderr
    assert summary(run)["counts"]["failed"] > 0, "or nothing was tried"
    assert server.headers[0]["Authorization"] == "Bearer sk-9f31-judge"
    files = [file for file in run.rglob("*") if file.is_file()]
    found = [(secret, file) for file in files for secret in SECRETS.values() if secret.encode() in file.read_bytes()]
    assert not found
    replies = [record.get("raw") or "" for record in read_records(run_dir(run), "score")]
    assert any("you sent <OPENAI_API_KEY>" in reply for reply in replies)
    assert not [secret for secret in SECRETS.values() if secret in said]


def test_on_a_cluster_a_secret_is_in_no_file_of_a_run_and_in_no_script(
    slurm: SlurmCluster, tmp_path: Path, bench: Path
) -> None:
    """What sbatch keeps of the environment that it hands on is Slurm's own."""
    secret = 'sk/4711 "quoted" é+&'
    (tmp_path / "marks").mkdir()
    params = {"key": "${oc.env:MY_SECRET}", "fail": ["s-1"], "exits": ["s-2"], "marks": str(tmp_path / "marks")}
    config, run = make_config(tmp_path / "c.yaml", bench, "QuotesItsKey", params), tmp_path / "run"
    env = {**slurm.env, "MY_SECRET": secret}
    done = launch("--config", config, "--run-dir", run, "--partition", "h100", env=env)
    assert done.returncode == 0, done.stderr
    scripts = []
    for file in (slurm.folder / "state").rglob("script"):
        with suppress(FileNotFoundError):  # of a job of before, which slurmctld forgets meanwhile
            scripts.append(file.read_text())
    assert scripts
    slurm.wait_idle(240)
    said = [text for verb in ("status", "explain", "report") for text in _both(launch(verb, run, env=env))]
    files = {str(file): file.read_text("utf-8", "replace") for file in run.rglob("*") if file.is_file()}
    assert summary(run)["counts"]["failed"] == 2
    for words in (
        "no model for '<MY_SECRET>'",
        "refused the key <MY_SECRET>",
        "pay for <MY_SECRET>",
        "?key=<MY_SECRET>",
    ):
        assert any(words in text for text in files.values()), words
    forms = (secret, "sk/4711", "sk%2F4711", "sk\\/4711")
    assert not [name for name, text in files.items() if any(form in text for form in forms)]
    assert not [text for text in (*said, *scripts, *_both(done)) if any(form in text for form in forms)]


def test_a_plug_in_that_refuses_its_key_tells_nobody(tmp_path: Path) -> None:
    params = {"key": "${oc.env:MY_SECRET}"}
    config = make_config(tmp_path / "c.yaml", make_benchmark(tmp_path / "bench", 2), "QuotesItsKey", params)
    env = {**os.environ, "MY_SECRET": "of, mine"}
    done = launch("--config", config, "--run-dir", tmp_path / "run", "--executor", "local", env=env)
    assert done.returncode == 1
    assert "the key '<MY_SECRET>' has a comma in it" in done.stderr
    assert "of, mine" not in "".join(_both(done))


def test_what_a_judge_of_pairs_quotes_is_taken_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_secrets", {})
    logs.keep_secret("sk-4711-of-mine", "MY_SECRET")
    with writing(tmp_path) as judgements:
        judgements.write(
            Asked("d", "by", "about", "a", "b"), Judgement(None, "sent sk-4711-of-mine", "sk-4711-of-mine")
        )
    (tmp_path / "judgements-1.jsonl").write_text(
        '{"dimension": [], "by": "b", "about": "c", "first": "d", "second": ""}\n'
    )
    (found,) = read_judgements(tmp_path).values()
    assert (found.problem, found.raw) == ("sent <MY_SECRET>", "<MY_SECRET>")


def _both(done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    return done.stdout, done.stderr


def test_another_of_the_group_goes_on_with_a_run(tmp_path: Path) -> None:
    """As another uid, where this one may become one."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv to be somebody else")
    shared = Path("/tmp") / f"slurm_bench-shared-{os.getpid()}"
    as_other = ["setpriv", "--reuid=31337", "--regid=31337", "--clear-groups"]
    try:
        bench = make_benchmark(shared / "bench", 3)
        config = make_config(shared / "c.yaml", bench, params={"fail": ["s-1"]}, gpus=1, executor="local")
        run = shared / "run"
        command = [sys.executable, "launch.py"]
        first = subprocess.run(
            ["sh", "-c", 'umask 0000; exec "$@"', "-", *command, "--config", config, "--run-dir", run],
            cwd=REPO,
            capture_output=True,
            text=True,
        )
        assert first.returncode in (0, 3), first.stderr
        able = subprocess.run([*as_other, sys.executable, "-c", "import slurm_bench"], cwd=REPO, capture_output=True)
        if able.returncode:
            pytest.skip("another user can't read this checkout or its Python")
        env = {**os.environ, "HOME": str(shared), "PYTHONDONTWRITEBYTECODE": "1"}
        for words in (["status", run], ["explain", run], ["resubmit", run, "--executor", "debug"], ["report", run]):
            done = subprocess.run([*as_other, *command, *words], cwd=REPO, env=env, capture_output=True, text=True)
            assert done.returncode in (0, 3), (words, done.stderr)
        owners = {file.stat().st_uid for file in (run / "attempts").iterdir()}
        assert owners == {0, 31337}
        modes = {file.stat().st_mode & 0o777 for file in run.rglob("*.json")}
        assert all(mode & 0o044 == 0o044 for mode in modes), "the umask decides, not the tool"
    finally:
        shutil.rmtree(shared, ignore_errors=True)


@pytest.fixture
def two_users() -> Iterator[tuple[str, str, str]]:
    """Two new users and the group that both are of."""
    group = f"sb{os.getpid()}"
    users = (f"{group}a", f"{group}b")
    if os.getuid() != 0 or not all(map(shutil.which, ("groupadd", "useradd", "setpriv"))):
        pytest.skip("needs root, useradd and setpriv for two users")
    try:
        subprocess.run(["groupadd", group], check=True)
        for user in users:
            subprocess.run(["useradd", "--no-create-home", "--gid", group, "--home-dir", "/nowhere", user], check=True)
        yield (*users, group)
    finally:
        for user in users:
            subprocess.run(["userdel", user], capture_output=True)
        subprocess.run(["groupdel", group], capture_output=True)


def test_two_of_a_group_share_a_run_on_a_cluster(slurm: SlurmCluster, two_users: tuple[str, str, str]) -> None:
    """One launches, the other heals, scores and reports; where the first one's umask forbids that, it is a line."""
    one, other, group = two_users
    slurm.folder.chmod(0o755)
    shared = Path(tempfile.mkdtemp(dir="/tmp"))
    packages = next(path for path in sys.path if path.endswith("-packages"))
    env = {**slurm.env, "HOME": "/nowhere", "PYTHONPATH": f"{REPO}:{packages}", "PYTHONDONTWRITEBYTECODE": "1"}

    def type_as(user: str, *words: object, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
        somebody = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "sh", "-c"]
        typed = [python, *map(str, words)]
        command = [*somebody, 'umask 0002; exec "$@"', "-", *typed]
        return subprocess.run(command, cwd=REPO, env=env | {"USER": user}, capture_output=True, text=True, timeout=240)

    pythons = (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}")  # the first may lie in root's home
    able = [python for python in pythons if not type_as(one, "-c", "import msgspec", python=python).returncode]
    if not able:
        pytest.skip("another user can't read this Python")

    def launch_as(user: str, *words: object) -> subprocess.CompletedProcess[str]:
        return type_as(user, "launch.py", *words, python=able[0])

    try:
        shutil.chown(shared, group=group)
        config = make_config(shared / "c.yaml", make_benchmark(shared / "bench", 3), gpus=1)
        shared.chmod(0o2775)
        run = shared / "run"
        done = launch_as(one, "--config", config, "--run-dir", run, "--partition", "h100")
        assert done.returncode == 0, done.stderr
        slurm.wait_idle(180)
        assert summary(run)["counts"]["scored"] == 3
        next(run.rglob("s-1*.png")).unlink()
        for words in (["resubmit", run], ["score", run, "scorers.judge.params.delay=0.01"]):
            done = launch_as(other, *words)
            assert done.returncode == 0, done.stderr
            slurm.wait_idle(180)
        for verb in ("report", "verify", "status", "explain"):
            assert launch_as(other, verb, run).returncode == 0
        assert summary(run)["counts"]["scored"] == 3
        makers = {file.owner() for file in (run / "attempts").iterdir()}
        assert makers == {one, other}
        assert not [path for path in run.rglob("*") if not path.is_symlink() and not path.stat().st_mode & 0o020]

        subprocess.run(["chmod", "-R", "g-w", str(run)], check=True)
        next(run.rglob("s-2*.png")).unlink()
        refused = launch_as(other, "resubmit", run)
        assert refused.returncode == 1
        assert "Permission denied; choose a folder that you may use" in refused.stderr.splitlines()[-1]
        assert "Traceback" not in refused.stderr
    finally:
        shutil.rmtree(shared, ignore_errors=True)
