"""The chain: what to do next, and doing it, the same on every executor (law 9).

A step is claimed, executed or handed to Slurm, and looked at again, until nothing worth trying is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from slurm_bench.cluster.alive import ENDING, alive, at_work, attempts_and_jobs, leftovers
from slurm_bench.cluster.heard import hear
from slurm_bench.cluster.queue import cancel_jobs
from slurm_bench.cluster.sbatch import starts_of
from slurm_bench.command import command
from slurm_bench.config import Config, load_config
from slurm_bench.errors import COMPLETE, INCOMPLETE, UserError
from slurm_bench.logs import log
from slurm_bench.report.write import write_report
from slurm_bench.run.attempts import Attempt, claim_draft, close, conclude_once, draft, next_number, read_attempts
from slurm_bench.run.beside import replaced_since
from slurm_bench.run.create import store
from slurm_bench.run.images import find_gone
from slurm_bench.run.journal import REFUSED, read_journals
from slurm_bench.run.layout import RunDir
from slurm_bench.run.losses import note_losses
from slurm_bench.run.manifest import attempt_of
from slurm_bench.run.opened import Run
from slurm_bench.run.records import State, manifests
from slurm_bench.run.turns import followed
from slurm_bench.stages.deaths import note_deaths
from slurm_bench.stages.unreadable import note_unreadable
from slurm_bench.watch.explain import LINE, one_liners
from slurm_bench.watch.wording import grouped, named, within

# So many lines a run's end has about samples.
LINES = 30


@dataclass(frozen=True)
class Step:
    stage: str
    samples: Sequence[str]
    retry: int
    only_scores: bool = False


class Executor(Protocol):
    name: str

    def slices(self, stage: str, config: Config) -> int:
        """How many tasks a stage should be cut into here."""

    def execute(self, run: Run, attempt: Attempt) -> bool:
        """True when the attempt has been worked on and is over; False when it was handed to jobs that will go
        on with the chain themselves. Raises UserError where it can't be submitted."""


def first_step(state: State, only_scores: bool = False) -> Step | None:
    """What a person who asks gets: everything that is missing, what failed before included."""
    if not only_scores and (missing := state.to_edit()):
        return Step("edit", missing, 0)
    if missing := state.to_score():
        return Step("score", missing, 0, only_scores)
    return None


def next_step(
    state: State, attempts: Sequence[Attempt], refused: Sequence[str], config: Config, only_scores: bool = False
) -> Step | None:
    """What the chain does by itself after an attempt. `retries` bounds the attempts that brought no sample forward
    (law 12). None is made after an attempt whose plug-in refused to start (`refused` names those), and in a strict run
    none but the scoring of a whole set of images."""
    if config.strict and state.to_edit():
        return None
    to_edit = [] if only_scores else state.worth_editing()
    for stage, missing in (("edit", to_edit), ("score", state.worth_scoring())):
        last = max((a for a in attempts if a.stage == stage and not a.void), key=lambda a: a.number, default=None)
        if not missing or (last is not None and last.name in refused):
            continue
        if last is None or (stage == "score" and not set(missing) <= set(last.samples)):
            return Step(stage, missing, 0, only_scores)
        retry = last.retry + (set(last.samples) <= set(missing))
        if retry <= config.retries:
            return Step(stage, missing, retry, only_scores)
    return None


def look(run: Run) -> State:
    """What the records say, after images that are gone were noted as lost (law 15)."""
    state, lost = note_losses(run, partial(find_gone, run.folder))
    for problem in lost.values():
        log.error("lost, and to be made again: %s", problem)
    return state


def start(run: Run, executor: Executor, force: bool, only_scores: bool = False) -> Attempt | None:
    """Claim what a person asked for, and store by which configuration. None where nothing is missing. Raises UserError
    where the run is at work already, or another launcher was faster (law 8)."""
    attempts, queued = attempts_and_jobs(run.folder)  # one look: who claims after it collides with the number below
    _refuse(run, [] if force else alive(attempts, queued))
    cancel_jobs(job.id for job in leftovers(attempts, queued))
    state = look(run)
    _tell_replaced(run, state)
    step = first_step(state, only_scores)
    if step is None:
        store(run)
        return None
    anew = starts_of(run.config) != starts_of(load_config(run.folder.config))
    # Where the attempts were deleted, their records stay theirs: a task takes its own attempt's for what it has done.
    recorded = 0 if attempts else max((attempt_of(file) for file in manifests(run.folder, step.stage)), default=0)
    attempt = _claim(run, step, attempts, executor, anew, recorded)
    if attempt is None or _has_company(run, attempt, attempts):
        raise UserError(f"{run.root}: another launcher has just submitted this run; see: {command('status', run.root)}")
    store(run)
    return attempt


