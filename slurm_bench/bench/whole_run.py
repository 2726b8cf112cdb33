"""`bench --run`: this very tool's run, from typed to report, on checkpoints of random weights; and where the seconds
went. No torch here: what needs it are processes of their own, as in a user's run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slurm_bench.bench.run import MODELS, ModelFacts, model_named
from slurm_bench.bench.say import say
from slurm_bench.errors import UserError
from slurm_bench.machine import check_gpu_memory, package_versions, visible_gpu, visible_gpus
from slurm_bench.run.layout import RunDir
from slurm_bench.run.records import read_records
from slurm_bench.run.timeline import read_timeline

SAMPLES = {"full": 12, "tiny": 2}
STEPS = {"full": 10, "tiny": 2}
JUDGE_BYTES = 20_000_000_000  # of the judge's weights and the pictures, on disk


def run_whole(folder: Path, model: str, size: str, gpus: int | None, executor: str) -> Iterator[dict[str, Any]]:
    """On `gpus` GPUs, or all that can be seen here: one result. Raises UserError where the run can't start, or didn't
    end well."""
    facts = model_named(model)
    write_checkpoints("--run", folder, model, size, JUDGE_BYTES, SAMPLES[size])
    config = folder / f"{size}.json"
    config.write_text(json.dumps(configuration(folder, size, facts)))
    root = folder / time.strftime("run-%Y%m%d-%H%M%S")
    words = ["--config", config, "--run-dir", root, "--executor", executor, "--wait"]
    words += ["--gpus", gpus or max(1, len(visible_gpus()))]
    say(f"the run, by {executor}")
    begin = time.time()
    run_python("bench --run", "-m", "slurm_bench", *words)
    seconds = time.time() - begin
    yield {
        "model": model,
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
        "failures": failures(RunDir(root)),
    }


def failures(run: RunDir) -> dict[str, int]:
    """What failed at first and was made by a further attempt, and how often: it tells why that was needed."""
    errors = [
        record["error"] for stage in ("edit", "score") for record in read_records(run, stage) if "error" in record
    ]
    return dict(Counter(f"{error['type']}: {error['message']}" for error in errors))


def write_checkpoints(option: str, folder: Path, model: str, size: str, more: int = 0, samples: int = 0) -> None:
    """By a process of its own, for the `option` of bench; those that are there already are left. Raises UserError where
    there is no room for them."""
    check_room(option, folder, model, size, more)
    folder.mkdir(parents=True, exist_ok=True)
    say(f"checkpoints of size {size} into {folder}")
    words = [folder, size, model, *([samples] if samples else [])]
    run_python(f"bench {option}", "-m", "slurm_bench.bench.write_inputs", *words)


def check_room(option: str, folder: Path, model: str, size: str, more: int = 0) -> None:
    """For the model, on the GPU and in `folder`, where `more` bytes are needed beside its own. Raises UserError."""
    facts = MODELS[model]
    if size == "full":
        gpu = visible_gpu()
        if gpu is None:
            raise UserError(f"bench {option}: no CUDA GPU here; run it where there is one, or take --size tiny")
        check_gpu_memory(facts.needed, gpu, f"bench {option}", "take --size tiny, or a larger GPU")
        free, needed = shutil.disk_usage(_existing(folder)).free, facts.size + more
        if free < needed and not (folder / size / facts.folder).exists():
            raise UserError(f"{option} {folder}: {free / 1e9:.0f} GB are free there, of {needed / 1e9:.0f} needed")


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)


def configuration(folder: Path, size: str, model: ModelFacts) -> dict[str, Any]:
    """JSON, which is YAML too."""
    small = size == "tiny"
    return {
        "data": {"reader": "jsonl", "path": str(folder / f"{size}.jsonl")},
        "editor": {
            "class_path": model.class_path,
            "params": {
                "model_name": str(folder / size / model.folder),
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


def run_python(what: str, *words: Any) -> str:
    """What the process printed. Raises UserError with what it said last."""
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(
        [sys.executable, *map(str, words)], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise UserError(f"{what}: {' '.join(map(str, words[1:2]))} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout
