"""What the cluster says of a run, for those who watch it."""

from __future__ import annotations

import os
from functools import partial

from slurm_bench.cluster.alive import attempts_and_jobs, leftovers
from slurm_bench.cluster.queue import broken_nodes, ended_jobs, has_slurm
from slurm_bench.errors import UserError
from slurm_bench.run.attempts import read_attempts
from slurm_bench.run.layout import RunDir
from slurm_bench.watch.evidence import Heard


def hear(run: RunDir, over: bool = False) -> Heard:
    """What Slurm says of the run's attempts. With `over` the run has come to its end: who is still in the queue doesn't
    count."""
    try:
        attempts, jobs = (read_attempts(run), []) if over else attempts_and_jobs(run)
    except UserError as error:
        return Heard(read_attempts(run), silent=str(error))
    submitted = [attempt for attempt in attempts if attempt.executor == "slurm" and not attempt.void]
    if not submitted:
        return Heard(attempts)
    if not has_slurm():
        return Heard(attempts, silent="" if over else "there is no squeue here")
    own, abandoned = os.environ.get("SLURM_JOB_ID"), leftovers(attempts, jobs)
    ids = [job_id for attempt in submitted for job_id in attempt.job_ids if job_id.isdigit()]
    return Heard(
        attempts=attempts,
        jobs=[job for job in jobs if job.number != own and job not in abandoned],
        abandoned=abandoned,
        ended=partial(ended_jobs, ids, min(attempt.time for attempt in submitted)),
        broken=broken_nodes(),
    )
