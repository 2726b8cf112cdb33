"""`bench --memory`: an edit under caps of GPU memory, as a smaller GPU would do it: what is spared, the peak, the
seconds, the error. Each in a process of its own (`capped`), whose peak is of that edit and its loading alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slurm_bench.bench.run import choose_profiles, model_named
from slurm_bench.bench.say import say
from slurm_bench.bench.whole_run import check_room, run_python, write_checkpoints
from slurm_bench.errors import UserError
from slurm_bench.machine import visible_gpu

STEPS = {"full": 10, "tiny": 2}
YARDSTICKS = ("fp8", "exact")  # whose seconds without a cap the others are held against: the first that was measured


def measure_memory(
    model: str, size: str, caps: str, profiles: list[str] | None, folder: Path | None
) -> Iterator[dict[str, Any]]:
    """The results so far, with each row that comes: one for each profile without a cap, and under each of `caps`, in
    GiB. Raises UserError."""
    limits = _gibibytes(caps)
    facts = model_named(model)
    if folder is None:
        raise UserError(f"--memory {caps}: --checkpoints DIR says where the model is to be written, once")
    folder = folder.resolve()
    check_room("--checkpoints", folder, model, size)
    device = "cuda" if size == "full" else "cpu"
    gpu = visible_gpu() if size == "full" else None  # not torch's word: this process must take nothing of the GPU
    known = facts.family.profiles
    chosen = [name for name in choose_profiles(profiles, known, gpu) if known[name].own_loop and not known[name].cache]
    if not chosen:
        raise UserError(f"--profiles {','.join(profiles or [])}: none of them spares memory")
    write_checkpoints("--checkpoints", folder, model, size)  # for minutes: what can be refused has been
    from slurm_bench.bench.machine import describe_machine

    forward = folder / size / f"{facts.folder}-forward.safetensors"
    words = [model, size, folder / size / facts.folder, forward, STEPS[size]]
    # The first computes the reference of the errors too, for which its transformer must be whole.
    each: list[tuple[str, float | None]] = [("exact", None)]
    each += [(name, None) for name in chosen if name != "exact"]
    each += [(name, limit) for limit in limits for name in chosen]
    machine, rows = describe_machine(device), []
    for name, limit in each:
        rows.append(_measured(words, name, limit))
        whole = {row["profile"]: row for row in rows if row["cap_gib"] is None}
        than = next(name for name in YARDSTICKS if name in whole)
        yield {
            "model": model,
            "size": size,
            "steps": STEPS[size],
            "than": than,
            "machine": machine,
            "rows": [_compared(row, whole[row["profile"]], whole[than]) for row in rows],
        }


def _gibibytes(caps: str) -> list[float]:
    try:
        limits = [float(cap) for cap in caps.split(",")]
    except ValueError:
        limits = []
    if not limits or not all(0 < limit < math.inf for limit in limits):
        raise UserError(f"--memory {caps}: write GiB with commas between, like 22,30,38")
    return limits


def _measured(words: list[Any], profile: str, cap: float | None) -> dict[str, Any]:
    say(f"{profile}, {'all memory' if cap is None else f'{cap:g} GiB'}")
    said = run_python("bench --memory", "-m", "slurm_bench.bench.capped", *words, profile, *([cap] if cap else []))
    line = said.splitlines()[-1]
    say(line)
    return {"profile": profile, "cap_gib": cap, **json.loads(line)}


def _compared(row: dict[str, Any], whole: dict[str, Any], yardstick: dict[str, Any]) -> dict[str, Any]:
    """To the same profile without a cap, by the image's bytes, and to the yardstick by its seconds."""
    if row["failed"] or yardstick["failed"]:
        return {**row, "times": None, "same": None}
    same = None if row is whole else row["sha256"] == whole.get("sha256")
    return {**row, "times": round(row["seconds"] / yardstick["seconds"], 3), "same": same}
