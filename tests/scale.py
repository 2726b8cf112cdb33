"""How long the readers of a run take at a size, in CPU seconds: `python -m tests.scale 10000 100000`. By hand.

The run is made of records alone: no image is written, no plug-in is loaded.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slurm_bench.bundled import bundled
from slurm_bench.cluster.heard import hear
from slurm_bench.config import dump, load_config
from slurm_bench.report.write import write_report
from slurm_bench.run.attempts import claim, close
from slurm_bench.run.layout import VERSION, RunDir
from slurm_bench.run.opened import open_run
from slurm_bench.run.plan import Sample
from slurm_bench.run.slices import seed_of
from slurm_bench.watch.explain import read_causes
from slurm_bench.watch.status import status_of

TASKS = 64
CATEGORIES = ("physical", "environmental", "social", "causal", "referential")


def make_run(folder: Path, count: int) -> Path:
    run = RunDir(folder)
    run.root.mkdir(parents=True)
    run.config.write_text(dump(load_config(bundled("demo.yaml"))))
    ids = [f"sample-{n:07d}" for n in range(count)]
    with run.plan.open("w") as plan:
        for n, i in enumerate(ids):
            words = f"make number {n} of them blue"
            sample = Sample(n, i, CATEGORIES[n % 5], words, (f"/data/{i}.png",), seed_of(i, 0))
            plan.write(json.dumps(sample.to_json()) + "\n")
    stamp = {"attempt": 1, "host": "node", "node": "node", "by": "0123456789ab", "v": VERSION, "time": 1.0}
    for stage in ("edit", "score"):
        run.records(stage).mkdir(parents=True)
        if attempt := claim(run, stage, ids, TASKS, "local", 0, 1):
            close(run, attempt)
        for task in range(TASKS):
            with run.manifest(stage, 1, task, 0).open("w") as file:
                for n in range(task, count, TASKS):
                    row: dict[str, Any] = {"id": ids[n], "status": "ok", "seconds": 1.5}
                    if stage == "edit":
                        row |= {"image": run.image(ids[n], "0123456789ab"), "sha256": f"{n:064x}", "bytes": 1000}
                        row |= {"source_sha256": "b" * 64, "width": 1024, "height": 1024, "unchanged": False, "seed": n}
                        row |= {"info": {"seconds": {"text": 0.2, "denoise": 1.2, "decode": 0.1}}}
                    else:
                        row |= {"scores": {"similarity": n % 97 / 97}, "raw": None, "parse": "ok", "info": {}}
                        row |= {"scorer": "metrics", "edit_sha256": f"{n:064x}", "source_sha256": "b" * 64}
                    file.write(json.dumps({**row, "task": task, **stamp}) + "\n")
    return folder


def timed(name: str, act: Callable[[], Any]) -> Any:
    begin = time.process_time()
    result = act()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  {name:12} {time.process_time() - begin:7.2f} s   peak so far {peak:6.0f} MB", flush=True)
    return result


def main(counts: list[int]) -> None:
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            root = make_run(Path(folder) / "run", count)
            print(f"{count} samples")
            run = timed("open", lambda root=root: open_run(root))
            state = timed("state", run.state)
            timed("status", lambda run=run: status_of(run, hear))
            timed("explain", lambda run=run: read_causes(run, hear, over=True))
            timed("report", lambda run=run, state=state: write_report(run, state))


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [10_000, 100_000])
