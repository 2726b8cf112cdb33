"""The Slurm executor, through submitit: an array (several, where the cluster's are too short), the job that follows,
and a standby for that one."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from slurm_bench.cluster.interrupts import postponed
from slurm_bench.cluster.queue import cancel_jobs, jobs_of, max_array_size, nodes_of, outside_a_job, refusal, release
from slurm_bench.cluster.sbatch import sbatch_parameters
from slurm_bench.cluster.slot import PACKAGE_ROOT
from slurm_bench.config import Config, at_once, tasks_of
from slurm_bench.errors import UserError
from slurm_bench.logs import log
from slurm_bench.run.attempts import Attempt, note_jobs, read_attempts, spread
from slurm_bench.run.health import bad_nodes, telling
from slurm_bench.run.journal import read_journals
from slurm_bench.run.layout import RunDir
from slurm_bench.run.opened import Run
from slurm_bench.watch.job_logs import unborn_processes

# Seconds that sbatch gets: a controller that is down makes it wait.
SBATCH_TIMEOUT = 120
# How `timeout` ends where it had to end the command, by a signal or by SIGKILL.
TIMED_OUT = (124, 137)


class Slurm:
    """`task` and `finish` are what the array's tasks and the jobs that follow run: importable functions (job.py)."""

    name = "slurm"

    def __init__(self, task: Callable[..., None], finish: Callable[..., None]) -> None:
        self._task, self._finish = task, finish

    def slices(self, stage: str, config: Config) -> int:
        return tasks_of(config, stage)

    def execute(self, run: Run, attempt: Attempt) -> bool:
        self.submit(run, attempt)
        return False

    def submit(self, run: Run, attempt: Attempt) -> None:
        """All of the attempt's jobs, or none. The arrays are held until all are there and noted, so that
        whoever dies in between leaves nothing at work. An interrupt is postponed until then. Raises UserError."""
        with postponed():
            try:
                if left_out := self._exclude(run, slurm_options(run.config, attempt.stage)):
                    log.info("left out, as nothing came right there: node %s", ", ".join(left_out))
                arrays, finish, standby = self._submit_held(run, attempt)
                note_jobs(run.folder, attempt, arrays, finish, standby)
                release(arrays or [finish])
            except Exception as error:
                self.withdraw(attempt)
                raise UserError(f"nothing was submitted: {error}") from None

    def withdraw(self, attempt: Attempt) -> None:
        """Take back what was submitted of an attempt, the standby first. An sbatch whose answer was lost is found by
        the job's name."""
        try:
            jobs = jobs_of(attempt.job_names)
            for job in sorted(jobs, key=lambda job: -len(job.name)):
                cancel_jobs([job.id])
        except UserError as error:
            log.warning("a held job of %s may be left in the queue (%s)", attempt.name, error)

    def scripts(self, run: Run, attempt: Attempt) -> dict[str, str]:
        """The batch scripts of the attempt's arrays and of the job that follows, by those names, as they would be. An
        array's job id, which nobody knows yet, is called ARRAY or ARRAY_1. Nothing is written or submitted."""
        found: dict[str, str] = {}
        ids: list[str] = []
        parts = list(_arrays(attempt))
        for number, part in enumerate(parts, 1):
            name = "array" if len(parts) == 1 else f"array {number} of {len(parts)}"
            parameters = self._array_parameters(run, attempt, ids[-1:])
            found[name] = _script(run.folder.submitit, parameters, len(part))
            ids.append("ARRAY" if len(parts) == 1 else f"ARRAY_{number}")
        following = self._following_parameters(run, attempt, attempt.job_names.finish, after_arrays(run.config, ids))
        return {**found, "finish": _script(run.folder.submitit, following, 1)}

    def _submit_held(self, run: Run, attempt: Attempt) -> tuple[list[str], str, str]:
        arrays: list[str] = []
        for jobs in _arrays(attempt):
            arrays.append(self._submit_array(run, attempt, jobs, arrays[-1:]))
        finish = self._submit_following(run, attempt, attempt.job_names.finish, after_arrays(run.config, arrays), 0)
        return arrays, finish, self._submit_standby(run, attempt, finish, 1)

    def _array_parameters(self, run: Run, attempt: Attempt, before: Sequence[str]) -> dict[str, Any]:
        """`before` is the array that was submitted before this one, if any. Where only so many jobs may run at once one
        array waits for the end of the other, since Slurm counts within an array."""
        options, tasks = slurm_options(run.config, attempt.stage), at_once(run.config, attempt.stage)
        jobs = attempt.jobs if tasks >= attempt.slices else max(1, tasks // attempt.pack)
        parameters = sbatch_parameters(
            {**options, "hold": True},
            job_name=attempt.job_names.array,
            python_path=PACKAGE_ROOT,
            gpus=attempt.pack,
            at_once=jobs,
            exclude=self._exclude(run, options),
        )
        if before and parameters["array_parallelism"] < attempt.jobs:
            parameters["additional_parameters"]["dependency"] = f"afterany:{':'.join(before)}"
        return parameters

    def _following_parameters(self, run: Run, attempt: Attempt, name: str, after: dict[str, Any]) -> dict[str, Any]:
        options = slurm_options(run.config, "score")
        return sbatch_parameters(
            {**options, **after},
            job_name=name,
            python_path=PACKAGE_ROOT,
            exclude=self._exclude(run, options),
        )

    def _submit_array(self, run: Run, attempt: Attempt, jobs: range, before: Sequence[str]) -> str:
        n, parameters = len(jobs), self._array_parameters(run, attempt, before)
        warning = parameters["signal_delay_s"]
        columns = [str(run.root)] * n, [attempt.stage] * n, [attempt.number] * n, jobs, [warning] * n
        return self._submit(run.folder, parameters, self._task, *columns)

    def _submit_standby(self, run: Run, attempt: Attempt, finish: str, generation: int) -> str:
        """Slurm itself watches: it starts the standby when `finish` ends in any way but well, and removes it else."""
        after = {"dependency": f"afternotok:{finish}", "kill_on_invalid_dep": "yes"}
        return self._submit_following(run, attempt, attempt.job_names.standby, after, generation)

    def _submit_following(self, run: Run, attempt: Attempt, name: str, after: dict[str, Any], generation: int) -> str:
        parameters = self._following_parameters(run, attempt, name, after)
        columns = [str(run.root)], [attempt.stage], [attempt.number], [parameters["signal_delay_s"]], [generation]
        return self._submit(run.folder, parameters, self._finish, *columns)

    def _exclude(self, run: Run, options: dict[str, Any]) -> list[str]:
        told = telling(read_attempts(run.folder), run.by)
        born = read_journals(run.folder, "edit") + read_journals(run.folder, "score")
        ends = [*born, *unborn_processes(run.folder, born, os.environ.get("SLURM_JOB_ID"))]
        ends = [process for process in ends if (process.stage, process.attempt) in told]
        return bad_nodes(ends, nodes_of(options)) if ends else []

    def _submit(self, run: RunDir, parameters: dict[str, Any], function: Any, *columns: Sequence[Any]) -> str:
        """One array (or job, where the columns have one row) of calls of an importable function; gives its id. Raises
        UserError where sbatch refuses it, OSError."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        run.submitit.mkdir(parents=True, exist_ok=True)
        executor = _executor(run.submitit, parameters)
        try:
            with outside_a_job(), redirect_stderr(StringIO()):  # where submitit prints what its error says, too
                jobs = executor.map_array(function, *(list(column) for column in columns))
        except (FailedJobError, FailedSubmissionError) as error:
            raise UserError(_reason(error)) from None
        return str(jobs[0].job_id).split("_")[0]


def scores_itself(attempt: Attempt) -> bool:
    return attempt.stage == "score" and attempt.slices == 1


def after_arrays(config: Config, arrays: Sequence[str]) -> dict[str, Any]:
    """What the job that follows them all waits for; without any it is held until it is noted."""
    if not arrays:
        return {"hold": True}
    if config.strict:
        return {"dependency": f"afterok:{':'.join(arrays)}", "kill_on_invalid_dep": "yes"}
    return {"dependency": f"afterany:{':'.join(arrays)}"}


def _arrays(attempt: Attempt) -> Iterator[range]:
    """The jobs of each array. A single scoring slice needs none: the following job does it itself."""
    if not scores_itself(attempt):
        yield from spread(attempt.jobs, math.ceil(attempt.jobs / max_array_size()))


def _script(folder: Path, parameters: dict[str, Any], jobs: int) -> str:
    executor = _executor(folder, parameters)
    if jobs > 1:  # as submitit does for an array of more than one
        executor.parameters["map_count"] = jobs
    return str(executor._make_submission_file_text(executor._submitit_command_str, ""))


def slurm_options(config: Config, stage: str) -> dict[str, Any]:
    return dict(config.slurm) if stage == "edit" else {**config.slurm, **config.score_slurm}


def _executor(folder: Path, parameters: dict[str, Any]) -> Any:
    """submitit's, with a bound on how long sbatch may take, and sbatch's own words for the job's id."""
    from submitit.slurm.slurm import SlurmExecutor

    def bounded(_: Any, file: Path) -> list[str]:
        return ["timeout", "--kill-after=5", str(SBATCH_TIMEOUT), "sbatch", str(file)]

    # On the class: an array is submitted by an executor of its own, which submitit makes.
    SlurmExecutor._make_submission_command = bounded  # type: ignore[assignment,method-assign]
    SlurmExecutor._get_job_id_from_submission_command = staticmethod(_job_id)  # type: ignore[assignment,method-assign]
    executor = SlurmExecutor(folder, python=parameters.get("python"))
    executor.update_parameters(**{key: value for key, value in parameters.items() if key != "python"})
    return executor


def _job_id(said: bytes | str) -> str:
    """A cluster's wrapper around sbatch may say more of jobs and numbers."""
    from submitit.core.utils import FailedSubmissionError

    text = said if isinstance(said, str) else said.decode(errors="replace")
    ids = re.findall(r"^Submitted batch job (\d+)", text, re.MULTILINE) or re.findall(r"\bjob (\d+)", text)
    if not ids:
        raise FailedSubmissionError(f"no job's id in what it said: {text}")
    return str(ids[-1])


def _reason(error: Exception) -> str:
    """submitit's error says what sbatch wrote; with which exit code it ended, what that came from."""
    code = getattr(error.__cause__, "returncode", None)
    if code in TIMED_OUT:
        return f"sbatch did not answer within {SBATCH_TIMEOUT} s; is the Slurm controller up?"
    return f"sbatch refused: {refusal(str(error)) or f'exit code {code}, without a word'}"
