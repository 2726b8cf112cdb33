"""What Slurm's own commands say. It works without accounting: the queue and the run's records tell all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from slurm_bench.errors import UserError
from slurm_bench.logs import log
from slurm_bench.run.attempts import Attempt

# What a person was told of that isn't handed to sbatch.
_told: list[str] = []

ALIVE = ("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "RESIZING")

_WHOLE = {"SLURM_BITSTR_LEN": "0"}  # else squeue cuts the indices of a large array

# Why a node is drained somebody has typed, in whatever encoding.
_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "replace"}

# What these programs take from a person's shell for options. Jobs that a `SQUEUE_PARTITION` hides would pass for gone.
OF_A_SHELL = ("SQUEUE_", "SCANCEL_", "SINFO_", "SACCT_", "SCONTROL_")

KEEP = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS")

# Seconds that a command of Slurm's gets to answer.
PATIENCE = 60


@dataclass(frozen=True)
class Job:
    id: str
    name: str
    state: str
    reason: str = ""  # why it waits, in Slurm's word
    script: str = ""  # the batch script's path

    def __str__(self) -> str:
        return f"job {self.id} ({self.state})"

    @property
    def held(self) -> bool:
        return self.reason.startswith("JobHeld")

    @property
    def number(self) -> str:
        """Without the indices of an array."""
        return self.id.split("_")[0]

    def has_task(self, task: int) -> bool:
        """Is it this task of its array, or does it have it among its waiting ones (`4242_[0-3,7%2]`)? A job that is no
        array has every task."""
        indices = self.id.partition("_")[2]
        return not indices or any(task in some for some in _spans(indices))

    def belongs_to(self, attempt: Attempt) -> bool:
        return self.name in attempt.job_names or self.number in old_ids(attempt)


def has_slurm() -> bool:
    return shutil.which("sbatch") is not None


def old_ids(attempt: Attempt) -> tuple[str, ...]:
    """The ids of jobs that no name tells: those of the first version's attempts. Slurm gives an id again in time, and
    one that it forgot in a crash at once."""
    return () if attempt.key else attempt.job_ids


def jobs_of(names: Iterable[str], ids: Iterable[str] = ()) -> list[Job]:
    """The jobs of these names, or of these ids, that are waiting or at work. Raises UserError where the queue can't be
    asked: not knowing isn't knowing that there is none."""
    found = _squeue(_named(names)) if (names := list(names)) else []
    known = {job.number for job in found}
    if others := [job_id for job_id in ids if job_id not in known]:
        found += _squeue(f"--jobs={','.join(others)}")
    return found


def known_jobs(names: Iterable[str]) -> list[Job]:
    """The jobs of these names that the controller knows, also those that are over since a few minutes. Raises
    UserError."""
    return _squeue("--states=all", _named(names))


def _named(names: Iterable[str]) -> str:
    return f"--name={','.join(names)}"


def cancel_jobs(ids: Iterable[str]) -> None:
    """The newest first: else what waits for the end of another would begin. Raises UserError where the controller can't
    be asked; a job that is over is none to cancel."""
    if numbers := sorted({job_id.split("_")[0] for job_id in ids}, key=int, reverse=True):
        _ask(["scancel", *numbers])


def release(ids: Iterable[str]) -> None:
    """Let held jobs go. Raises UserError."""
    _ask(["scontrol", "release", ",".join(ids)])


def _squeue(*which: str) -> list[Job]:
    try:
        text = _ask(["squeue", "--noheader", "--format=%i|%j|%T|%r|%o", *which])
    except UserError as error:
        if "Invalid job id" in str(error):  # its words for one that is long over
            return []
        raise
    rows = [line.strip().split("|", 4) for line in text.splitlines() if line.strip()]
    return [Job(*row) for row in rows if len(row) >= 3]


def ended_jobs(ids: Iterable[str], since: float) -> list[tuple[str, str]]:
    """What Slurm still knows of jobs that are over: their ids (of a step, its job's) and how each ended, in Slurm's
    words. The controller forgets a job some minutes after its end; accounting, where a cluster has it, does not. Empty
    where neither answers."""
    known: list[tuple[str, str]] = []
    if not (numbers := ",".join(ids)):
        return known
    with suppress(UserError):
        jobs = _squeue("--states=all", "--array", f"--jobs={numbers}")
        known += [(job.id, f"{job.state} {job.reason}") for job in jobs if job.state not in ALIVE]
    with suppress(UserError):
        start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since))
        asked = ["sacct", "--noheader", "--parsable2", "--format=JobID,State,ExitCode", f"--starttime={start}"]
        rows = [line.split("|") for line in _ask([*asked, f"--jobs={numbers}"]).splitlines()]
        over = [row for row in rows if len(row) == 3 and row[1] not in ALIVE]
        known += [(task, f"{row[1]} {row[2]}") for row in over for task in _tasks(row[0].split(".")[0])]
    return known


def _tasks(job_id: str) -> list[str]:
    """`7_[0-2,5%3]`, as sacct calls the tasks of an array that never began, is 7_0, 7_1, 7_2 and 7_5."""
    array, _, indices = job_id.partition("_")
    return [f"{array}_{index}" for some in _spans(indices) for index in some] or [job_id]


def _spans(indices: str) -> list[range]:
    """The indices that `3`, or `[0-12:4,15,20-22%2]`, stands for: behind % is how many of them may run at once."""
    found = re.findall(r"(\d+)(?:-(\d+))?(?::(\d+))?", indices.partition("%")[0])
    return [range(int(first), int(last or first) + 1, int(step or 1)) for first, last, step in found]


