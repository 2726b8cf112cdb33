"""`plan`: what would be submitted, what it would take, and when it might start. It submits and writes nothing."""

from __future__ import annotations

import math
import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from slurm_bench.cluster.chain import Executor, Step, first_step, propose
from slurm_bench.cluster.forecast import Pace, Told, known_to_us, paces
from slurm_bench.cluster.local import gpu_slots
from slurm_bench.cluster.queue import expected_start, gpus_of
from slurm_bench.cluster.slurm import Slurm, slurm_options
from slurm_bench.command import command
from slurm_bench.config import at_once
from slurm_bench.data.text import printable
from slurm_bench.errors import UserError
from slurm_bench.machine import GIB
from slurm_bench.run.attempts import Attempt, read_attempts
from slurm_bench.run.opened import Run
from slurm_bench.run.records import State
from slurm_bench.run.reuse import reusable
from slurm_bench.run.slices import describe_slices
from slurm_bench.watch.evidence import STAGES
from slurm_bench.watch.wording import columns, duration, fit

# Bytes of an edited image of a megapixel, where no earlier run tells better: a photograph as PNG.
IMAGE_BYTES = 2 << 20

# Of more scripts than these (arrays that are all alike) the first one is told, and the finishing job's.
SCRIPTS = 4

GPU_HOURS = "GPU-hours"


def plan_lines(run: Run, executor: Executor, like: Told | None, old: Run | None) -> Iterator[str]:
    """Line after line, as they become known. `like` is what a person named to tell the time by, `old` the run whose
    images are to be taken over. Raises UserError where Slurm would refuse the array."""
    state, width = run.state(), columns()
    taken = reusable(run, old, state) if old else {}
    step = _step(state, taken)
    if old:
        yield fit(
            f"reuse     {len(taken)} images of {printable(str(old.root))} are taken over, if their sources and they "
            "themselves are still the same; they take no work, and no disk where links are possible",
            width,
        )
    if step is None:
        yield f"nothing is missing in {printable(str(run.root))}: nothing would be submitted"
        return
    attempt = propose(run, step, read_attempts(run.folder), executor)
    counts = {"edit": len(step.samples) if step.stage == "edit" else 0, "score": len(run.samples) - len(state.scored())}
    stages = [stage for stage in STAGES if counts[stage]]
    likes = iter([(STAGES, like)]) if like else known_to_us(run.config, run.root, isinstance(executor, Slurm))
    known = paces(run.config, likes, stages)
    scripts = executor.scripts(run, attempt) if isinstance(executor, Slurm) else {}
    most = _most_at_once(run, scripts)
    limits = {"score" if name == "finish" else "edit": _limit(script) for name, script in scripts.items()}
    for lines in (
        _what(run, attempt),
        _disk(run, counts, known),
        _places(run, attempt, most),
        _forecast(run, executor, counts, known, limits, like, _unit(scripts), most),
    ):
        yield from (fit(line, width) for line in lines)
    if scripts:
        yield from _scripts(attempt, scripts)
    yield "nothing was submitted, nothing was written"


def _step(state: State, taken: Collection[str]) -> Step | None:
    """The first one, with the images of `taken` already there."""
    step = first_step(state)
    if step is None or step.stage != "edit":
        return step
    missing = [sample_id for sample_id in step.samples if sample_id not in taken]
    return Step("edit", missing, 0) if missing else Step("score", [*step.samples, *state.to_score()], 0)


def _what(run: Run, attempt: Attempt) -> Iterator[str]:
    index = {sample.id: sample.index for sample in run.samples}
    category = {sample.id: sample.category for sample in run.samples}
    counts = Counter(category[i] for i in attempt.samples)
    yield f"run       {printable(str(run.root))}"
    yield f"{attempt.name}  {len(attempt.samples)} of {len(run.samples)} samples on {attempt.executor}"
    for name, count in sorted(counts.items()):
        yield f"  {printable(name)}: {count}"
    yield f"slices    idx % {attempt.slices} over what is missing"
    for line in describe_slices([index[i] for i in attempt.slice(task)] for task in range(attempt.slices)):
        yield f"  {line}"


def _disk(run: Run, counts: Mapping[str, int], known: Mapping[str, Pace]) -> Iterator[str]:
    if not counts["edit"]:
        return
    size = known["edit"].image_bytes if "edit" in known else None
    needed = counts["edit"] * (size or IMAGE_BYTES)
    free = shutil.disk_usage(_existing(run.root)).free
    source = f"as in {known['edit'].source}" if size else "at 2 MiB an image, as one of a megapixel may take"
    less = "" if needed < free else "; THIS IS NOT ENOUGH"
    yield f"disk      about {needed / GIB:.2f} GiB of images ({source}), {free / GIB:.1f} GiB are free{less}"


