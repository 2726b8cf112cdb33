"""One edit under a cap of GPU memory, in a process of its own, told as a line of JSON.
`python -m slurm_bench.bench.capped MODEL SIZE CHECKPOINT FORWARD STEPS PROFILE [GIB]`.

On a CPU nothing is capped, but the editor spares as on a GPU of that size.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from slurm_bench.bench.editing import DTYPES, MODELS, float32_velocity, relative_error
from slurm_bench.bench.model import Model
from slurm_bench.bench.pictures import INSTRUCTION, picture
from slurm_bench.bench.run import MODELS as FACTS
from slurm_bench.editors.base import Edited, EditRequest
from slurm_bench.editors.qwen.base_session import BaseSession
from slurm_bench.editors.qwen.fit import choose_fit
from slurm_bench.errors import UserError
from slurm_bench.importing import import_name
from slurm_bench.machine import CONTEXT, GIB, Gpu, gpu_at

SIDES = {"full": 1024, "tiny": 128}
EDITS = 2  # the first of a process builds its kernels


def main(words: list[str]) -> dict[str, Any]:
    name, size, checkpoint, forward, steps, profile = words[:6]
    device = "cuda" if size == "full" else "cpu"
    if device == "cpu":
        torch.set_num_threads(1)  # more only get in each other's way at this size
    gpu = _gpu(device, float(words[6]) * GIB if words[6:] else None)
    editor = import_name(FACTS[name].class_path, "class_path")(
        checkpoint,
        dtype=DTYPES[device],
        num_inference_steps=int(steps),
        max_pixels=SIDES[size] ** 2,
        profile=profile,
        device=device,
    )
    requests = [EditRequest(f"bench-{n}", INSTRUCTION, (picture(0, SIDES[size]),), 0) for n in range(EDITS)]
    try:
        folder, chosen = editor._find(), editor.settings.profile_on(cuda=device == "cuda")
        fit = choose_fit(folder, editor.settings, chosen, gpu)
        editor.load(gpu=gpu)
        editor.prepare(iter(requests))
        results = [editor.edit([request])[0] for request in requests]
        failures = [result for result in results if not isinstance(result, Edited)]
        if failures:
            raise failures[0]
        model, session = MODELS[name], editor._session
        if not Path(forward).exists() and not session.settings.savings and profile == "exact":
            _write_forward(Path(forward), model, session, requests[0])
        error = _error(Path(forward), model, session)
    except (UserError, torch.OutOfMemoryError) as problem:
        return {"failed": str(problem).strip().partition("\n")[0]}
    first, last = (result.info["seconds"] for result in results)
    return {
        "failed": None,
        "savings": list(fit.settings.savings),
        "needed_gib": round(fit.needed / GIB, 2),
        "peak_gib": _peak(device),
        "load_seconds": first["load"],
        "seconds": round(sum(last[part] for part in ("text", "denoise", "decode")), 3),
        "error": error,
        "sha256": hashlib.sha256(results[-1].image.tobytes()).hexdigest(),
    }


def _gpu(device: str, cap: float | None) -> Gpu | None:
    """What the editor is to fit into; torch is held to it."""
    whole = gpu_at(device)
    if cap is None:
        return whole
    if whole is None:
        return Gpu("a GPU of that size", int(cap), (0, 0))
    torch.cuda.set_per_process_memory_fraction(max(0.0, min(1.0, (cap - CONTEXT) / whole.memory)))
    return Gpu(f"{whole.name}, capped,", int(cap), whole.capability)


def _peak(device: str) -> float | None:
    """The most that the process took of the card: what torch reserved, and all else there."""
    if device != "cuda":
        return None
    free, total = torch.cuda.mem_get_info()
    beside = total - free - torch.cuda.memory_reserved()
    return round((torch.cuda.max_memory_reserved() + beside) / GIB, 2)


def _write_forward(file: Path, model: Model, session: BaseSession, request: EditRequest) -> None:
    """A forward's inputs, and its velocity in float32. Under its name when it is whole: what is there is believed."""
    inputs = model.inputs(session, request)
    reference = model.noise(float32_velocity(session, inputs), inputs)
    tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    shapes = json.dumps(inputs["img_shapes"])
    begun = file.with_name(f"{file.name}.part")
    save_file({**{n: t.contiguous() for n, t in tensors.items()}, "velocity": reference}, begun, {"img_shapes": shapes})
    begun.replace(file)


def _error(file: Path, model: Model, session: BaseSession) -> float | None:
    if not file.exists():
        return None
    with safe_open(file, "pt", device=session.device) as stored:
        inputs = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        shapes = json.loads(stored.metadata()["img_shapes"])
    reference = inputs.pop("velocity")
    inputs["img_shapes"] = [[tuple(grid) for grid in grids] for grids in shapes]
    return relative_error(model.velocity(session, inputs), reference)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
