"""The tasks of one job, side by side: each with one of the GPUs that the job was given, and a supervisor of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slurm_bench.cluster.slot import Slot
from slurm_bench.errors import UserError
from slurm_bench.machine import visible_gpus
from slurm_bench.run.attempts import Attempt
from slurm_bench.run.journal import REFUSED, Journal
from slurm_bench.run.layout import RunDir
from slurm_bench.run.records import reserve_manifest


def slots_of(run: RunDir, attempt: Attempt, job: int, environment: Mapping[str, str], warning: int) -> list[Slot]:
    """Started. A task that has its job to itself sees all that the job sees, and prints where it prints. Raises
    UserError where the job was given fewer GPUs than it has tasks."""
    tasks = attempt.tasks_of(job)
    if attempt.pack == 1:
        return [Slot(run, attempt, tasks[0], environment, warning=warning)]
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    try:
        gpus = deal([gpu.uuid for gpu in visible_gpus()] if listed is None else listed.split(","), len(tasks))
    except UserError as error:
        for task in tasks:
            _refuse(run, attempt, task, str(error))
        raise
    return [
        Slot(run, attempt, task, environment, gpu, run.output(attempt.stage, attempt.number, task), warning)
        for task, gpu in zip(tasks, gpus, strict=True)
    ]


def deal(gpus: Sequence[str], tasks: int) -> list[str | None]:
    """A GPU for each task; None where the job has none at all, for tasks that need none."""
    given = [gpu.strip() for gpu in gpus if gpu.strip() not in ("", "-1", "NoDevFiles")]  # as Slurm writes "none"
    if not given:
        return [None] * tasks
    if len(given) < tasks:
        raise UserError(
            f"this job was given {len(given)} GPUs ({','.join(given)}) for {tasks} tasks; ask for more (slurm.gres=…), "
            f"or type pack={len(given)}"
        )
    return list(given[:tasks])


def _refuse(run: RunDir, attempt: Attempt, task: int, why: str) -> None:
    """Noted as the task's end, so that the chain doesn't try the same again."""
    restart = reserve_manifest(run, attempt.stage, attempt.number, task)
    journal = Journal(run.journal(attempt.stage, attempt.number, task, restart))
    journal.start()
    journal.end(REFUSED, why)
    journal.close()
