"""Images a second of batches at a small size, by a model whose editor takes them."""

from __future__ import annotations

import statistics
import time
from typing import Any

from slurm_bench.bench.editing import DTYPES, MODELS, REPEATS
from slurm_bench.bench.machine import peak_gib, reset_peak
from slurm_bench.bench.pictures import INSTRUCTION, picture
from slurm_bench.bench.say import say
from slurm_bench.editors.base import EditRequest
from slurm_bench.editors.qwen.profiles import profile_named
from slurm_bench.machine import free_memory

SIDES = {"full": 512, "tiny": 64}
COUNTS = {"full": (1, 2, 4, 8), "tiny": (1, 2)}


def measure_batches(name: str, size: str, device: str) -> list[dict[str, Any]]:
    """A row for each number of samples, by the profile exact, in the model's shortest schedule. None where its samples
    are edited one by one."""
    model, side = MODELS[name], SIDES[size]
    if not model.batched:
        return []
    session = model.session(size, device, DTYPES[device], profile_named("exact", device == "cuda"))
    *_, schedule = model.schedules[size]
    session.change_settings(
        max_pixels=side * side,
        num_inference_steps=schedule.steps,
        true_cfg_scale=schedule.scale,
        scheduler=schedule.scheduler,
    )
    rows: list[dict[str, Any]] = []
    for count in COUNTS[size]:
        requests = [EditRequest(f"bench-{n}", INSTRUCTION, (picture(n, side),), n) for n in range(count)]
        session.edit_together(requests)  # shapes that are new take longer once
        reset_peak()
        seconds = statistics.median(_seconds(session, requests) for _ in range(REPEATS[size]))
        rate = count / seconds
        rows.append(
            {
                "batch": count,
                "pixels": side * side,
                "steps": schedule.steps,
                "images_per_second": round(rate, 3),
                "times": round(rate / rows[0]["images_per_second"], 3) if rows else 1.0,
                "peak_gib": peak_gib(),
            }
        )
        say(f"exact: {rate:.2f} images a second in batches of {count} at {side}x{side}")
    del session
    free_memory()
    return rows


def _seconds(session: Any, requests: list[EditRequest]) -> float:
    begin = time.perf_counter()
    session.edit_together(requests)
    return time.perf_counter() - begin
