"""Instructions rewritten before any task edits by them, on a machine that reaches the server where the nodes don't."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed

from slurm_bench.errors import ServiceDown, UserError, words_of
from slurm_bench.logs import log
from slurm_bench.plugins import make_rewriter
from slurm_bench.run.opened import Run
from slurm_bench.run.plan import Sample
from slurm_bench.stages.ahead import READERS
from slurm_bench.stages.rewriting import Rewriting
from slurm_bench.stages.work import EditWork


def rewrite_all(run: Run) -> dict[str, str]:
    """Every text of the plan that isn't there yet, on disk; gives what is wrong with the others, by sample id. Raises
    UserError where the rewriter can't work, or its server is away: what is there by then stays."""
    rewriting = Rewriting(run.folder, make_rewriter(run.config), run.by["rewriter"], run.config.seed)
    work = EditWork(run.folder, None, "", rewriting)
    problems: dict[str, str] = {}

    def rewrite(sample: Sample) -> None:  # gives nothing: the pictures of a whole benchmark would stay in memory
        work.read(sample)

    pool = ThreadPoolExecutor(READERS, "rewrite")
    try:
        futures = {pool.submit(rewrite, sample): sample for sample in run.samples}
        for done, future in enumerate(as_completed(futures), 1):
            error = future.exception()
            if isinstance(error, UserError | ServiceDown):
                raise UserError(str(error))
            if error is not None:
                problems[futures[future].id] = words_of(error)
            if done * 10 // len(futures) > (done - 1) * 10 // len(futures):
                log.info("%d of %d instructions are rewritten", done - len(problems), len(futures))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        rewriting.close()
    return {sample.id: problems[sample.id] for sample in run.samples if sample.id in problems}
