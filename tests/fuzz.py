"""Hostile inputs by the thousand: command lines, configurations, data files, run folders.

    python tests/fuzz.py 100000                  so many of all kinds
    python tests/fuzz.py 5000 folder data        so many of these kinds

Each is typed at `cli.main` in this process. Whatever it is, it ends with one of the exit codes that the tool promises
and without a traceback, within a time; it touches nothing outside the run folder, and nothing at all where it is
refused. What doesn't is printed, one input for each place in the code that it came from.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import benchmark_sets
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from slurm_bench import cli
from slurm_bench.data.readers import BUNDLED

SECONDS = 300  # an input that takes longer hangs
REFUSED = (1, 2)
CODES = (0, *REFUSED, 3)

# ---- what is hostile ----

ODD = [
    "",
    " ",
    "\0",
    "\n",
    "\x1b[2J",
    "../../x",
    "/etc/passwd",
    "~",
    "%j",
    "${",
    "${oc.env:HOME}",
    "${a}",
    "nan",
    "1e999",
]
ODD += ["-1", "null", "\ud800", "\u202e", "\ufeff", "变成夜晚", "é" * 300, "a" * 5000, "{}", "[", "mirror-toys", "edit"]
TEXT = st.sampled_from(ODD) | st.text(max_size=12)
NUMBER = st.sampled_from([0, -1, 1, 2, 2**31, 2**63, 10**400, -0.0, 0.5, 1e308, float("nan"), float("inf"), True])
LEAF = st.none() | NUMBER | st.integers() | TEXT
ANY = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)
HURT = [b"", b"\n", b"[", b"{", b"null\n", b"[1,2]\n", b"{}\n", b'{"id": 1}\n', b"\xff\xfe\0", b"\0" * 99, b"[" * 9999]
HURT += [
    b'{"a":' * 5000,
    b"[" * 3000 + b"]" * 3000,
    b'{"id": ' + b"9" * 5000 + b"}\n",
    b"\xef\xbb\xbf{}",
    b"\x1f\x8b\x08",
]
BROKEN = st.sampled_from(HURT) | st.binary(max_size=40)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def paths(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all that is in a tree of JSON."""
    yield at
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, inner in pairs:
        yield from paths(inner, (*at, key))


def changed(tree: Any, at: tuple[Any, ...], value: Any) -> Any:
    """With `value` there; without it where that is `...`."""
    if not at:
        return {} if value is ... else value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    if len(at) == 1 and value is ...:
        del copy[at[0]]
    else:
        copy[at[0]] = changed(tree[at[0]], at[1:], value)
    return copy


@st.composite
def mutated(draw: st.DrawFn, tree: Any) -> Any:
    for _ in range(draw(st.integers(1, 3))):
        places = list(paths(tree))
        deep = [place for place in places if place] or places
        tree = changed(tree, draw(st.sampled_from(deep)), draw(st.just(...) | ANY))
    return tree


@st.composite
def torn(draw: st.DrawFn, whole: bytes) -> bytes:
    """A part cut out, or bytes written over."""
    at = draw(st.integers(0, len(whole)))
    return whole[:at] + draw(st.just(b"") | BROKEN) + whole[draw(st.integers(at, len(whole))) :]


@st.composite
def hostile(draw: st.DrawFn, file: str, whole: bytes) -> bytes:
    """What a file of a run or a dataset may have become."""
    kind = draw(st.sampled_from(["field"] * 6 + ["torn", "broken", "more"]))
    if kind == "broken":
        return draw(BROKEN)
    if kind == "torn" or not file.endswith((".jsonl", ".json", ".hand")):
        return draw(torn(whole))
    if kind == "more":
        return whole + draw(BROKEN)
    if not file.endswith(".jsonl"):
        return as_json(draw(mutated(json.loads(whole))))
    lines = whole.splitlines()
    if not lines:
        return as_json(draw(ANY)) + b"\n"
    n = draw(st.integers(0, len(lines) - 1))
    lines[n] = as_json(draw(mutated(json.loads(lines[n]))))
    return b"\n".join(lines) + b"\n"


# ---- the place where it is tried ----


class Fault(Exception):
    """The tool broke a promise."""