def _forecast(
    run: Run,
    executor: Executor,
    counts: Mapping[str, int],
    known: Mapping[str, Pace],
    limits: Mapping[str, float],
    like: Told | None,
    unit: str,
    most: int,
) -> Iterator[str]:
    """Work, in `unit`, and the wall time of as many tasks side by side as were asked for."""
    work = wall = 0.0
    unknown = [stage for stage in STAGES if counts[stage] and stage not in known]
    for stage, pace in sorted(known.items()):
        slices = min(executor.slices(stage, run.config), counts[stage])
        jobs = int(run.config.slurm.get("array_parallelism") or slices)
        together = min(slices, at_once(run.config, stage), jobs * run.config.pack, most or slices)
        seconds = counts[stage] * pace.seconds + slices * pace.start
        longest = math.ceil(counts[stage] / slices) * pace.seconds + pace.start
        took = math.ceil(slices / together) * longest
        work, wall = work + seconds, wall + took
        start = f", and {pace.start:.3g} s before the first one on each of {slices}" if pace.start else ""
        what = f"{counts[stage]} samples at {pace.seconds:.3g} s{start}"
        yield f"forecast  {stage}: {what}: {_hours(seconds)} {unit}, {duration(took)}; as in {pace.source}"
        if longest > limits.get(stage, math.inf):
            yield (
                f"time      a task of {stage} takes about {duration(longest)}, its limit is {duration(limits[stage])}: "
                "it will be run again, and load again, as often as that takes; ask for more with --time"
            )
    if known and not unknown:
        yield f"forecast  in all {_hours(work)} {unit}, and {duration(wall)} once all tasks have started"
    if unknown:
        yield f"forecast  {' and '.join(unknown)}: not known; {_how_to_know(run, like)}"


def _most_at_once(run: Run, scripts: Mapping[str, str]) -> int:
    """How many tasks have a GPU each at most, on the nodes that the edit's options leave; 0 where nobody counts."""
    with suppress(UserError):
        return gpus_of(slurm_options(run.config, "edit")) if scripts and _unit(scripts) == GPU_HOURS else 0
    return 0


def _places(run: Run, attempt: Attempt, most: int) -> Iterator[str]:
    together = min(attempt.slices, at_once(run.config, attempt.stage))
    if 0 < most < together:
        waiting = "the others wait, or find their work done" if run.config.takeover != "never" else "the others wait"
        yield f"nodes     those that fit have {most} GPUs, so that no more than {most} tasks work at once; {waiting}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.{1 if seconds > 36000 else 2 if seconds > 360 else 4}f}"


def _unit(scripts: Mapping[str, str]) -> str:
    """What a task holds while it lasts: a GPU that its job asks for, or one of this machine's; else a place alone."""
    asks = any(re.search("^#SBATCH --g.*gpu", script, re.MULTILINE) for script in scripts.values())
    return GPU_HOURS if asks or (not scripts and gpu_slots()) else "task-hours"


def _how_to_know(run: Run, like: Told | None) -> str:
    if like:
        return f"{printable(like.source)} has nothing of that to tell by"
    return (
        f"no run in {printable(str(run.root.parent))} had these plug-ins. A few samples tell: run them with "
        f"data.limit=12, then plan again. Or name another run, or a file of what `{command('bench', '--json')}` prints "
        "on such a GPU, with --like"
    )


def _limit(script: str) -> float:
    """The time limit that a batch script asks for, in seconds; `minutes[:seconds]`, `hours:minutes:seconds`, or
    `days-hours[:minutes[:seconds]]`. Infinite where it is none of these."""
    found = re.search(r"^#SBATCH --time=(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?$", script, re.MULTILINE)
    if not found:
        return math.inf
    days, *numbers = (int(number) if number else None for number in found.groups())
    given = [number for number in numbers if number is not None]
    hours_first = days is not None or len(given) == 3
    units = (3600, 60, 1) if hours_first else (60, 1)
    return 86400 * (days or 0) + sum(unit * number for unit, number in zip(units, given, strict=False)) or math.inf


def _scripts(attempt: Attempt, scripts: Mapping[str, str]) -> Iterator[str]:
    first = next(iter(scripts.values()))
    yield fit(f"start     {printable(expected_start(_tested(first)))}", columns())
    told = [name for name in scripts if name in (*list(scripts)[:1], "finish")] if len(scripts) > SCRIPTS else scripts
    for name in told:
        yield from ("", f"---- {name} ----", *(printable(line) for line in scripts[name].splitlines()))
    if len(told) < len(scripts):
        yield from ("", f"---- the other arrays, {len(scripts) - len(told)} of them: as the first ----")
    names = attempt.job_names
    yield from (
        "",
        f"---- standby: as finish, but --job-name={printable(names.standby)} --dependency=afternotok:FINISH "
        "--kill-on-invalid-dep=yes ----",
        "",
    )


def _tested(script: str) -> str:
    """What is held, or waits for a job that isn't there, has no start to tell."""
    lines: Sequence[str] = script.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(("#SBATCH --hold", "#SBATCH --dependency")))


def _existing(path: Path) -> Path:
    """The nearest folder above that is there already."""
    return path if path.is_dir() else _existing(path.parent)
