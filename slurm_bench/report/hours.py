"""Where the hours of a run's tasks went, as rows for a person to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slurm_bench.run.hours import in_order

# A share that is less than this, of all that a stage's tasks held their places for, isn't told.
LEAST = 0.0005
NONE = "–"


def hours_title(hours: Mapping[str, Mapping[str, Any]]) -> str:
    return f"Where the {_unit(hours)}hours went"


def hours_rows(hours: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """`hours` is hours.json's. A row's label, and what each stage has of it; the first row has the stages' names."""
    unit, stages = _unit(hours), hours.values()
    rows = [("", [f"{name}, {stage['tasks']} task{'s' * (stage['tasks'] != 1)}" for name, stage in hours.items()])]
    for kind in in_order({kind: seconds for stage in stages for kind, seconds in stage["by_kind"].items()}):
        cells = [_share(stage["by_kind"].get(kind, 0.0), stage["held"]) for stage in stages]
        rows += [(kind, cells)] if set(cells) != {NONE} else []
    rows.append((f"{unit}time in all", [amount(stage["held"]) for stage in stages]))
    rows.append(
        (
            f"{unit}seconds a sample",
            [NONE if stage["seconds_a_sample"] is None else f"{stage['seconds_a_sample']:.3g}" for stage in stages],
        )
    )
    beside = {"queue wait": "queue", "idle tail": "tail", "encoding, behind": "encode_behind"}
    return [*rows, *((f"beside: {label}", [amount(s[key]) for s in stages]) for label, key in beside.items())]


def _share(seconds: float, held: float) -> str:
    return f"{amount(seconds)} ({100 * seconds / held:.0f} %)" if held and seconds > LEAST * held else NONE


def amount(seconds: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 100 * size / 60:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _unit(hours: Mapping[str, Mapping[str, Any]]) -> str:
    """A task of several GPUs holds all of them in each of its seconds."""
    gpus = {stage["gpus"] for stage in hours.values()} - {0}
    return "GPU-" if gpus == {1} else "task-" if gpus else ""
