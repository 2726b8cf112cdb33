"""The Slurm executor, through submitit: an array, the job that follows it, and a standby for that one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slurm_bench.cluster.interrupts import postponed
from slurm_bench.cluster.queue import cancel_jobs, jobs_of, max_array_size, nodes_of, outside_a_job, release
from slurm_bench.cluster.sbatch import sbatch_parameters
from slurm_bench.cluster.slot import PACKAGE_ROOT
from slurm_bench.config import Config
from slurm_bench.errors import UserError
from slurm_bench.logs import log
from slurm_bench.run.attempts import Attempt, note_jobs
from slurm_bench.run.health import bad_nodes
from slurm_bench.run.journal import read_journals
from slurm_bench.run.layout import RunDir
from slurm_bench.run.opened import Run

# Seconds that sbatch gets: a controller that is down makes it wait.
SBATCH_TIMEOUT = 120


class Slurm:
    """`task` and `finish` are what the array's tasks and the jobs that follow run: importable functions (job.py)."""

    name = "slurm"

    def __init__(self, task: Callable[..., None], finish: Callable[..., None]) -> None:
        self._task, self._finish = task, finish

    def slices(self, stage: str, config: Config) -> int:
        asked, most = config.gpus if stage == "edit" else config.score_gpus, max_array_size()
        if asked > most:
            log.warning("%d tasks were asked for; this cluster's arrays take at most %d (MaxArraySize)", asked, most)
        return min(asked, most)

    def execute(self, run: Run, attempt: Attempt) -> bool:
        """Submit all of the attempt's jobs, or none. The first one is held until all are there and noted, so that
        whoever dies in between leaves nothing at work. An interrupt is postponed until then. Raises UserError."""
        with postponed():
            try:
                array, finish, standby = self._submit_held(run, attempt)
                note_jobs(run.folder, attempt, array, finish, standby)
                release(array or finish)
            except Exception as error:
                self._withdraw(attempt)
                raise UserError(f"nothing was submitted: {_reason(error)}") from None
        return False

    def scripts(self, run: Run, attempt: Attempt) -> dict[str, str]:
        """The batch scripts of the attempt's array and of the job that follows it, by those names, as they would be.
        The array's job id, which nobody knows yet, is called ARRAY. Nothing is written or submitted."""
        found = {}
        if not scores_itself(attempt):
            found["array"] = _script(run.folder.submitit, self._array_parameters(run, attempt), attempt.slices)
        after = after_array(run.config, None if scores_itself(attempt) else "ARRAY")
        following = self._following_parameters(run, attempt, attempt.job_names.finish, after)
        return {**found, "finish": _script(run.folder.submitit, following, 1)}

    def _submit_held(self, run: Run, attempt: Attempt) -> tuple[str | None, str, str]:
        """A single scoring slice needs no array: the following job does it itself."""
        array = None if scores_itself(attempt) else self._submit_array(run, attempt)
        finish = self._submit_following(run, attempt, attempt.job_names.finish, after_array(run.config, array), 0)
        return array, finish, self._submit_standby(run, attempt, finish, 1)

    def _array_parameters(self, run: Run, attempt: Attempt) -> dict[str, Any]:
        options = slurm_options(run.config, attempt.stage)
        return sbatch_parameters(
            {**options, "hold": True},
            job_name=attempt.job_names.array,
            python_path=PACKAGE_ROOT,
            slices=attempt.slices,
            exclude=self._exclude(run.folder, attempt, options),
        )

    def _following_parameters(self, run: Run, attempt: Attempt, name: str, after: dict[str, Any]) -> dict[str, Any]:
        options = slurm_options(run.config, "score")
        return sbatch_parameters(
            {**options, **after},
            job_name=name,
            python_path=PACKAGE_ROOT,
            exclude=self._exclude(run.folder, attempt, options),
        )

    def _submit_array(self, run: Run, attempt: Attempt) -> str:
        n, parameters = attempt.slices, self._array_parameters(run, attempt)
        warning = parameters["signal_delay_s"]
        columns = [str(run.root)] * n, [attempt.stage] * n, [attempt.number] * n, range(n), [warning] * n
        return self._submit(run.folder, parameters, self._task, *columns)

    def _submit_standby(self, run: Run, attempt: Attempt, finish: str, generation: int) -> str:
        """Slurm itself watches: it starts the standby when `finish` ends in any way but well, and removes it else."""
        after = {"dependency": f"afternotok:{finish}", "kill_on_invalid_dep": "yes"}
        return self._submit_following(run, attempt, attempt.job_names.standby, after, generation)

    def _submit_following(self, run: Run, attempt: Attempt, name: str, after: dict[str, Any], generation: int) -> str:
        parameters = self._following_parameters(run, attempt, name, after)
        columns = [str(run.root)], [attempt.stage], [attempt.number], [parameters["signal_delay_s"]], [generation]
        return self._submit(run.folder, parameters, self._finish, *columns)

    def _exclude(self, run: RunDir, attempt: Attempt, options: dict[str, Any]) -> list[str]:
        if attempt.number == 1 and attempt.stage == "edit":
            return []
        ends = read_journals(run, "edit") + read_journals(run, "score")
        return bad_nodes(ends, nodes_of(options.get("partition"))) if ends else []

    def _submit(self, run: RunDir, parameters: dict[str, Any], function: Any, *columns: Sequence[Any]) -> str:
        """One array (or job, where the columns have one row) of calls of an importable function; gives its id."""
        run.submitit.mkdir(parents=True, exist_ok=True)
        executor = _executor(run.submitit)
        executor.update_parameters(**parameters)
        with outside_a_job():
            jobs = executor.map_array(function, *(list(column) for column in columns))
        return str(jobs[0].job_id).split("_")[0]

    def _withdraw(self, attempt: Attempt) -> None:
        """Take back what was submitted of an attempt, the standby first. An sbatch whose answer was lost is found by
        the job's name."""
        try:
            jobs = jobs_of(attempt.job_names)
            for job in sorted(jobs, key=lambda job: -len(job.name)):
                cancel_jobs([job.id])
        except UserError as error:
            log.warning("a held job of %s may be left in the queue (%s)", attempt.name, error)