def broken_nodes() -> dict[str, str]:
    """Nodes that are down, drained or failing, each with its state and why. Empty where nobody answers."""
    with suppress(UserError):
        rows = [line.split("|") for line in _ask(["sinfo", "--noheader", "--Node", "--format=%N|%T|%E"]).splitlines()]
        return {row[0]: f"{row[1]}: {row[2]}" for row in rows if len(row) == 3 and re.match("down|drain|fail", row[1])}
    return {}


def expected_start(script: str) -> str:
    """When Slurm thinks that this script would start, in its own words; it is not submitted. Raises UserError where
    Slurm would refuse it, or doesn't answer."""
    with outside_a_job():
        done = _run(["sbatch", "--test-only"], script)
    if done.returncode:
        raise UserError(f"sbatch would refuse it: {refusal(done.stderr)}")
    return " ".join(done.stderr.replace("sbatch:", "").split())


def refusal(said: str) -> str:
    """What sbatch said; of a partition that isn't there also which there are."""
    words = " ".join(said.replace("sbatch: error:", "").replace("sbatch:", "").split())[-500:]
    if "invalid partition" in words.lower():
        with suppress(UserError):
            names = dict.fromkeys(_ask(["sinfo", "--noheader", "--format=%R"]).split())
            words += f"; this cluster's partitions: {', '.join(names)}" if names else ""
    return words


def nodes_of(options: Mapping[str, Any]) -> list[str]:
    """The nodes on which jobs with these options of sbatch may run. Raises UserError."""
    return sorted(_gpus_by_node(options))


def gpus_of(options: Mapping[str, Any]) -> int:
    """How many GPUs these nodes have, whoever uses them now; 0 where Slurm counts none. Raises UserError."""
    return sum(_gpus_by_node(options).values())


def _gpus_by_node(options: Mapping[str, Any]) -> dict[str, int]:
    def listed(**which: Any) -> dict[str, int]:
        narrowed = [f"--{name}={value}" for name, value in which.items() if value]
        lines = _ask(["sinfo", "--noheader", "--Node", "--format=%N|%G", *narrowed]).splitlines()
        rows = [line.strip().partition("|") for line in lines]
        return {node: sum(map(int, re.findall(r"\bgpu:(?:[^:,(]+:)?(\d+)", gres))) for node, _, gres in rows if node}

    found = listed(partition=options.get("partition"), nodes=options.get("nodelist"))
    left_out = listed(nodes=options["exclude"]) if options.get("exclude") else {}
    return {node: gpus for node, gpus in found.items() if node not in left_out}


def max_array_size() -> int:
    """How many jobs an array may have, 1001 where the cluster doesn't say. MaxArraySize bounds the index, which begins
    at 0; where it is 0 the cluster takes no arrays."""
    found = re.findall(r"\b(?:MaxArraySize\s*=\s*|max_array_tasks=)(\d+)", _ask(["scontrol", "show", "config"]))
    return max(1, min(map(int, found), default=1001))


def requeue_self() -> bool:
    """Ask Slurm to run this job again from the start. False where it refuses. One task of an array goes by its place in
    it: the last one's own id is also the whole array's, and would have all its tasks run again."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID")
    if job is None:
        return False
    try:
        _ask(["scontrol", "requeue", job])
    except UserError:
        return False
    return True


def sbatch_options() -> list[str]:
    """The options that this cluster's sbatch lists, plug-ins' too, as `cpus_per_task`. Empty where it doesn't say."""
    try:
        text = subprocess.run(["sbatch", "--help"], capture_output=True, timeout=10, **_TEXT).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [name.replace("-", "_") for name in re.findall(r"^ +(?:-\w,? +)?--([a-z][a-z-]+)", text, re.MULTILINE)]


@contextmanager
def outside_a_job() -> Iterator[None]:
    """sbatch takes variables for options, and these beat what stands in the script: neither a job's own SLURM_* nor
    the SBATCH_* of a person's shell may reach it."""
    hidden = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name.startswith(("SLURM_", "SRUN_", "SUBMITIT_", "SBATCH_")) and name not in KEEP
    }
    shells = [f"{name}={value}" for name, value in hidden.items() if name.startswith("SBATCH_")]
    if shells and not _told:
        _told.extend(shells)
        log.warning("not handed to sbatch: %s; what you mean of it, type as slurm.<option>=…", ", ".join(shells))
    try:
        yield
    finally:
        os.environ.update(hidden)


def _ask(command: list[str]) -> str:
    done = _run(command)
    if done.returncode != 0:
        raise UserError(f"'{command[0]}' failed: {' '.join(done.stderr.split()) or done.returncode}")
    return done.stdout


def _run(command: list[str], reads: str = "") -> subprocess.CompletedProcess[str]:
    """Raises UserError where it isn't there, or doesn't answer."""
    try:
        plain = {name: value for name, value in os.environ.items() if not name.startswith(OF_A_SHELL)} | _WHOLE
        return subprocess.run(command, input=reads, capture_output=True, timeout=PATIENCE, env=plain, **_TEXT)
    except FileNotFoundError:
        raise UserError(f"'{command[0]}' isn't on the PATH; is this a machine of the cluster?") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"'{command[0]}' did not answer within {PATIENCE} s; is the Slurm controller up?") from None
