"""The chain: what to do next, and doing it, the same on every executor (law 9).

A step is claimed, executed or handed to Slurm, and looked at again, until nothing worth trying is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from slurm_bench.cluster.alive import alive
from slurm_bench.command import command
from slurm_bench.config import Config
from slurm_bench.errors import COMPLETE, INCOMPLETE, UserError
from slurm_bench.logs import log
from slurm_bench.report.write import write_report
from slurm_bench.run.attempts import Attempt, claim, close, next_number, read_attempts
from slurm_bench.run.journal import FAILED, REFUSED, read_journals
from slurm_bench.run.layout import RunDir
from slurm_bench.run.opened import Run
from slurm_bench.run.records import State


@dataclass(frozen=True)
class Step:
    stage: str
    samples: Sequence[str]
    retry: int


class Executor(Protocol):
    name: str

    def slices(self, stage: str, config: Config) -> int:
        """How many tasks a stage should be cut into here."""

    def execute(self, run: Run, attempt: Attempt) -> bool:
        """True when the attempt has been worked on and is over; False when it was handed to jobs that will go
        on with the chain themselves. Raises UserError where it can't be submitted."""


def first_step(state: State) -> Step | None:
    """What a person who asks gets: everything that is missing, what failed before included."""
    if missing := state.to_edit():
        return Step("edit", missing, 0)
    if missing := state.to_score():
        return Step("score", missing, 0)
    return None


def next_step(state: State, attempts: Sequence[Attempt], refused: Sequence[str], config: Config) -> Step | None:
    """What the chain does by itself after an attempt: at most `retries` resubmissions, none for a sample that
    failed the same way twice, none after an attempt whose plug-in refused to start (`refused` names those)."""
    for stage, missing in (("edit", state.worth_editing()), ("score", state.worth_scoring())):
        last = max((a for a in attempts if a.stage == stage), key=lambda a: a.number, default=None)
        if not missing or (last is not None and last.name in refused):
            continue
        if last is None or (stage == "score" and not set(missing) <= set(last.samples)):
            return Step(stage, missing, 0)
        if last.retry < config.retries:
            return Step(stage, missing, last.retry + 1)
    return None


def start(run: Run, executor: Executor, force: bool) -> Attempt | None:
    """Claim what a person asked for. None where nothing is missing. Raises UserError where the run is at work
    already, or another launcher was faster (law 8)."""
    attempts = read_attempts(run.folder)
    busy = [] if force else alive(run.folder, attempts)
    if busy:
        raise UserError(
            f"{run.root}: still at work: {', '.join(busy)}; wait for it, or type: {command('cancel', run.root)}"
        )
    step = first_step(run.state())
    if step is None:
        return None
    attempt = _claim(run, step, attempts, executor)
    if attempt is None:
        raise UserError(f"{run.root}: another launcher has just submitted this run; see: {command('status', run.root)}")
    return attempt


def carry_on(run: Run, attempt: Attempt, executor: Executor) -> int | None:
    """After `attempt`: whatever is worth trying, then the report. None when the rest was handed to jobs that
    carry on themselves, else the exit code."""
    refused_here: list[str] = []
    while True:
        close(run.folder, attempt)
        attempts = read_attempts(run.folder)
        refused = [*_refused(run.folder, attempts), *refused_here]
        step = next_step(run.state(), attempts, refused, run.config)
        if step is None:
            return conclude(run)
        claimed = _claim(run, step, attempts, executor)
        if claimed is None:
            log.warning("another launcher goes on with %s; leaving it to that one", run.root)
            return None
        attempt = claimed
        again = f", retry {step.retry} of {run.config.retries}" if step.retry else ""
        log.info("next is %s: %d samples%s", attempt.name, len(step.samples), again)
        try:
            if not executor.execute(run, attempt):
                return None
        except UserError as error:
            log.error("cannot submit %s: %s; to go on, type: %s", attempt.name, error, resubmit_line(run.root))
            refused_here.append(attempt.name)


def conclude(run: Run) -> int:
    """Write the report, name what is missing and why, give the exit code."""
    state = run.state()
    write_report(run, state)
    scored = set(state.scored())
    lacking = [s.id for s in state.samples if s.id not in scored]
    if not lacking:
        log.info("complete: %d samples edited and scored; see %s", len(scored), run.folder.report)
        return COMPLETE
    log.error("incomplete: %d of %d samples have no score", len(lacking), len(state.samples))
    for sample_id in lacking:
        log.error("  %r: %s", sample_id, state.failure(sample_id) or "no record: its task ended before it")
    for end in read_journals(run.folder, "edit") + read_journals(run.folder, "score"):
        if end.end in (FAILED, REFUSED):
            log.error("  task %d of %s-%03d on %s: %s", end.task, end.stage, end.attempt, end.node, end.message)
    log.error("to try what is missing again, type: %s", resubmit_line(run.root))
    return INCOMPLETE


def resubmit_line(root: Path) -> str:
    return command("resubmit", root)


def _claim(run: Run, step: Step, attempts: Sequence[Attempt], executor: Executor) -> Attempt | None:
    number, slices = next_number(attempts, step.stage), executor.slices(step.stage, run.config)
    return claim(run.folder, step.stage, step.samples, slices, executor.name, step.retry, number)


def _refused(run: RunDir, attempts: Sequence[Attempt]) -> list[str]:
    """The attempts in which a plug-in said that it can't work as configured: trying again would not help."""
    ends = read_journals(run, "edit") + read_journals(run, "score")
    refused = {(end.stage, end.attempt) for end in ends if end.end == REFUSED}
    return [a.name for a in attempts if (a.stage, a.number) in refused]