def scores_itself(attempt: Attempt) -> bool:
    return attempt.stage == "score" and attempt.slices == 1


def after_array(config: Config, array: str | None) -> dict[str, Any]:
    """What the job that follows `array` waits for; without one it is held until it is noted."""
    if array is None:
        return {"hold": True}
    if config.strict:
        return {"dependency": f"afterok:{array}", "kill_on_invalid_dep": "yes"}
    return {"dependency": f"afterany:{array}"}


def _script(folder: Path, parameters: dict[str, Any], slices: int) -> str:
    executor = _executor(folder)
    executor.update_parameters(**parameters)
    if slices > 1:  # as submitit does for an array of more than one
        executor.parameters["map_count"] = slices
    return str(executor._make_submission_file_text(executor._submitit_command_str, ""))


def slurm_options(config: Config, stage: str) -> dict[str, Any]:
    return dict(config.slurm) if stage == "edit" else {**config.slurm, **config.score_slurm}


def _executor(folder: Path) -> Any:
    """submitit's, with a bound on how long sbatch may take."""
    from submitit.slurm.slurm import SlurmExecutor

    def bounded(_: Any, file: Path) -> list[str]:
        return ["timeout", "--kill-after=5", str(SBATCH_TIMEOUT), "sbatch", str(file)]

    # On the class: an array is submitted by an executor of its own, which submitit makes.
    SlurmExecutor._make_submission_command = bounded  # type: ignore[assignment,method-assign]
    return SlurmExecutor(folder)


def _reason(error: Exception) -> str:
    said = getattr(error, "stderr", None) or str(error)
    lines = [line for line in str(said).splitlines() if line.strip()]
    words = " ".join(" ".join(lines).split())[-500:]
    if "exit status 124" in words or not words:
        return f"sbatch did not answer within {SBATCH_TIMEOUT} s; is the Slurm controller up?"
    return words if isinstance(error, UserError) else f"sbatch refused: {words}"
