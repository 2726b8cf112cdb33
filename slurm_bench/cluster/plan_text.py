"""What `plan` prints for a person, from what it has for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slurm_bench.cluster.plan import start_of
from slurm_bench.command import command
from slurm_bench.data.text import printable
from slurm_bench.machine import GIB
from slurm_bench.run.slices import describe_slices
from slurm_bench.watch.wording import columns, duration, fit

# Of more scripts than these (arrays that are all alike) the first one is told, and the finishing job's.
SCRIPTS = 4


def plan_lines(planned: Mapping[str, Any]) -> Iterator[str]:
    """Line after line; Slurm is asked for the start when the others are out. Raises UserError where it would refuse the
    array."""
    yield from (fit(line, columns()) for line in _known(planned))
    if planned["attempt"] is None:
        yield f"nothing is missing in {printable(planned['run'])}: nothing would be submitted"
        return
    if start := start_of(planned["scripts"]):
        yield fit(f"start     {printable(str(start['said']))}", columns())
        yield from _scripts(planned["scripts"], planned["standby"])
    yield "nothing was submitted, nothing was written"


def _known(planned: Mapping[str, Any]) -> Iterator[str]:
    if reuse := planned["reuse"]:
        yield (
            f"reuse     {reuse['images']} images of {printable(reuse['run'])} are taken over, if their sources and "
            "they themselves are still the same; they take no work, and no disk where links are possible"
        )
    if planned["attempt"] is not None:
        yield from _what(planned)
        yield from _disk(planned["disk"])
        yield from _places(planned)
        yield from _forecast(planned["forecast"], printable(str(Path(planned["run"]).parent)))


def _what(planned: Mapping[str, Any]) -> Iterator[str]:
    slices = planned["slices"]
    yield f"run       {printable(planned['run'])}"
    yield f"{planned['attempt']}  {planned['samples']} of {planned['planned']} samples on {planned['executor']}"
    for name, count in planned["categories"].items():
        yield f"  {printable(name)}: {count}"
    yield f"slices    idx % {len(slices)} over what is missing"
    for line in describe_slices(row["indices"] for row in slices):
        yield f"  {line}"


def _disk(disk: Mapping[str, Any] | None) -> Iterator[str]:
    if disk:
        source = f"as in {disk['source']}" if disk["source"] else "at 2 MiB an image, as one of a megapixel may take"
        less = "" if disk["needed"] < disk["free"] else "; THIS IS NOT ENOUGH"
        free = f"{disk['free'] / GIB:.1f} GiB are free{less}"
        yield f"disk      about {disk['needed'] / GIB:.2f} GiB of images ({source}), {free}"


def _places(planned: Mapping[str, Any]) -> Iterator[str]:
    most = planned["gpus"]
    if most and most < planned["at_once"]:
        waiting = "the others wait, or find their work done" if planned["takeover"] != "never" else "the others wait"
        yield f"nodes     those that fit have {most} GPUs, so that no more than {most} tasks work at once; {waiting}"


def _forecast(forecast: Mapping[str, Any], runs: str) -> Iterator[str]:
    unit = "GPU-hours" if forecast["gpu"] else "task-hours"
    for stage, row in forecast["stages"].items():
        first = row["seconds_before_the_first"]
        start = f", and {first:.3g} s before the first one on each of {row['slices']}" if first else ""
        what = f"{row['samples']} samples at {row['seconds_a_sample']:.3g} s{start}"
        took = f"{_hours(row['work'])} {unit}, {duration(row['wall'])}"
        yield f"forecast  {stage}: {what}: {took}; as in {row['source']}"
        longest, limit = row["longest_task"], row["time_limit"]
        if limit is not None and longest > limit:
            yield (
                f"time      a task of {stage} takes about {duration(longest)}, its limit is {duration(limit)}: "
                "it will be run again, and load again, as often as that takes; ask for more with --time"
            )
    if forecast["work"] is not None:
        whole = f"{_hours(forecast['work'])} {unit}, and {duration(forecast['wall'])}"
        yield f"forecast  in all {whole} once all tasks have started"
    if forecast["unknown"]:
        yield f"forecast  {' and '.join(forecast['unknown'])}: not known; {_how_to_know(forecast['like'], runs)}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.{1 if seconds > 36000 else 2 if seconds > 360 else 4}f}"


def _how_to_know(like: str | None, runs: str) -> str:
    if like is not None:
        return f"{printable(like)} has nothing of that to tell by"
    return (
        f"no run in {runs} had these plug-ins. A few samples tell: run them with data.limit=12, then plan again. Or "
        f"name another run, or a file of what `{command('bench', '--json')}` prints on such a GPU, with --like"
    )


def _scripts(scripts: Mapping[str, str], standby: list[str]) -> Iterator[str]:
    told = [name for name in scripts if name in (*list(scripts)[:1], "finish")] if len(scripts) > SCRIPTS else scripts
    for name in told:
        yield from ("", f"---- {name} ----", *(printable(line) for line in scripts[name].splitlines()))
    if len(told) < len(scripts):
        yield from ("", f"---- the other arrays, {len(scripts) - len(told)} of them: as the first ----")
    yield from ("", f"---- standby: as finish, but {printable(' '.join(standby))} ----", "")
