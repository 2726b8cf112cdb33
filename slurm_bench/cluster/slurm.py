"""The Slurm executor: an array and the job that follows it, through submitit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from slurm_bench.cluster.health import bad_nodes
from slurm_bench.cluster.queue import cancel_named, max_array_size, nodes_of, outside_a_job
from slurm_bench.cluster.sbatch import sbatch_parameters
from slurm_bench.config import Config
from slurm_bench.errors import UserError
from slurm_bench.run.attempts import Attempt, note_jobs
from slurm_bench.run.journal import read_journals
from slurm_bench.run.layout import RunDir
from slurm_bench.run.opened import Run

PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])


class Slurm:
    """`task` and `finish` are what the array's tasks and the job that follows it run: importable functions (job.py)."""

    name = "slurm"

    def __init__(self, task: Callable[..., None], finish: Callable[..., None]) -> None:
        self._task, self._finish = task, finish

    def slices(self, stage: str, config: Config) -> int:
        return min(config.gpus if stage == "edit" else config.score_gpus, max_array_size())

    def execute(self, run: Run, attempt: Attempt) -> bool:
        """Submit the array and its following job, or neither. A single scoring slice needs no array: the
        following job does it itself. Raises UserError."""
        array = finish = None
        try:
            if not scores_itself(attempt):
                array = self._submit_array(run.folder, attempt, run.config)
            finish = self._submit_finish(run.folder, attempt, run.config, array)
        except Exception as error:
            cancel_named(attempt.job_names(run.folder))
            raise UserError(f"sbatch refused: {_reason(error)}") from None
        note_jobs(run.folder, attempt, array, finish)
        return False

    def _submit_array(self, run: RunDir, attempt: Attempt, config: Config) -> str:
        n = attempt.slices
        options = slurm_options(config, attempt.stage)
        parameters = sbatch_parameters(
            options,
            job_name=attempt.job_names(run)[0],
            python_path=PACKAGE_ROOT,
            slices=n,
            exclude=self._exclude(run, attempt, options),
        )
        warning = parameters["signal_delay_s"]
        return self._submit(
            run,
            parameters,
            self._task,
            [str(run.root)] * n,
            [attempt.stage] * n,
            [attempt.number] * n,
            range(n),
            [warning] * n,
        )

    def _submit_finish(self, run: RunDir, attempt: Attempt, config: Config, array: str | None) -> str:
        options = slurm_options(config, "score")
        parameters = sbatch_parameters(
            options,
            job_name=attempt.job_names(run)[1],
            python_path=PACKAGE_ROOT,
            after=array,
            strict=config.strict,
            exclude=self._exclude(run, attempt, options),
        )
        warning = parameters["signal_delay_s"]
        return self._submit(
            run, parameters, self._finish, [str(run.root)], [attempt.stage], [attempt.number], [warning]
        )

    def _exclude(self, run: RunDir, attempt: Attempt, options: dict[str, Any]) -> list[str]:
        if attempt.retry == 0:
            return []
        ends = read_journals(run, "edit") + read_journals(run, "score")
        return bad_nodes(ends, nodes_of(options.get("partition")))

    def _submit(self, run: RunDir, parameters: dict[str, Any], function: Any, *columns: Any) -> str:
        """One array (or job, where the columns have one row) of calls of an importable function; gives its id."""
        from submitit.slurm.slurm import SlurmExecutor

        run.submitit.mkdir(parents=True, exist_ok=True)
        executor = SlurmExecutor(run.submitit)
        executor.update_parameters(**parameters)
        with outside_a_job():
            jobs = executor.map_array(function, *(list(column) for column in columns))
        return str(jobs[0].job_id).split("_")[0]


def scores_itself(attempt: Attempt) -> bool:
    return attempt.stage == "score" and attempt.slices == 1


def slurm_options(config: Config, stage: str) -> dict[str, Any]:
    return dict(config.slurm) if stage == "edit" else {**config.slurm, **config.score_slurm}


def _reason(error: Exception) -> str:
    said = getattr(error, "stderr", None) or str(error)
    lines = [line for line in str(said).splitlines() if line.strip()]
    return " ".join(" ".join(lines).split())[-500:] or type(error).__name__
