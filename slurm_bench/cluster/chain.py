"""The chain: what to do next, and doing it, the same on every executor (law 9).

A step is claimed, executed or handed to Slurm, and looked at again, until nothing worth trying is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from slurm_bench.cluster.alive import alive
from slurm_bench.command import command
from slurm_bench.config import Config, load_config
from slurm_bench.errors import UserError
from slurm_bench.logs import log
from slurm_bench.report.write import write_report
from slurm_bench.run.attempts import Attempt, claim, close, next_number, read_attempts
from slurm_bench.run.journal import FAILED, REFUSED, read_journals
from slurm_bench.run.layout import RunDir
from slurm_bench.run.plan import read_plan
from slurm_bench.run.records import State, read_state

COMPLETE, INCOMPLETE = 0, 3


@dataclass(frozen=True)
class Step:
    stage: str
    samples: Sequence[str]
    retry: int


class Executor(Protocol):
    name: str

    def slices(self, stage: str, config: Config) -> int:
        """How many tasks a stage should be cut into here."""

    def execute(self, run: RunDir, attempt: Attempt, config: Config) -> bool:
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


def look(run: RunDir, config: Config) -> State:
    return read_state(run, read_plan(run), config.scorers)


def start(run: RunDir, executor: Executor, force: bool) -> Attempt | None:
    """Claim what a person asked for. None where nothing is missing. Raises UserError where the run is at work
    already, or another launcher was faster (law 8)."""
    config = load_config(run.config)
    attempts = read_attempts(run)
    busy = [] if force else alive(run, attempts)
    if busy:
        raise UserError(
            f"{run.root}: still at work: {', '.join(busy)}; wait for it, or type: {command('cancel', run.root)}"
        )
    step = first_step(look(run, config))
    if step is None:
        return None
    attempt = _claim(run, step, attempts, executor, config)
    if attempt is None:
        raise UserError(f"{run.root}: another launcher has just submitted this run; see: {command('status', run.root)}")
    return attempt


def carry_on(run: RunDir, attempt: Attempt, executor: Executor) -> int | None:
    """After `attempt`: whatever is worth trying, then the report. None when the rest was handed to jobs that
    carry on themselves, else the exit code."""
    config = load_config(run.config)
    in_vain: list[str] = []
    while True:
        close(run, attempt)
        attempts = read_attempts(run)
        step = next_step(look(run, config), attempts, [*_refused(run, attempts), *in_vain], config)
        if step is None:
            return conclude(run, config)
        claimed = _claim(run, step, attempts, executor, config)
        if claimed is None:
            log.warning("another launcher goes on with %s; leaving it to that one", run.root)
            return None
        attempt = claimed
        again = f", retry {step.retry} of {config.retries}" if step.retry else ""
        log.info("next is %s: %d samples%s", attempt.name, len(step.samples), again)
        try:
            if not executor.execute(run, attempt, config):
                return None
        except UserError as error:
            log.error("cannot submit %s: %s; to go on, type: %s", attempt.name, error, resubmit_line(run))
            in_vain.append(attempt.name)


def conclude(run: RunDir, config: Config) -> int:
    """Write the report, name what is missing and why, give the exit code."""
    state = look(run, config)
    write_report(run, config, state)
    scored = set(state.scored())
    lacking = [s.id for s in state.samples if s.id not in scored]
    if not lacking:
        log.info("complete: %d samples edited and scored; see %s", len(scored), run.report)
        return COMPLETE
    log.error("incomplete: %d of %d samples have no score", len(lacking), len(state.samples))
    for sample_id in lacking:
        log.error("  %r: %s", sample_id, state.failure(sample_id) or "no record: its task ended before it")
    for end in read_journals(run, "edit") + read_journals(run, "score"):
        if end.end in (FAILED, REFUSED):
            log.error("  task %d of %s-%03d on %s: %s", end.task, end.stage, end.attempt, end.node, end.message)
    log.error("to try what is missing again, type: %s", resubmit_line(run))
    return INCOMPLETE


def resubmit_line(run: RunDir) -> str:
    return command("resubmit", run.root)


def _claim(run: RunDir, step: Step, attempts: Sequence[Attempt], executor: Executor, config: Config) -> Attempt | None:
    number, slices = next_number(attempts, step.stage), executor.slices(step.stage, config)
    return claim(run, step.stage, step.samples, slices, executor.name, step.retry, number)


def _refused(run: RunDir, attempts: Sequence[Attempt]) -> list[str]:
    """The attempts in which a plug-in said that it can't work as configured: trying again would not help."""
    ends = read_journals(run, "edit") + read_journals(run, "score")
    refused = {(end.stage, end.attempt) for end in ends if end.end == REFUSED}
    return [a.name for a in attempts if (a.stage, a.number) in refused]
