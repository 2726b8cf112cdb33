"""Images a second of batches at a small size: by the model itself where its editor takes several samples at once, else
by InstructPix2Pix, which does through DiffusersEditor."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from tempfile import TemporaryDirectory
from typing import Any

from slurm_bench.bench.editing import DTYPES, MODELS, REPEATS
from slurm_bench.bench.machine import peak_gib, reset_peak
from slurm_bench.bench.model import Model
from slurm_bench.bench.pictures import INSTRUCTION, picture
from slurm_bench.bench.random_pix2pix import random_pix2pix
from slurm_bench.bench.say import say
from slurm_bench.editors.base import Edited, EditRequest
from slurm_bench.editors.diffusers_pipeline import DiffusersEditor
from slurm_bench.editors.qwen.profiles import profile_named
from slurm_bench.machine import free_memory

SIDES = {"full": 512, "tiny": 64}
COUNTS = {"full": (1, 2, 4, 8), "tiny": (1, 2)}
PIX2PIX_STEPS = {"full": 20, "tiny": 2}

Edit = Callable[[list[EditRequest]], Any]


def measure_batches(name: str | None, size: str, device: str) -> Iterator[dict[str, Any]]:
    """A row for each number of samples, by the model of this name; None is one that takes them one by one."""
    what, side = name or "InstructPix2Pix", SIDES[size]
    say(f"batches: building {what}")
    steps, edit = _by_session(MODELS[name], size, device) if name else _by_pix2pix(size, device)
    alone: float | None = None
    for count in COUNTS[size]:
        requests = [EditRequest(f"bench-{n}", INSTRUCTION, (picture(n, side),), n) for n in range(count)]
        edit(requests)  # shapes that are new take longer once
        reset_peak()
        seconds = statistics.median(_seconds(edit, requests) for _ in range(REPEATS[size]))
        rate = count / seconds
        alone = alone or rate
        say(f"{what}: {rate:.2f} images a second in batches of {count} at {side}x{side}")
        yield {
            "editor": what,
            "batch": count,
            "pixels": side * side,
            "steps": steps,
            "images_per_second": round(rate, 3),
            "times": round(rate / alone, 3),
            "peak_gib": peak_gib(),
        }
    del edit
    free_memory()


def _by_session(model: Model, size: str, device: str) -> tuple[int, Edit]:
    """In the profile exact and its shortest schedule: steps, and what edits."""
    session = model.session(size, device, DTYPES[device], profile_named("exact", device == "cuda"))
    *_, schedule = model.schedules[size]
    session.change_settings(
        max_pixels=SIDES[size] ** 2,
        num_inference_steps=schedule.steps,
        true_cfg_scale=schedule.scale,
        scheduler=schedule.scheduler,
    )
    return schedule.steps, session.edit_together


def _by_pix2pix(size: str, device: str) -> tuple[int, Edit]:
    steps, dtype = PIX2PIX_STEPS[size], "float16" if device == "cuda" else "float32"
    with TemporaryDirectory() as folder:
        random_pix2pix(size, dtype=dtype).save_pretrained(folder)
        editor = DiffusersEditor(
            "StableDiffusionInstructPix2PixPipeline",
            folder,
            dtype=dtype,
            call={"num_inference_steps": steps, "image_guidance_scale": 1.5},
            batched=True,
            device=device,
        )
        editor.load()

    def edit(requests: list[EditRequest]) -> None:
        for result in editor.edit(requests):
            if not isinstance(result, Edited):
                raise result

    return steps, edit


def _seconds(edit: Edit, requests: list[EditRequest]) -> float:
    begin = time.perf_counter()
    edit(requests)
    return time.perf_counter() - begin
