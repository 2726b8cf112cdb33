"""What `bench --run` works on, written once: checkpoints with random weights, and a benchmark of drawn pictures.
Without SAMPLES, the checkpoint of the model that edits alone.
`python -m slurm_bench.bench.write_inputs FOLDER SIZE MODEL [SAMPLES]`."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from slurm_bench.bench.pictures import INSTRUCTION, picture
from slurm_bench.bench.random_qwen_image_21 import random_qwen_image_21
from slurm_bench.bench.run import MODELS
from slurm_bench.editors.qwen.random_weights import random_pipeline
from slurm_bench.machine import free_memory
from slurm_bench.scorers.qwen3vl.random_weights import random_judge

SHARD = "5GB"
SIDES = {"full": 1024, "tiny": 128}
PIPELINES: dict[str, Callable[[str, str, str], Any]] = {
    "qwen-image-edit": random_pipeline,
    "qwen-image-2.1": random_qwen_image_21,
}


def main(words: list[str]) -> None:
    root, size, model, samples = Path(words[0]), words[1], words[2], int(words[3]) if words[3:] else 0
    device = "cuda" if torch.cuda.is_available() and size == "full" else "cpu"
    dtype = "bfloat16" if size == "full" else "float32"

    def pipeline(folder: Path) -> None:
        PIPELINES[model](size, device, dtype).save_pretrained(folder, max_shard_size=SHARD)

    def judge(folder: Path) -> None:
        model, processor = random_judge(size, device=device, dtype=dtype)
        model.save_pretrained(folder, max_shard_size=SHARD)
        processor.save_pretrained(folder)

    _once(root / size / MODELS[model].folder, pipeline)
    free_memory()
    if not samples:
        return
    _once(root / size / "judge", judge)
    lines = []
    for index in range(samples):
        name = f"{size}-{index}.png"
        picture(index, SIDES[size]).save(root / name)
        sample = {"id": f"s{index}", "category": "physical", "image": name, "instruction": f"{INSTRUCTION} ({index})"}
        lines.append(json.dumps(sample))
    (root / f"{size}.jsonl").write_text("\n".join(lines) + "\n")


def _once(folder: Path, write: Callable[[Path], None]) -> None:
    """Under its name when it is whole."""
    if folder.exists():
        return
    begun = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir(parents=True)
    write(begun)
    begun.rename(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
