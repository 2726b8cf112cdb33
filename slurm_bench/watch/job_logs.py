"""The log files of a run's jobs, and the jobs that ended before a line of ours stood in theirs."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from slurm_bench.run.attempts import read_attempts
from slurm_bench.run.journal import TaskProcess
from slurm_bench.run.layout import RunDir

# So much of the end of a log file is looked at, in bytes.
TAIL = 32_000

# Our own log's lines, with the exception that follows one: they say what the records and journals say too.
OWN_LINE = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+ (INFO|WARNING|ERROR) ")
# What Slurm's programs and the batch script's shell say into a job's log, beside our own lines.
SLURM_LINE = re.compile(
    r"\b(srun|slurmstepd(-\S+)?|sbatch|slurm_script|bash|sh): |oom[-_]kill|^(Killed|Segmentation fault|Terminated)$"
)
# What the batch script says before anything may go wrong (cluster/sbatch.py).
_NODE_LINE = re.compile(r"job \d+ on node (\S+)")
# Slurm's words about a job that it was asked to stop, or stops by itself, for a preemption say.
_CANCELLED = " CANCELLED AT "
_JOB_LOG = re.compile(r"(\d+(?:_\d+)?)_\d+_log\.err")


def tail(file: str | Path) -> list[str]:
    """The last lines of a text file, without blank ones. Empty where it can't be read."""
    with suppress(OSError), open(file, "rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - TAIL))
        return [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return []


def last_words(file: str | Path) -> list[str]:
    """What stands last in a log that is neither ours nor Slurm's, as native code says something before it ends its
    process. The traceback of a failure that we have logged is no such thing."""
    words, block, before = list[str](), list[str](), ""
    for line in [*tail(file), None]:
        if line is not None and not (OWN_LINE.match(line) or is_node_line(line) or SLURM_LINE.search(line)):
            block.append(line)
            continue
        if block and not (block[0].startswith("Traceback ") and block[-1].strip() in before):
            words = block
        block, before = [], line or ""
    return words


def job_logs(folder: Path) -> dict[str, Path]:
    """The log file of each job, by its id; an array's task is `4242_3`."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {match[1]: file for file in files if (match := _JOB_LOG.fullmatch(file.name))}


def unborn_on(lines: Sequence[str]) -> str:
    """The node on which a job ended before Python could say a word, though nobody had cancelled it; "" where it said
    one, or no node is named."""
    last = next((n for n in range(len(lines) - 1, -1, -1) if is_node_line(lines[n])), None)
    if last is None or any(OWN_LINE.match(line) or _CANCELLED in line for line in lines[last:]):
        return ""
    return lines[last].split()[-1]


def is_node_line(line: str) -> bool:
    return _NODE_LINE.fullmatch(line.strip()) is not None


def unborn_processes(run: RunDir, born: Collection[TaskProcess], own_job: str | None = None) -> Iterator[TaskProcess]:
    """A process that died at once, for each job that ended before its work could begin: that says something of its
    node, and no journal tells it. `own_job` is the one that asks, which may not have said anything yet."""
    known = {(process.stage, process.attempt, process.task) for process in born}
    logs = job_logs(run.submitit)
    for attempt in read_attempts(run):
        tasks = [task for task in range(attempt.slices) if (attempt.stage, attempt.number, task) not in known]
        jobs = {attempt.job_of(task): task for task in reversed(tasks)}
        jobs |= {job: -n for n, job in enumerate(attempt.following, 1) if job not in jobs}
        for job, task in jobs.items():
            if job in logs and job != own_job and (node := unborn_on(tail(logs[job]))):
                yield TaskProcess(attempt.stage, attempt.number, task, 0, node=node)
