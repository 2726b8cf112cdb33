"""`plan`: what would be submitted, and what it would take. It submits and writes nothing."""

from __future__ import annotations

import math
import re
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from slurm_bench.cluster.chain import Executor, Step, first_step, propose
from slurm_bench.cluster.forecast import Pace, Told, known_to_us, paces
from slurm_bench.cluster.local import gpu_slots
from slurm_bench.cluster.queue import expected_start, gpus_of
from slurm_bench.cluster.slurm import Slurm, slurm_options
from slurm_bench.config import at_once
from slurm_bench.errors import UserError
from slurm_bench.run.attempts import Attempt, read_attempts
from slurm_bench.run.opened import Run
from slurm_bench.run.records import State
from slurm_bench.run.reuse import reusable
from slurm_bench.watch.evidence import STAGES

# Bytes of an edited image of a megapixel, where no earlier run tells better: a photograph as PNG.
IMAGE_BYTES = 2 << 20


def plan_of(run: Run, executor: Executor, like: Told | None, old: Run | None) -> dict[str, Any]:
    """What `plan --json` prints, but for `start`, which Slurm is asked for last. `like` is what a person named to tell
    the time by, `old` the run whose images are to be taken over. What isn't known is null; `attempt` is null where
    nothing would be submitted, and nothing more is said then."""
    state = run.state()
    taken = reusable(run, old, state) if old else {}
    step = _step(state, taken)
    known = {
        "run": str(run.root),
        "reuse": {"run": str(old.root), "images": len(taken)} if old else None,
        "planned": len(run.samples),
        "attempt": None,
    }
    if step is None:
        return known
    attempt = propose(run, step, read_attempts(run.folder), executor)
    counts = {"edit": len(step.samples) if step.stage == "edit" else 0, "score": len(run.samples) - len(state.scored())}
    stages = [stage for stage in STAGES if counts[stage]]
    likes = iter([(STAGES, like)]) if like else known_to_us(run.config, run.root, isinstance(executor, Slurm))
    by_stage = paces(run.config, likes, stages)
    scripts = executor.scripts(run, attempt) if isinstance(executor, Slurm) else {}
    most = _most_at_once(run, scripts)
    return {
        **known,
        **_what(run, attempt),
        "gpus": most or None,
        "at_once": min(attempt.slices, at_once(run.config, attempt.stage)),
        "disk": _disk(run, counts["edit"], by_stage.get("edit")),
        "forecast": _forecast(run, executor, counts, by_stage, scripts, most) | {"like": like.source if like else None},
        "scripts": scripts,
        "standby": _standby(attempt) if scripts else None,
    }


def start_of(scripts: Mapping[str, str]) -> dict[str, str | None] | None:
    """When Slurm thinks that the first one would start, and in what words it `said` so. Raises UserError where it
    would refuse it."""
    if not scripts:
        return None
    said = expected_start(_tested(next(iter(scripts.values()))))
    at = re.search(r"to start at (\S+)", said)
    return {"at": at[1] if at else None, "said": said}


def _step(state: State, taken: Collection[str]) -> Step | None:
    """The first one, with the images of `taken` already there."""
    step = first_step(state)
    if step is None or step.stage != "edit":
        return step
    missing = [sample_id for sample_id in step.samples if sample_id not in taken]
    return Step("edit", missing, 0) if missing else Step("score", [*step.samples, *state.to_score()], 0)


def _what(run: Run, attempt: Attempt) -> dict[str, Any]:
    sample_of = {sample.id: sample for sample in run.samples}
    counts = Counter(sample_of[i].category for i in attempt.samples)
    return {
        "attempt": attempt.name,
        "stage": attempt.stage,
        "executor": attempt.executor,
        "samples": len(attempt.samples),
        "categories": dict(sorted(counts.items())),
        "slices": [
            {"task": task, "ids": list(ids), "indices": [sample_of[i].index for i in ids]}
            for task, ids in enumerate(map(attempt.slice, range(attempt.slices)))
        ],
        "takeover": run.config.takeover,
    }


