"""`bench --run`: this very tool's run, from typed to report, on checkpoints of random weights; and where the seconds
went. No torch here: what needs it are processes of their own, as in a user's run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from slurm_bench.bench.say import say
from slurm_bench.errors import UserError
from slurm_bench.machine import GIB, Gpu, check_gpu_memory, package_versions, visible_gpu, visible_gpus
from slurm_bench.run.layout import RunDir
from slurm_bench.run.timeline import read_timeline

SAMPLES = {"full": 12, "tiny": 2}
STEPS = {"full": 10, "tiny": 2}
NEEDED = 64 * GIB  # on a GPU: the pipeline in bf16, and room to work
# Weights and pictures of the full size, on disk and in the page cache.
FULL_BYTES = 78e9


def run_whole(folder: Path, size: str, gpus: int | None, executor: str) -> dict[str, Any]:
    """On `gpus` GPUs, or all that can be seen here. Raises UserError where the run can't start, or didn't end well."""
    if size == "full":
        check_gpu_memory(NEEDED, _one_gpu(), "bench --run", "take --size tiny, or a larger GPU")
        free = shutil.disk_usage(_existing(folder)).free
        if free < FULL_BYTES and not (folder / size).exists():
            raise UserError(f"--run {folder}: {free / 1e9:.0f} GB are free there, of {FULL_BYTES / 1e9:.0f} needed")
    folder.mkdir(parents=True, exist_ok=True)
    say(f"checkpoints of size {size} into {folder}")
    _python("-m", "slurm_bench.bench.write_inputs", folder, size, SAMPLES[size])
    config = folder / f"{size}.json"
    config.write_text(json.dumps(_config(folder, size)))
    root = folder / time.strftime("run-%Y%m%d-%H%M%S")
    words = ["--config", config, "--run-dir", root, "--executor", executor, "--wait"]
    words += ["--gpus", gpus or max(1, len(visible_gpus()))]
    say(f"the run, by {executor}")
    begin = time.time()
    _python("-m", "slurm_bench", *words)
    seconds = time.time() - begin
    return {
        "size": size,
        "samples": SAMPLES[size],
        "steps": STEPS[size],
        "executor": executor,
        "gpus": [gpu.name for gpu in visible_gpus()],
        "versions": package_versions(),
        "seconds": round(seconds, 2),
        "processes": [
            {
                "name": process.name,
                "node": process.node,
                "begin": round(process.begin - begin, 2),
                "end": None if process.end is None else round(process.end - begin, 2),
                "parts": [
                    {"name": part.name, "begin": round(part.begin - begin, 2), "seconds": round(part.seconds, 2)}
                    for part in process.parts
                ],
            }
            for process in read_timeline(RunDir(root))
        ],
    }


def _one_gpu() -> Gpu:
    gpu = visible_gpu()
    if gpu is None:
        raise UserError("bench --run: no CUDA GPU here; run it where there is one, or take --size tiny")
    return gpu


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)


def _config(folder: Path, size: str) -> dict[str, Any]:
    """JSON, which is YAML too."""
    small = size == "tiny"
    return {
        "data": {"reader": "jsonl", "path": str(folder / f"{size}.jsonl")},
        "editor": {
            "class_path": "slurm_bench.editors.qwen.QwenImageEditor",
            "params": {
                "model_name": str(folder / size / "edit"),
                "num_inference_steps": STEPS[size],
                **({"dtype": "float32", "max_pixels": 128 * 128, "device": "cpu"} if small else {"profile": "fp8"}),
            },
        },
        "scorers": {
            "judge": {
                "class_path": "slurm_bench.scorers.qwen3vl.Qwen3VLScorer",
                "params": {
                    "model_name": str(folder / size / "judge"),
                    "min_mass": 0.0,
                    **({"dtype": "float32", "max_pixels": 128 * 128, "device": "cpu"} if small else {}),
                },
            }
        },
    }


def _python(*words: Any) -> None:
    """Raises UserError with what the process said last."""
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(
        [sys.executable, *map(str, words)], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise UserError(f"bench --run: {' '.join(map(str, words[1:2]))} failed: {done.stderr.strip()[-2000:]}")
