"""What runs of 10⁴, 10⁵ (and with `--million` 10⁶) samples cost to plan, begin, watch and report, in CPU seconds:
`python -m tests.scale`. By hand: it takes minutes.

The runs are made of records alone, no plug-in is loaded and no picture is real. Each act has a process of its own,
which tells its CPU seconds after its imports and its peak memory. The exponent is that of the CPU seconds from the size
before: 1 is proportional.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from slurm_bench.bundled import bundled
from slurm_bench.cluster.heard import hear
from slurm_bench.config import dump, load_config
from slurm_bench.data.item import Item
from slurm_bench.report.write import write_report
from slurm_bench.run.attempts import claim, close, read_attempt
from slurm_bench.run.layout import VERSION, RunDir
from slurm_bench.run.ledger import read_state
from slurm_bench.run.opened import open_run
from slurm_bench.run.plan import Plan
from slurm_bench.watch.explain import read_causes
from slurm_bench.watch.status import status_of
from tests.memory import peak_kilobytes

TASKS = 64
CATEGORIES = ("physical", "environmental", "social", "causal", "referential")
BY = "0123456789ab"
BEGUN = 1_700_000_000.0
SECONDS = 1.5  # a sample
# So many of a thousand samples fail, and of so many a millionth has an image that can be looked for.
FAILED, PICTURED = 10, 100_000


def make_run(folder: Path, count: int) -> Path:
    """Edited and scored whole, but for what failed."""
    run = RunDir(folder)
    run.root.mkdir(parents=True)
    run.config.write_text(dump(load_config(bundled("demo.yaml"))))
    plan(folder, count)
    ids = [item.id for item in items(count)]
    for stage in ("edit", "score"):
        run.records(stage).mkdir(parents=True)
        if attempt := claim(run, stage, ids, TASKS, "local", 0, 1):
            close(run, attempt)
        for task in range(TASKS):
            write_task(run, stage, task, ids)
    return folder


def items(count: int) -> Iterator[Item]:
    for n in range(count):
        words = f"make number {n} of them blue, and leave what stands behind it as it is"
        yield Item(f"sample-{n:07d}", CATEGORIES[n % 5], words, Path(f"/data/benchmark/images/{n:07d}.png"))


def write_task(run: RunDir, stage: str, task: int, ids: Sequence[str]) -> None:
    where = {"host": f"node{task // 8}", "node": f"node{task // 8}"}
    now = BEGUN if stage == "edit" else BEGUN + 2 * SECONDS * len(ids) / TASKS
    events: list[dict[str, Any]] = [{"event": "start", "time": now, "began": now, "pid": 1, "gpus": [], **where}]
    with run.manifest(stage, 1, task, 0).open("w") as file:
        for n in range(task, len(ids), TASKS):
            now += SECONDS
            row = {"attempt": 1, "task": task, **where, "by": BY, "v": VERSION, "time": now}
            file.write(json.dumps({**record(run, stage, n, ids[n], len(ids)), **row}) + "\n")
    events.append({"event": "end", "time": now, "how": "done", "ok": len(ids) // TASKS, "failed": 0})
    journal = run.journal(stage, 1, task, 0)
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.write_text("".join(json.dumps(event) + "\n" for event in events))


def record(run: RunDir, stage: str, n: int, sample_id: str, count: int) -> dict[str, Any]:
    row: dict[str, Any] = {"id": sample_id, "status": "ok", "seconds": SECONDS}
    if n % 1000 < FAILED:
        stands = {"scorer": "metrics", "edit_sha256": f"{n:064x}"} if stage == "score" else {}
        error = {"type": "ValueError", "message": f"the reply of {n} characters has no score"}
        return row | {"status": "error", "error": error, **stands}
    if stage == "score":
        row |= {"scores": {"similarity": n % 97 / 97}, "raw": "of the same size", "parse": "ok", "info": {}}
        return row | {"scorer": "metrics", "edit_sha256": f"{n:064x}", "source_sha256": f"{n + 1:064x}"}
    image = run.image(sample_id, BY)
    if count <= PICTURED:
        (run.root / image).parent.mkdir(parents=True, exist_ok=True)
        (run.root / image).write_bytes(b"\0")
    row |= {"image": image, "sha256": f"{n:064x}", "bytes": 1, "source_sha256": f"{n + 1:064x}", "seed": n}
    parts = {"text": 0.2, "denoise": 1.2, "decode": 0.1, "encode": 0.02}
    return row | {"width": 1024, "height": 1024, "unchanged": False, "info": {"profile": "exact", "seconds": parts}}


def plan(root: Path, count: int) -> None:
    made = Plan(RunDir(root))
    made.add(items(count), 0)
    made.freeze()


def start_task(root: Path) -> None:
    """What a scoring task reads before it loads its model: the most that a task reads."""
    run = open_run(root)
    attempt = read_attempt(run.folder.attempt("score", 1))
    samples = {sample.id: sample for sample in run.samples}
    read_state(run.folder, [samples[i] for i in attempt.slice(1)], run.config.scorers, run.by)


def further_look(root: Path) -> float:
    """A record more in each manifest of a stage."""
    ledger = open_run(root).ledger()
    ledger.look()
    for file in (root / "score" / "records").iterdir():
        with file.open("rb+") as manifest:
            last = manifest.read().splitlines()[-1]
            manifest.write(last + b"\n")
    begin = time.process_time()
    ledger.look()
    return time.process_time() - begin


ACTS: dict[str, Callable[[Path, int], Any]] = {
    "planning": lambda root, count: plan(root.with_name("planned"), count),
    "task start": lambda root, _: start_task(root),
    "first look": lambda root, _: open_run(root).ledger().look(),
    "further look": lambda root, _: further_look(root),
    "status": lambda root, _: status_of(open_run(root), hear),
    "explain": lambda root, count: read_causes(open_run(root), hear, over=count > PICTURED),
    "report": lambda root, _: write_report((run := open_run(root)), run.state()),
}


def act(name: str, root: Path, count: int) -> dict[str, float]:
    begin = time.process_time()
    found = ACTS[name](root, count)
    seconds = found if isinstance(found, float) else time.process_time() - begin
    return {"seconds": seconds, "megabytes": peak_kilobytes() / 1024}


def main(words: Sequence[str]) -> None:
    asked = argparse.ArgumentParser(prog="python -m tests.scale")
    asked.add_argument("--million", action="store_true")
    asked.add_argument("--act", nargs=3, metavar=("ACT", "RUN", "COUNT"), help="this one alone, as JSON")
    options = asked.parse_args(words)
    if options.act:
        name, root, count = options.act
        print(json.dumps(act(name, Path(root), int(count))))
        return
    counts = [10_000, 100_000, *([1_000_000] if options.million else [])]
    before: dict[str, float] = {}
    print("| | samples | CPU seconds | peak MB | exponent |\n|---|---:|---:|---:|---:|")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            root = make_run(Path(folder) / "run", count)
            for name in ACTS:
                command = [sys.executable, "-m", "tests.scale", "--act", name, str(root), str(count)]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                seconds = found["seconds"]
                exponent = f"{math.log10(seconds / before[name]):.2f}" if name in before else ""
                before[name] = seconds
                print(f"| {name} | {count:,} | {seconds:.3g} | {found['megabytes']:,.0f} | {exponent} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
