"""From a run folder to work under way: what `run` and `resubmit` do after the configuration has been checked."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from slurm_bench.cluster import job
from slurm_bench.cluster.alive import at_work
from slurm_bench.cluster.chain import Executor, carry_on, conclude, start
from slurm_bench.cluster.guard import start_guard
from slurm_bench.cluster.here import Debug
from slurm_bench.cluster.local import Local
from slurm_bench.cluster.queue import has_slurm
from slurm_bench.cluster.slurm import Slurm, scores_itself
from slurm_bench.command import command
from slurm_bench.data.text import printable
from slurm_bench.errors import COMPLETE, INCOMPLETE, UserError
from slurm_bench.logs import log
from slurm_bench.report.write import print_summary
from slurm_bench.run.attempts import Attempt, close, conclusions, read_attempt, spread
from slurm_bench.run.layout import RunDir
from slurm_bench.run.opened import Run
from slurm_bench.run.slices import describe_slices
from slurm_bench.terminal import heard_or_not
from slurm_bench.watch.progress import Bars

_EXECUTORS: dict[str, Callable[[], Executor]] = {
    "slurm": lambda: Slurm(job.task, job.finish),
    "local": Local,
    "debug": Debug,
}

# Seconds between two looks while `--wait` waits: at the queue, which everybody's jobs ask, and at the run folder. That
# says when the run has come to its end, and then the queue is asked as often.
QUEUE_POLL, FOLDER_POLL = 3.0, 0.5


def choose_executor(asked: str | None) -> Executor:
    """Slurm where sbatch is on the PATH, else local. Raises UserError."""
    name = asked or ("slurm" if has_slurm() else "local")
    if name == "slurm" and not has_slurm():
        raise UserError("--executor slurm: there is no sbatch on the PATH; on this machine: --executor local")
    return _EXECUTORS[name]()


def launch(run: Run, executor: Executor, force: bool, wait: bool, only_scores: bool = False) -> int:
    """Submit or do what is missing; gives the exit code. Raises UserError."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # else `nohup` has it passed over
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    attempt = start(run, executor, force, only_scores)
    if attempt is None:
        return _concluded(run, conclude(run))
    with heard_or_not():
        _announce(run, attempt)
    try:
        if isinstance(executor, Slurm):
            guard = _submit(run, attempt, executor)
            return _wait(run, guard) if wait else COMPLETE
        code = _work_here(run, attempt, executor)
    except KeyboardInterrupt:
        if not isinstance(executor, Slurm):
            log.warning("to go on, type: %s", command("resubmit", run.root))
        raise
    except (UserError, OSError):
        _refuse_moved(run)
        with suppress(OSError):
            close(run.folder, attempt)
        raise
    return _concluded(run, code)


def _refuse_moved(run: Run) -> None:
    """Raises UserError where the folder was moved under its launcher: nothing is written to one of the old name."""
    try:
        run.folder.check_there()
    except FileNotFoundError as error:
        line = command("resubmit", "ITS-NEW-NAME")
        raise UserError(f"{run.root}: {error.strerror}; what has a record is in it: to go on, type: {line}") from None


def _concluded(run: Run, code: int) -> int:
    with heard_or_not():
        print_summary(run.folder)
    return code


def _submit(run: Run, attempt: Attempt, executor: Slurm) -> subprocess.Popen[bytes]:
    """Gives the process that sees it kept."""
    try:
        executor.submit(run, attempt)
        guard = start_guard(run.folder, attempt)
    except UserError as error:
        line = command("resubmit", run.root)
        raise UserError(
            f"{error}; when that is mended, type: {line} (and behind it what has to be said otherwise)"
        ) from None
    except KeyboardInterrupt:
        if read_attempt(run.folder.attempt(attempt.stage, attempt.number)).submitted:
            start_guard(run.folder, attempt)
            log.warning("interrupted, but everything was submitted; to stop it: %s", command("cancel", run.root))
        else:
            log.warning("interrupted: nothing was submitted")
            close(run.folder, attempt)
        raise
    with heard_or_not():
        _follow(run.folder, attempt)
    return guard


def _work_here(run: Run, attempt: Attempt, executor: Executor) -> int:
    if isinstance(executor, Local):
        with Bars(run) as bars:
            executor.poll = bars.poll
            return _chain_here(run, attempt, executor)
    return _chain_here(run, attempt, executor)


def _chain_here(run: Run, attempt: Attempt, executor: Executor) -> int:
    """Where another launcher goes on with it, it isn't complete yet."""
    executor.execute(run, attempt)
    code = carry_on(run, attempt, executor)
    return INCOMPLETE if code is None else code


def _wait(run: Run, guard: subprocess.Popen[bytes]) -> int:
    """Until no job of this run is left, whatever became of it, and `guard` has none to submit again; needs no
    accounting."""
    try:
        with Bars(run, every=FOLDER_POLL) as bars:
            before, asked = conclusions(run.folder), float("-inf")
            while True:
                over = conclusions(run.folder) > before
                if time.monotonic() - asked >= (FOLDER_POLL if over else QUEUE_POLL):
                    guarded = guard.poll() is None and not over
                    if not _at_work(run.folder) and not guarded:
                        break
                    asked = time.monotonic()
                bars.poll()
                time.sleep(FOLDER_POLL)
    except KeyboardInterrupt:
        with suppress(UserError):
            log.warning("no longer waiting; still at work: %s", ", ".join(at_work(run.folder)) or "nobody")
        log.warning("to stop it too, type: %s", command("cancel", run.root))
        raise
    return _concluded(run, conclude(run))


def _at_work(run: RunDir) -> bool:
    with suppress(UserError, OSError):  # a controller, or a file server, that doesn't answer now will later
        return bool(at_work(run))
    return True


def _announce(run: Run, attempt: Attempt) -> None:
    index = {sample.id: sample.index for sample in run.samples}
    category = {sample.id: sample.category for sample in run.samples}
    counts = Counter(category[i] for i in attempt.samples)
    print(f"run       {run.root}")
    print(f"{attempt.name}  {len(attempt.samples)} of {len(run.samples)} samples: ", end="")
    print(", ".join(f"{printable(name)} {count}" for name, count in counts.items()))
    print(f"slices    idx % {attempt.slices} over what is missing, on {attempt.executor}")
    for line in describe_slices([index[i] for i in attempt.slice(task)] for task in range(attempt.slices)):
        print(f"  {line}")
    sys.stdout.flush()


def _jobs(attempt: Attempt) -> str:
    parts = spread(attempt.jobs, len(attempt.arrays))
    sizes = ", ".join(str(len(part)) for part in parts)
    arrays = f"an array of {sizes}" if len(parts) == 1 else f"{len(parts)} arrays, of {sizes}"
    packed = f"{attempt.pack} tasks with a GPU of their own in each" if attempt.pack > 1 else "one GPU each"
    return f"job {', '.join(attempt.arrays)}: {arrays}, {packed}"


def _follow(run: RunDir, attempt: Attempt) -> None:
    attempt = read_attempt(run.attempt(attempt.stage, attempt.number))
    if not scores_itself(attempt):
        print(f"{attempt.stage:9} {_jobs(attempt)}")
    after = f" after {', '.join(attempt.arrays)}" if attempt.arrays else ""
    print(f"finish    job {attempt.finish_job_id}{after}: looks, resubmits what is missing, scores, reports")
    print(f"follow    {command('status', run.root, '--watch')}")
    print(f"stop      {command('cancel', run.root)}", flush=True)