class Place:
    """A folder with a run and a few data files, put back as it was after each input."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.run, self.data, self.out = (self.root / name for name in ("run", "data", "out"))
        self.data.mkdir(parents=True)
        self.out.mkdir()
        self.before = Path.cwd()
        os.chdir(self.out)
        words = ["--config", "demo.yaml", "--run-dir", str(self.run), "--executor", "debug", "data.limit=4"]
        assert type_words([*words, "editor.params.fail=[lamp-on]"])[0] in (0, 1)
        if not self.run.exists():
            assert type_words(words)[0] == 0
        shutil.rmtree(self.run / "report" / "page")
        self.sets = {name: make(self.data / name) for name, make in DATASETS.items()}
        self.files = {file: file.read_bytes() for file in self.root.rglob("*") if file.is_file()}
        self.kept = self.listing()
        self.writes: list[str] = []
        self.armed = False
        sys.addaudithook(self.heard)

    def close(self) -> None:
        os.chdir(self.before)

    def heard(self, event: str, args: tuple[Any, ...]) -> None:
        """What this process does outside the folder; what would hurt others isn't done."""
        if not self.armed:
            return
        if event in ("os.kill", "os.killpg", "os.system", "os.exec", "socket.connect"):
            self.writes.append(f"{event} {args!r}")
            raise PermissionError(event)
        if event == "open" and isinstance(args[0], (str, bytes)):
            mode, flags = args[1] or "", args[2] or 0
            if not any(c in mode for c in "wax+") and not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event not in ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.truncate"):
            return
        for path in args[:2] if event in ("os.rename", "os.link") else args[:1]:
            if isinstance(path, (str, bytes)):
                full = os.path.abspath(os.fsdecode(path))
                if not full.startswith(f"{self.root}/") and full != os.devnull and "/__pycache__" not in full:
                    self.writes.append(f"{event} {full}")

    def listing(self) -> dict[str, tuple[int, int, int]]:
        found = {}
        for folder, folders, files in os.walk(self.root):
            for name in [*folders, *files]:
                path = os.path.join(folder, name)
                facts = os.lstat(path)
                found[path] = (
                    (facts.st_mode, 0, 0) if name in folders else (facts.st_mode, facts.st_size, facts.st_mtime_ns)
                )
        return found

    def restore(self) -> None:
        now = self.listing()
        for path in sorted(now.keys() - self.kept.keys()):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        for path, facts in self.kept.items():
            if now.get(path) == facts:
                continue
            if Path(path) in self.files:
                if os.path.isdir(path):
                    shutil.rmtree(path)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                Path(path).write_bytes(self.files[Path(path)])
            elif not os.path.isdir(path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                os.makedirs(path)
        self.kept = self.listing()

    def check(self, words: list[str], files: Mapping[str, bytes | None] | None = None) -> int:
        """Type them, with these files in place (None: a folder of that name). Raises Fault."""
        try:
            for name, content in (files or {}).items():
                path = self.root / name
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.exists():
                    path.unlink()
                path.parent.mkdir(parents=True, exist_ok=True)
                path.mkdir() if content is None else path.write_bytes(content)
            before, self.writes, self.armed = self.listing(), [], True
            try:
                code, said = type_words(words)
            finally:
                self.armed = False
            if "Traceback (most recent call last)" in said:
                raise Fault(f"a traceback is printed: {said[-1500:]}")
            if code not in CODES:
                raise Fault(f"exit code {code}: {said[-500:]}")
            after = self.listing()
            touched = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
            outside = [path for path in touched if not self.ours(path, words)] + self.writes
            if outside:
                raise Fault(f"written outside: {outside[:5]}")
            if code in REFUSED and touched and "type the same again" not in said:
                raise Fault(f"refused, and yet written: {sorted(touched)[:5]}: {said[-300:]}")
            if code in REFUSED and not said.strip():
                raise Fault("refused without a word")
            return code
        finally:
            self.restore()

    def ours(self, path: str, words: list[str]) -> bool:
        return path.startswith(f"{self.run}/") or (words[0] == "export" and path.startswith(str(self.out)))


def type_words(words: list[str]) -> tuple[Any, str]:
    """The exit code, and all that is printed."""
    said = io.StringIO()
    logger = logging.getLogger("slurm_bench")
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return cli.main(words), said.getvalue()
    except SystemExit as left:
        return left.code or 0, said.getvalue()
    finally:
        signal.alarm(0)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()


def too_long(*_: Any) -> None:
    raise Fault(f"it hangs: more than {SECONDS} s")


# ---- the kinds ----

KEYS = [
    "seed",
    "repeats",
    "data",
    "data.reader",
    "data.path",
    "data.limit",
    "data.categories",
    "data.fields.id",
    "data.options",
]
KEYS += [
    "data.image_root",
    "data.encoding",
    "data.delimiter",
    "editor",
    "editor.class_path",
    "editor.params",
    "editor.params.x",
]
KEYS += [
    "scorers",
    "scorers.metrics",
    "scorers.metrics.params.x",
    "rewriter",
    "headline",
    "report.by",
    "gpus",
    "batch_size",
]
KEYS += [
    "retries",
    "takeover",
    "executor",
    "slurm",
    "slurm.time",
    "slurm.array",
    "score_slurm",
    "strict",
    "load_concurrency",
    "x",
]
NAMES = [
    "json",
    "jsonl",
    "csv",
    "demo",
    "gedit",
    "os.getcwd",
    "builtins.print",
    "slurm_bench.editors.pillow.PillowEditor",
]
NAMES += [
    "slurm_bench.scorers.metrics.ReferenceMetrics",
    "local",
    "slurm",
    "debug",
    "auto",
    "physical",
    "similarity",
    "4",
    "true",
]
VALUE = st.sampled_from(NAMES) | TEXT | LEAF.map(str) | ANY.map(json.dumps)
KEY = st.sampled_from(KEYS) | st.builds(lambda a, b: f"{a}.{b}", st.sampled_from(KEYS), TEXT) | TEXT
SETTING = st.builds(lambda key, value: f"{key}={value}", KEY, VALUE)
OPTIONS = [
    "--config",
    "--run-dir",
    "--reuse",
    "--like",
    "--executor",
    "--gpus",
    "--score-gpus",
    "--strict",
    "--force",
    "--json",
]
OPTIONS += [
    "--partition",
    "--time",
    "--score",
    "--margin",
    "--images",
    "--html",
    "--single-file",
    "--judge",
    "--format",
    "--model",
]
OPTIONS += ["--help", "--version", "--wai", "--", "-"]
LOOKS = ["status", "explain", "verify", "report", "compare", "export", "plan", "cancel"]


@st.composite
def command_line(draw: st.DrawFn, place: Place) -> tuple[list[str], dict[str, bytes | None]]:
    """Verbs that are handed anything. None starts a run: `run` has no data to read."""
    verb = draw(st.sampled_from(["run", "rewrite", "resubmit", "score", "bench", "plan", "plan", "plan", *LOOKS]))
    word = st.sampled_from(OPTIONS) | SETTING | SETTING | VALUE | st.just(str(place.run)) | st.just("demo.yaml")
    words = draw(st.lists(word, max_size=5))
    if verb in ("run", "rewrite"):
        words += ["data.reader=jsonl", f"data.path={place.data}/absent.jsonl"]
        words = [word for word in words if "data.reader=demo" not in word]
        if draw(st.booleans()):
            words += ["--run-dir", str(place.out / "new")]
    elif verb in ("resubmit", "score", "bench"):
        words += [draw(st.sampled_from(["--gpus=no", "--gpus=0", "gpus=0", "--absent", "seed=x"]))]
    elif verb == "plan" and draw(st.booleans()):
        words = ["--config", "demo.yaml", *words]
    elif verb in LOOKS and draw(st.booleans()):
        words = [str(place.run), *words]
    if verb == "compare" and draw(st.booleans()):
        words = [str(place.run), *words]
    if verb == "export" and draw(st.booleans()):
        words += ["--format", "imgedit", "--out", str(place.out / "exported")]
    typed = [word.replace("\0", "").encode("utf-8", "replace").decode() for word in words]  # what a shell can hand on
    return [verb, *typed], {}


CONFIG: dict[str, Any] = {
    "data": {"reader": "demo", "limit": 2, "categories": None, "options": {}, "fields": {}},
    "editor": {"class_path": "slurm_bench.editors.pillow.PillowEditor", "params": {}},
    "scorers": {"metrics": {"class_path": "slurm_bench.scorers.metrics.ReferenceMetrics", "params": {}}},
}
CONFIG |= {"seed": 0, "repeats": 1, "headline": "similarity", "report": {"by": []}, "executor": "local", "gpus": 2}
CONFIG |= {"batch_size": 1, "retries": 2, "takeover": "auto", "strict": False, "slurm": {"time": "04:00:00"}}
YAML_BITS = [
    "a: b: c",
    "- a",
    "&a [*a]",
    "a: &a {b: *a}",
    "? [a, b]\n: c",
    "!!python/object:os.system {}",
    "%YAML 9",
    "a: 1\na: 2",
]
YAML_BITS += [
    "<<: {gpus: 2}",
    "gpus: 0x10",
    "gpus: 1_000",
    "seed: .nan",
    "---\na: 1\n---\nb: 2",
    "\t",
    "data: !!binary aGk=",
    "{{{",
]
YAML_BITS += ["x: " + "[" * 3000, "seed: " + "9" * 6000, "a: 2001-01-01", "? \n", "gpus: !!int x", "editor: *none", "'"]


@st.composite
def configuration(draw: st.DrawFn, place: Place) -> tuple[list[str], dict[str, bytes | None]]:
    """A file for --config, or that of a run."""
    bits = st.lists(st.sampled_from(YAML_BITS), min_size=1, max_size=3).map("\n".join)
    text = st.one_of(
        *[mutated(CONFIG).map(as_json)] * 4,
        bits.map(str.encode),
        torn(as_json(CONFIG)),
        st.builds(lambda a, b: a + b"\n" + b.encode(), mutated(CONFIG).map(as_json), bits),
        BROKEN,
    )
    if draw(st.integers(0, 3)):
        return ["plan", "--config", str(place.out / "c.yaml")], {"out/c.yaml": draw(text)}
    return [draw(st.sampled_from(["status", "explain", "verify"])), str(place.run)], {"run/config.yaml": draw(text)}


STRAY = ["edit/records/._001-0000.jsonl", "edit/records/.nfs0001", "edit/records/001-0000 (conflicted copy).jsonl"]
STRAY += [
    "edit/records/x",
    "edit/records/002-0000.jsonl",
    "score/records/000-0000.jsonl",
    "logs/tasks/stray",
    "attempts/x",
]
STRAY += [
    "attempts/._edit-001.json",
    "attempts/edit-001 (copy).json",
    "attempts/edit-002.json",
    "attempts/edit-002.over",
]
STRAY += [
    "logs/tasks/edit-001-0000-r1.jsonl",
    "logs/tasks/edit-001-0000-r1.hand",
    "logs/tasks/._edit-001-0000-r0.jsonl",
]
STRAY += [
    "logs/submitit/1_0_log.err",
    "logs/x",
    "report",
    "edit/records/lost-1.0-a-1.jsonl",
    "edit/claims/001/a/0000/0001-0",
]
STRAY += [
    "edit/records/99999999999999999999-0.jsonl",
    "attempts/score-99999999999999999999.json",
    "attempts/edit-001.concluded",
]
LOST = {"id": "lamp-off", "status": "lost", "edit_time": 1.0, "why": ""}
FAILED = {
    "id": "lamp-off",
    "status": "error",
    "seconds": 0.1,
    "error": {"type": "ValueError", "message": "m"},
    "final": False,
}
FAILED |= {"by": "a", "attempt": 1, "task": 0, "host": "h", "node": "n", "time": 1.0, "v": 2, "scorer": "metrics"}
PROCESS = [
    {"event": "spawned", "time": 1.0, "pid": 1},
    {"event": "start", "time": 1.0, "host": "h", "node": "n", "pid": 1, "gpus": []},
]
PROCESS += [
    {"event": "loading", "time": 1.5},
    {"event": "loaded", "time": 2.0, "took": 0.5},
    {"event": "memory", "time": 2.5, "peak": 9},
]
PROCESS += [
    {"event": "part", "name": "samples", "begin": 1.0, "seconds": 1.0, "time": 3.0},
    {"event": "exit", "code": -9, "time": 4.0},
]
PROCESS += [{"event": "end", "how": "done", "message": "", "ok": 1, "failed": 0, "time": 5.0}]
HAND = {"plugin": "editor", "ids": ["lamp-off"], "time": 1.0}


@st.composite
def run_folder(draw: st.DrawFn, place: Place) -> tuple[list[str], dict[str, bytes | None]]:
    """A run whose files were hurt, with others beside them; looked at by any verb."""
    small = [
        file
        for file in place.files
        if place.run in file.parents and file.suffix in (".json", ".jsonl", ".hand", ".yaml")
    ]
    small += [file for file in place.files if file.suffix == ".csv" and place.run in file.parents]
    plan = place.run / "plan.jsonl"
    changes: dict[str, bytes | None] = {}
    for _ in range(draw(st.integers(1, 3))):
        file = draw(st.sampled_from(small))
        changes[str(file.relative_to(place.root))] = draw(hostile(file.name, place.files[file]))
        if file == plan and draw(st.booleans()):  # as far as the plan's hash is known, it guards it
            changes["run/provenance.json"] = b"{}"
    lines = [as_json(line) + b"\n" for line in (FAILED, LOST, place_attempt(place))]
    process = b"".join(as_json(row) + b"\n" for row in PROCESS)
    for name in draw(st.lists(st.sampled_from(STRAY), max_size=2)):
        whole = next(
            (line for part, line in zip(("records/0", "lost", "attempts"), lines, strict=True) if part in name), process
        )
        whole = as_json(HAND) if name.endswith(".hand") else whole
        # Each line is JSON, also where the name doesn't say so.
        kind = f"{name}.jsonl" if not name.endswith((".json", ".hand")) else name
        changes[f"run/{name}"] = draw(st.none() | st.just(whole) | hostile(kind, whole) | hostile(kind, whole))
    verb = draw(
        st.sampled_from(
            ["status", "explain", "verify"] * 6 + ["report", "compare", "export", "cancel", "plan", "resubmit"]
        )
    )
    words = {
        "compare": [str(place.run), str(place.run)],
        "export": [
            str(place.run),
            "--format",
            draw(st.sampled_from(["imgedit", "kris", "gedit"])),
            "--out",
            str(place.out / "e"),
        ],
        "plan": ["--config", "demo.yaml", "data.limit=4", "--run-dir", str(place.run)],
        "resubmit": [str(place.run), "--executor", "debug"],
    }.get(verb, [str(place.run)])
    return [
        verb,
        *words,
        *(["--json"] if verb in ("status", "explain", "plan") and draw(st.booleans()) else []),
    ], changes


def place_attempt(place: Place) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(place.files[place.run / "attempts" / "edit-001.json"])
    return {**row, "number": 2, "executor": "slurm", "job_id": "1", "host": "elsewhere"}


def _table(folder: Path, name: str, content: str) -> Path:
    benchmark_sets.write_image(folder / "a.png")
    benchmark_sets.write_image(folder / "b.png", "red")
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


ROW = {"id": "a", "category": "physical", "instruction": "make it night", "image": "a.png", "reference": "b.png"}
ROW |= {"description": "d", "rationale": "r", "level": 3, "tags": ["x"], "meta": {"text": "t"}}
ROWS = [ROW, {**ROW, "id": "b", "image": ["a.png", "b.png"]}]
DATASETS: dict[str, Callable[[Path], Path]] = {
    "jsonl": lambda f: _table(f, "b.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS)),
    "json": lambda f: _table(f, "b.json", json.dumps(ROWS)),
    "five_category": lambda f: _table(f, "b.json", json.dumps({"a": ROW, "b": ROW})),
    "csv": lambda f: _table(
        f, "b.csv", 'id,instruction,image,category\na,make it night,a.png,x\nb,"two\nlines",b.png,y\n'
    ),
    "parquet": lambda f: benchmark_sets.write_parquet(_table(f, "x", "").with_name("b.parquet"), ROWS[:1]),
    "image_folder": lambda f: _table(f, "a.txt", "make it night").parent,
    "gedit": benchmark_sets.make_gedit,
    "gedit2": benchmark_sets.make_gedit2,
    "imgedit": benchmark_sets.make_imgedit,
    "risebench": benchmark_sets.make_risebench,
    "risebench2": benchmark_sets.make_risebench2,
    "kris": benchmark_sets.make_kris,
    "magicbrush": benchmark_sets.make_magicbrush,
    "unireditbench": benchmark_sets.make_unireditbench,
    "wiseedit": benchmark_sets.make_wiseedit,
}
assert {*DATASETS} == {*BUNDLED} - {"demo", "huggingface"}


MORE = ["data.limit=1", "data.categories=[physical]", "data.fields.id=level", "repeats=2"]
MORE += [f"data.encoding={name}" for name in ("utf-8", "latin-1", "x", "utf-16")]


@st.composite
def dataset(draw: st.DrawFn, place: Place) -> tuple[list[str], dict[str, bytes | None]]:
    """A reader's own format, hurt; once in a while another reader's."""
    name = draw(st.sampled_from(list(DATASETS)))
    files = [file for file in place.files if place.data / name in file.parents]
    texts = [file for file in files if file.suffix.lower() not in (".png", ".jpg", ".jpeg")]
    changes: dict[str, bytes | None] = {}
    for _ in range(draw(st.integers(1, 2))):
        file = draw(st.sampled_from(texts if texts and draw(st.integers(0, 4)) else files))
        changes[str(file.relative_to(place.root))] = draw(hostile(file.name, place.files[file]))
    reader = name if draw(st.integers(0, 9)) else draw(st.sampled_from(list(BUNDLED)))
    more = draw(st.lists(st.sampled_from(MORE), max_size=1))
    words = ["plan", "--config", "demo.yaml", f"data.reader={reader}", f"data.path={place.sets[name]}", *more]
    return words, changes


KINDS: dict[str, Callable[[Place], st.SearchStrategy[tuple[list[str], dict[str, bytes | None]]]]] = {
    "words": command_line,
    "configuration": configuration,
    "folder": run_folder,
    "data": dataset,
}


def fuzz(
    place: Place,
    kind: str,
    count: int,
    number: int,
    fault: Callable[[BaseException, Any], None],
    begin: Callable[[Any], object] = lambda case: None,
) -> Counter[Any]:
    """How many inputs ended with which exit code. `begin` gets each input, `fault` what is wrong, and the input."""
    ends: Counter[Any] = Counter()

    @seed(number)
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(KINDS[kind](place))
    def try_it(case: tuple[list[str], dict[str, bytes | None]]) -> None:
        begin(case)
        try:
            ends[place.check(*case)] += 1
        except Exception as error:
            ends["fault"] += 1
            fault(error, case)

    signal.signal(signal.SIGALRM, too_long)
    try_it()
    return ends


def by_hand(count: int, kinds: list[str], number: int) -> int:
    """Prints one input for each place that a fault came from, the shortest; an input that ends the whole process (a
    library's own fault) lies in the file that was named first, and Python's stack is printed."""
    found: dict[str, tuple[int, str, str]] = {}

    def note(error: BaseException, case: Any) -> None:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "slurm_bench/" in f.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        key = f"{type(error).__name__} {where} {str(error)[:60] if isinstance(error, Fault) else ''}"
        shown = repr(case)
        if key not in found or len(shown) < found[key][0]:
            trace = "".join(traceback.format_exception(error)[-6:])
            found[key] = (len(shown), shown[:1500], trace[-1500:])

    faulthandler.enable()
    in_hand = Path(tempfile.gettempdir()) / f"fuzz-{os.getpid()}.txt"
    print(f"what is in hand: {in_hand}", flush=True)
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    place = Place(folder / "place")
    try:
        for kind in kinds:
            begin = time.monotonic()
            ends = fuzz(
                place, kind, count // len(kinds), number, note, lambda case: in_hand.write_text(ascii(case)) and None
            )
            seconds = time.monotonic() - begin
            print(f"{kind:14} {ends.total():7} inputs in {seconds:.0f} s, by exit code: {dict(ends)}", flush=True)
    finally:  # who interrupts hours of it is told what was found
        place.close()
        shutil.rmtree(folder)
        in_hand.unlink(missing_ok=True)
        for key, (_, shown, trace) in found.items():
            print(f"\n== {key}\n{shown}\n{trace}", flush=True)
    return len(found)


if __name__ == "__main__":
    asked = sys.argv[1:] or ["1000"]
    words = [word for word in asked[1:] if not word.isdigit()]
    sys.exit(bool(by_hand(int(asked[0]), words or list(KINDS), next((int(w) for w in asked[1:] if w.isdigit()), 0))))