def _disk(run: Run, images: int, pace: Pace | None) -> dict[str, Any] | None:
    """In bytes. `source` has images as large; null where they are guessed."""
    if not images:
        return None
    size = pace.image_bytes if pace else None
    return {
        "needed": images * (size or IMAGE_BYTES),
        "free": shutil.disk_usage(_existing(run.root)).free,
        "source": pace.source if pace and size else None,
    }


def _forecast(
    run: Run,
    executor: Executor,
    counts: Mapping[str, int],
    known: Mapping[str, Pace],
    scripts: Mapping[str, str],
    most: int,
) -> dict[str, Any]:
    """In seconds: the work, which is that of GPUs where `gpu`, else of tasks, and the wall time of as many tasks side
    by side as were asked for; in all where it is known of every stage."""
    limits = {"score" if name == "finish" else "edit": _limit(script) for name, script in scripts.items()}
    stages = {}
    for stage, pace in sorted(known.items()):
        slices = min(executor.slices(stage, run.config), counts[stage])
        jobs = _most_jobs(run, stage) if scripts else None
        together = min(slices, at_once(run.config, stage), most or slices, (jobs or slices) * run.config.pack)
        longest = math.ceil(counts[stage] / slices) * pace.seconds + pace.start
        stages[stage] = {
            "samples": counts[stage],
            "slices": slices,
            "seconds_a_sample": pace.seconds,
            "seconds_before_the_first": pace.start,
            "work": counts[stage] * pace.seconds + slices * pace.start,
            "wall": math.ceil(slices / together) * longest,
            "longest_task": longest,
            "time_limit": limits.get(stage),
            "source": pace.source,
        }
    unknown = [stage for stage in STAGES if counts[stage] and stage not in known]
    whole = stages and not unknown
    return {
        "gpu": _has_gpu(scripts),
        "stages": stages,
        "unknown": unknown,
        "work": sum(row["work"] for row in stages.values()) if whole else None,
        "wall": sum(row["wall"] for row in stages.values()) if whole else None,
    }


def _most_jobs(run: Run, stage: str) -> int | None:
    """How many of an array's jobs may run at once, where the options of sbatch say it."""
    options = {name.replace("-", "_"): value for name, value in slurm_options(run.config, stage).items()}
    said = options.get("array_parallelism")
    return None if said is None else int(said)


def _most_at_once(run: Run, scripts: Mapping[str, str]) -> int:
    """How many tasks have a GPU each at most, on the nodes that the edit's options leave; 0 where nobody counts."""
    with suppress(UserError):
        return gpus_of(slurm_options(run.config, "edit")) if scripts and _has_gpu(scripts) else 0
    return 0


def _has_gpu(scripts: Mapping[str, str]) -> bool:
    """A task holds a GPU while it lasts: one that its job asks for, or one of this machine's; else a place alone."""
    asks = any(re.search("^#SBATCH --g.*gpu", script, re.MULTILINE) for script in scripts.values())
    return asks or (not scripts and bool(gpu_slots()))


def _limit(script: str) -> float | None:
    """The time limit that a batch script asks for, in seconds; `minutes[:seconds]`, `hours:minutes:seconds`, or
    `days-hours[:minutes[:seconds]]`. None where it is none of these."""
    found = re.search(r"^#SBATCH --time=(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?$", script, re.MULTILINE)
    if not found:
        return None
    days, *numbers = (int(number) if number else None for number in found.groups())
    given = [number for number in numbers if number is not None]
    hours_first = days is not None or len(given) == 3
    units = (3600, 60, 1) if hours_first else (60, 1)
    return 86400 * (days or 0) + sum(unit * number for unit, number in zip(units, given, strict=False)) or None


def _standby(attempt: Attempt) -> list[str]:
    """The options of sbatch in which it differs from `finish`."""
    return [f"--job-name={attempt.job_names.standby}", "--dependency=afternotok:FINISH", "--kill-on-invalid-dep=yes"]


def _tested(script: str) -> str:
    """What is held, or waits for a job that isn't there, has no start to tell."""
    lines: Sequence[str] = script.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(("#SBATCH --hold", "#SBATCH --dependency")))


def _existing(path: Path) -> Path:
    """The nearest folder above that is there already."""
    return path if path.is_dir() else _existing(path.parent)