def _tell_replaced(run: Run, state: State) -> None:
    """Scores hold for the reference and the mask that they were made by, and a plan's data don't change (law 1)."""
    if others := replaced_since(state):
        log.warning(
            "the reference or mask image of %d scored samples (%r%s) was replaced since: their scores are by the old "
            "one; for scores by the new one plan a new run that takes over this one's images: --run-dir NEW --reuse %s",
            *(len(others), others[0], ", …" if len(others) > 1 else "", run.root),
        )


def _has_company(run: Run, attempt: Attempt, known: Sequence[Attempt]) -> bool:
    """Whether somebody has claimed the other stage since `known` was read, which collides with no number. Then this
    claim is given up; so may the other one be, but both never work."""
    before = {attempt.name, *(other.name for other in known)}
    if all(other.name in before for other in read_attempts(run.folder)):
        return False
    close(run.folder, attempt)
    return True


def refuse_at_work(run: Run, force: bool) -> None:
    """Raises UserError where somebody is at work on the run. What is ending is waited for."""
    _refuse(run, [] if force else at_work(run.folder, ENDING))


def _refuse(run: Run, busy: Sequence[str]) -> None:
    if busy:
        raise UserError(
            f"{run.root}: still at work: {', '.join(busy)}; wait for it, or type: {command('cancel', run.root)}"
        )


def carry_on(run: Run, attempt: Attempt, executor: Executor) -> int | None:
    """After `attempt`: whatever is worth trying, then the report. None when the rest was handed to jobs that
    carry on themselves, else the exit code."""
    refused_here: list[str] = []
    while True:
        run.folder.check_there()
        close(run.folder, attempt)
        attempts = read_attempts(run.folder)
        refused = [*_refused(run.folder, attempts), *refused_here]
        state = look(run)
        if note_unreadable(run, state):
            state = run.state()
        step = next_step(state, attempts, refused, run.config, attempt.only_scores)
        if step is None:
            note_deaths(run, state)
            code = conclude(run)
            conclude_once(run.folder, attempt)  # who looks afterwards asks the newest
            return code
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
    causes = one_liners(run, hear, lambda: state, over=True)
    write_report(run, state, causes)
    lacking = {sample_id: state.failure(sample_id) or state.missing(sample_id) for sample_id in state.unscored()}
    if not lacking:
        log.info("complete: %d samples edited and scored; see %s", len(state.samples), run.folder.report)
        return COMPLETE
    log.error("incomplete: %d of %d samples have no score", len(lacking), len(state.samples))
    groups = grouped(lacking)
    for ids, why in groups[:LINES]:
        log.error("  %s: %s", named(ids) if ids[1:] else repr(ids[0]), within(why, LINE))
    if len(groups) > LINES:
        log.error("  and %d further lines, see scores.csv", len(groups) - LINES)
    for line in causes or [f"to try what is missing again, type: {resubmit_line(run.root)}"]:
        log.error("  %s", line)
    return INCOMPLETE


def resubmit_line(root: Path) -> str:
    return command("resubmit", root)


def propose(run: Run, step: Step, attempts: Sequence[Attempt], executor: Executor, after: int = 0) -> Attempt:
    """The attempt that would be claimed for a step; nothing is written. It is dated after all others, also where this
    node's clock is behind: by their times they follow one another."""
    number, slices = max(next_number(attempts, step.stage), after + 1), executor.slices(step.stage, run.config)
    follows = followed(run.samples) if step.stage == "edit" else None
    drafted = draft(
        run.folder,
        step.stage,
        step.samples,
        slices,
        executor.name,
        step.retry,
        number,
        run.by,
        step.only_scores,
        run.config.pack if executor.name == "slurm" else 1,
        follows,
    )
    return replace(drafted, time=max([drafted.time, *(math.nextafter(attempt.time, math.inf) for attempt in attempts)]))


def _claim(
    run: Run, step: Step, attempts: Sequence[Attempt], executor: Executor, anew: bool = False, after: int = 0
) -> Attempt | None:
    attempt = replace(propose(run, step, attempts, executor, after), anew=anew)
    return attempt if claim_draft(run.folder, attempt) else None


def _refused(run: RunDir, attempts: Sequence[Attempt]) -> list[str]:
    """The attempts in which a plug-in said that it can't work as configured: trying again would not help."""
    ends = read_journals(run, "edit") + read_journals(run, "score")
    refused = {(end.stage, end.attempt) for end in ends if end.end == REFUSED}
    return [a.name for a in attempts if (a.stage, a.number) in refused]
