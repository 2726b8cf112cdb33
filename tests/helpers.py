"""What many tests need: a small benchmark, a configuration, a launcher, and a look into the run folder."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from slurm_bench.run.layout import RunDir
from slurm_bench.run.records import read_records

REPO = Path(__file__).resolve().parents[1]
CATEGORIES = ("physical", "environmental", "social", "causal", "referential")


def make_benchmark(folder: Path, count: int = 12) -> Path:
    """A JSONL file with small noisy images beside it; ids s-0 … s-(count-1)."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for n in range(count):
        noise = random.Random(n).randbytes(48 * 32 * 3)
        Image.frombytes("RGB", (48, 32), noise).save(folder / f"{n}.png")
        category = CATEGORIES[n % len(CATEGORIES)]
        lines.append({"id": f"s-{n}", "category": category, "instruction": f"edit {n}", "image": f"{n}.png"})
    file = folder / "bench.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def make_config(
    file: Path, data: Path, editor: str = "Tint", params: dict[str, Any] | None = None, **more: Any
) -> Path:
    """A configuration file (JSON is YAML)."""
    config = {
        "data": {"reader": "jsonl", "path": str(data)},
        "editor": {"class_path": f"tests.plugins.{editor}", "params": params or {}},
        "scorers": {"judge": {"class_path": "tests.plugins.Brightness"}},
        "gpus": 2,
        **more,
    }
    file.write_text(json.dumps(config))
    return file


def launch(
    *words: object, env: dict[str, str] | None = None, timeout: float = 2400
) -> subprocess.CompletedProcess[str]:
    """`python launch.py …` in the repository's root, as a user types it."""
    return subprocess.run(
        [sys.executable, "launch.py", *map(str, words)],
        cwd=REPO,
        env=env or dict(os.environ),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def hear_interrupts() -> None:
    """To be called in a process before it is what it shall be: a suite in the background ignores SIGINT, or under nohup
    SIGHUP, and so would all that it starts."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def images(root: Path) -> dict[str, bytes]:
    """Every edited image's bytes by sample id, as the records name them."""
    records = [r for r in read_records(RunDir(root.resolve()), "edit") if r["status"] == "ok"]
    return {r["id"]: (root / r["image"]).read_bytes() for r in records}


def rows(root: Path) -> list[dict[str, str]]:
    """scores.csv, but for where an image lies and how long it took, which say nothing of what it is."""
    with open(root / "report" / "scores.csv", newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    return [{name: cell for name, cell in row.items() if name not in ("image", "seconds")} for row in found]


def summary(root: Path) -> dict[str, Any]:
    return json.loads((root / "report" / "summary.json").read_text())


def attempts(root: Path, stage: str = "edit") -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((root / "attempts").glob(f"{stage}-*.json"))]


def assert_whole(root: Path, undisturbed: Path) -> None:
    """No sample lost, none twice, every image and score as in an undisturbed run."""
    expected = images(undisturbed)
    assert images(root) == expected
    assert rows(root) == rows(undisturbed)
    ids = [row["id"] for row in rows(root)]
    assert len(ids) == len(set(ids)) == len(expected)
    assert summary(root)["counts"]["scored"] == len(expected)


def run_dir(root: Path) -> RunDir:
    return RunDir(root.resolve())
