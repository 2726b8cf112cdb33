"""`plan`: what would be submitted, what it would take, and when it might start. It submits and writes nothing."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from slurm_bench.cluster.chain import Executor, Step, first_step, propose
from slurm_bench.cluster.queue import expected_start
from slurm_bench.cluster.slurm import Slurm, scores_itself
from slurm_bench.data.text import printable
from slurm_bench.machine import GIB
from slurm_bench.run.attempts import Attempt, read_attempts
from slurm_bench.run.journal import read_journals
from slurm_bench.run.opened import Run
from slurm_bench.run.slices import describe_slices
from slurm_bench.watch.evidence import STAGES
from slurm_bench.watch.wording import columns, duration, fit

# Bytes of an edited image of a megapixel, where no earlier run tells better: a photograph as PNG.
IMAGE_BYTES = 2 << 20


@dataclass(frozen=True)
class Pace:
    """What an earlier run tells of a stage: seconds a sample (by all scorers) and a load, and bytes an image."""

    seconds: float
    load: float
    image_bytes: float


def plan_lines(run: Run, executor: Executor, like: Run | None) -> Iterator[str]:
    """Line after line, as they become known. Raises UserError where Slurm would refuse the array."""
    state = run.state()
    step = first_step(state)
    if step is None:
        yield f"nothing is missing in {printable(str(run.root))}: nothing would be submitted"
        return
    attempt = propose(run, step, read_attempts(run.folder), executor)
    width = columns()
    for lines in (_what(run, attempt), _disk(run, step, like), _forecast(run, step, executor, like)):
        yield from (fit(line, width) for line in lines)
    if isinstance(executor, Slurm):
        yield from _scripts(run, attempt, executor)
    yield "nothing was submitted, nothing was written"


def _what(run: Run, attempt: Attempt) -> Iterator[str]:
    index = {sample.id: sample.index for sample in run.samples}
    category = {sample.id: sample.category for sample in run.samples}
    counts = Counter(category[i] for i in attempt.samples)
    yield f"run       {printable(str(run.root))}"
    yield f"{attempt.name}  {len(attempt.samples)} of {len(run.samples)} samples on {attempt.executor}"
    for name, count in sorted(counts.items()):
        yield f"  {printable(name)}: {count}"
    yield f"slices    idx % {attempt.slices} over what is missing"
    for line in describe_slices([index[i] for i in attempt.samples], attempt.slices):
        yield f"  {line}"


def _disk(run: Run, step: Step, like: Run | None) -> Iterator[str]:
    if step.stage != "edit":
        return
    known = _pace(like, "edit") if like else None
    needed = len(step.samples) * (known.image_bytes if known and known.image_bytes else IMAGE_BYTES)
    free = shutil.disk_usage(_existing(run.root)).free
    source = "as in that run" if known else "at 2 MiB an image, as one of a megapixel may take"
    less = "" if needed < free else "; THIS IS NOT ENOUGH"
    yield f"disk      about {needed / GIB:.2f} GiB of images ({source}), {free / GIB:.1f} GiB are free{less}"


def _forecast(run: Run, step: Step, executor: Executor, like: Run | None) -> Iterator[str]:
    """Work, and the wall time of as many tasks side by side as were asked for."""
    if like is None:
        yield "forecast  none: name a run that was alike with --like RUN, or see what `bench` measures"
        return
    counts = {"edit": len(step.samples) if step.stage == "edit" else 0, "score": len(step.samples)}
    work = wall = 0.0
    for stage in STAGES:
        pace, slices = _pace(like, stage), min(executor.slices(stage, run.config), max(1, counts[stage]))
        if not counts[stage]:
            continue
        if pace is None:
            yield f"forecast  {stage}: that run has no records to tell by"
            continue
        seconds = counts[stage] * pace.seconds + slices * pace.load
        took = math.ceil(counts[stage] / slices) * pace.seconds + pace.load
        work, wall = work + seconds, wall + took
        yield (
            f"forecast  {stage}: {counts[stage]} samples at {pace.seconds:.3g} s, a load of {pace.load:.3g} s on each "
            f"of {slices}: {seconds / 3600:.2f} GPU-hours, {duration(took)}"
        )
    yield f"forecast  in all {work / 3600:.2f} GPU-hours, and {duration(wall)} once all tasks have started"


def _pace(run: Run, stage: str) -> Pace | None:
    state = run.state()
    if stage == "edit":
        records = [[outcome.ok] for outcome in state.edits.values() if outcome.ok]
    else:
        by_scorer = [[outcome.ok for outcome in by.values()] for by in state.scores.values()]
        records = [[ok for ok in oks if ok] for oks in by_scorer if oks and all(oks)]
    if not records:
        return None
    loads = [p.load_seconds for p in read_journals(run.folder, stage) if p.load_seconds is not None]
    return Pace(
        seconds=fmean(sum(float(record.get("seconds", 0)) for record in oks) for oks in records),
        load=fmean(loads) if loads else 0.0,
        image_bytes=fmean(float(record.get("bytes", 0)) for oks in records for record in oks),
    )


def _scripts(run: Run, attempt: Attempt, executor: Slurm) -> Iterator[str]:
    scripts = executor.scripts(run, attempt)
    first = scripts["finish" if scores_itself(attempt) else "array"]
    yield f"start     {printable(expected_start(_tested(first)))}"
    for name, script in scripts.items():
        yield from ("", f"---- {name} ----", *(printable(line) for line in script.splitlines()))
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
