"""Six tasks, one of them four times slower: plain strides beside tasks that take over, in one run. By hand:

    python tests/balance.py [--samples 240] [--delay 0.25]

The ideal is what six tasks of these paces need if none is ever idle. Work is timed from the first sample's begin to the
last one's end, for starting six processes on a small machine takes as long as it takes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from helpers import launch, make_benchmark, make_config, run_dir

from slurm_bench.run.records import Record, read_records

TASKS, TIMES = 6, 4.0


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--samples", type=int, default=240)
    asked.add_argument("--delay", type=float, default=0.25, help="seconds a sample of the quick tasks")
    words = asked.parse_args()
    ideal = words.samples / ((TASKS - 1) / words.delay + 1 / (words.delay * TIMES))
    print(f"{words.samples} samples, {TASKS} tasks, one {TIMES:g} times slower than {words.delay:g} s a sample")
    print(f"ideal    {ideal:6.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        for takeover in ("never", "auto"):
            records = work(Path(folder, takeover), words.samples, words.delay, takeover)
            took = max(r["time"] for r in records) - min(r["time"] - r["seconds"] for r in records)
            by_task = Counter(r["task"] for r in records)
            doubles = len(records) - len({r["id"] for r in records})
            print(f"{takeover:8} {took:6.1f} s, {took / ideal - 1:+.0%} of the ideal; samples by task: ", end="")
            print(*(by_task[task] for task in range(TASKS)), f"; done twice: {doubles}")


def work(folder: Path, samples: int, delay: float, takeover: str) -> list[Record]:
    data = make_benchmark(folder / "bench", samples)
    params = {"marks": str(folder), "delay": delay, "times": TIMES}
    config = make_config(folder / "c.yaml", data, "OneIsSlow", params, gpus=TASKS, takeover=takeover)
    done = launch("--config", config, "--run-dir", folder / "run", "--executor", "local", timeout=3600)
    assert done.returncode == 0, done.stderr
    return read_records(run_dir(folder / "run"), "edit")


if __name__ == "__main__":
    main()
