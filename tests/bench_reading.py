"""How long a benchmark of real size takes to read, and how much memory: python -m tests.bench_reading

Writes a JSON list of 270 items with 2 M base64 characters each (545 MB), and times, each in a process of its own,
json.load of it, the reader with all its checks, and the whole plan with its images unpacked. Then 10,000 image files
named by a JSONL. Prints seconds and peak memory (RSS).
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

MEASURED = {
    "json.load": "import json; print(len(json.load(open(path, encoding='utf-8'))))",
    "the reader": """
from slurm_bench.config import DataConfig
from slurm_bench.data import read_items
print(sum(1 for item in read_items(DataConfig(reader=reader, path=path)) if not item.problem))
""",
    "the plan": """
import tempfile; from pathlib import Path
from slurm_bench.config import DataConfig
from slurm_bench.data import read_items
from slurm_bench.run.layout import RunDir
from slurm_bench.run.plan import Plan
with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
    plan = Plan(RunDir(Path(folder)))
    plan.add(read_items(DataConfig(reader=reader, path=path)), 0)
    print(len(plan.freeze()))
""",
}
PEAK = "\nfrom tests.memory import peak_kilobytes; print(peak_kilobytes() // 1024)"
TIMED = "import sys, time; reader, path = sys.argv[1:]; begin = time.monotonic()\n{}\nprint(time.monotonic() - begin)"


def write_list(file: Path, count: int, characters: int) -> None:
    noise = random.Random(0).randbytes(characters * 3 // 4)
    side = int((len(noise) / 3) ** 0.5)
    image = io.BytesIO()
    Image.frombytes("RGB", (side, side), noise[: side * side * 3]).save(image, "PNG", compress_level=0)
    encoded = base64.b64encode(image.getvalue()).decode()
    with file.open("w", encoding="utf-8") as out:
        for n in range(count):
            item = {"subset": "物理", "edit_instruction": f"改 {n}", "original_image_path": f"images/{n}.png"}
            out.write(("[" if n == 0 else ", ") + json.dumps(item | {"src_img_b64": encoded}, ensure_ascii=False))
        out.write("]")


def write_files(file: Path, count: int) -> None:
    image = io.BytesIO()
    Image.frombytes("RGB", (256, 256), random.Random(0).randbytes(256 * 256 * 3)).save(image, "JPEG", quality=90)
    with file.open("w") as out:
        for n in range(count):
            (file.parent / f"{n}.jpg").write_bytes(image.getvalue())
            out.write(json.dumps({"id": n, "instruction": "edit", "image": f"{n}.jpg"}) + "\n")


def measure(reader: str, path: Path, what: str) -> None:
    code = TIMED.format(MEASURED[what]) + PEAK
    done = subprocess.run(
        [sys.executable, "-c", code, reader, str(path)], stdout=subprocess.PIPE, text=True, check=True
    )
    count, seconds, peak = done.stdout.split()
    print(f"{path.name:12} {what:12} {count:>6} items {float(seconds):7.2f} s {peak:>6} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=270)
    parser.add_argument("--characters", type=int, default=2_000_000)
    parser.add_argument("--files", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large, many = Path(folder) / "bench.json", Path(folder) / "files.jsonl"
        write_list(large, options.items, options.characters)
        print(f"{large.name}: {large.stat().st_size / 1e6:.0f} MB")
        for what in MEASURED:
            measure("five_category", large, what)
        large.unlink()
        write_files(many, options.files)
        measure("jsonl", many, "the reader")


if __name__ == "__main__":
    main()
