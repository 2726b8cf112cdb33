"""`explain`: why did what fail or wait, and what to type next (law 17)."""

from __future__ import annotations

import re
import shlex
import shutil
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from slurm_bench.command import command
from slurm_bench.data.text import printable
from slurm_bench.errors import alike
from slurm_bench.logs import visible
from slurm_bench.machine import without_collection
from slurm_bench.run.opened import Run
from slurm_bench.run.records import State
from slurm_bench.watch.evidence import Evidence, Hear, gather
from slurm_bench.watch.job_logs import OWN_LINE, job_logs, last_words, tail
from slurm_bench.watch.kinds import KINDS, RESUBMIT, WATCH, Kind, kind_of
from slurm_bench.watch.symptoms import Symptom, find_symptoms
from slurm_bench.watch.wording import within

# So many causes are told; a run of a hundred thousand samples may have as many.
TOLD = 20
# Last lines of a log that are shown with a cause, and how much of each.
LINES, LINE = 3, 300
# Whose frames of a traceback tell nothing: what called the plug-in, and the threads in which it reads ahead.
ENGINE = ("/slurm_bench/stages/", "/concurrent/futures/")
# What ends a process from without leaves no traceback of its own: one in the log is of something else.
SILENT = (
    "stuck",
    "sigkill",
    "crash",
    "exit_code",
    "host_out_of_memory",
    "time_limit",
    "killed_with_its_job",
    "cancelled",
)
# What a process did itself, and may have said why.
LAST_WORDS = ("crash", "exit_code")


@dataclass(frozen=True)
class Cause:
    """`samples` have no result because of it. `tasks` are named as `edit-001/3`. `lines` are the last telling ones of
    `log`, a path. `next` is the line to type. `past` is what was taken up again since."""

    kind: str
    what: str
    samples: tuple[str, ...]
    tasks: tuple[str, ...]
    nodes: tuple[str, ...]
    lines: tuple[str, ...]
    log: str
    next: str
    past: bool = False

    @property
    def line(self) -> str:
        """In one line, for status, the report and the last lines of a job."""
        count = _count(len(self.samples), "sample") if self.samples else "since taken up again" if self.past else ""
        around = "; ".join(filter(None, (count, _place(self))))
        return printable(f"{self.what}{f' ({around})' if around else ''}")


@without_collection()
def explain(seen: Evidence) -> list[Cause]:
    """The worst first: what keeps most samples from a result."""
    groups: dict[tuple[Kind, str, bool], list[Symptom]] = defaultdict(list)
    for symptom in find_symptoms(seen):
        kind = kind_of(symptom)
        groups[kind, "" if kind.together else _alike(symptom.detail), symptom.past].append(symptom)
    by_rank = sorted(groups.items(), key=lambda group: KINDS.index(group[0][0]))
    causes = [_cause(seen, kind, symptoms) for (kind, _, _), symptoms in by_rank]
    return sorted(causes, key=lambda cause: (cause.past, -len(cause.samples)))


def read_causes(run: Run, hear: Hear, over: bool = False) -> tuple[Evidence, list[Cause]]:
    """What `explain RUN` knows, with the lines of the logs. `over` says that the run has come to its end."""
    seen = gather(run, hear, over=over, images=not over)
    causes = explain(seen)
    told = [_with_lines(_with_last_words(seen, cause)) for cause in causes[:TOLD]]
    return seen, told + causes[TOLD:]


def one_liners(run: Run, hear: Hear, look: Callable[[], State] | None = None, over: bool = False) -> list[str]:
    """Why something is missing, a line a cause, and the line to type next. Empty where nothing is."""
    causes = explain(gather(run, hear, look, over))
    typed = next_of(causes)
    return [*lines_of(causes), *([f"next, type: {typed}"] if typed else [])]


def lines_of(causes: Sequence[Cause]) -> list[str]:
    now = [cause for cause in causes if not cause.past]
    more = [f"and {len(now) - TOLD} further causes, see report/scores.csv"] if len(now) > TOLD else []
    return [cause.line for cause in now[:TOLD]] + more


def next_of(causes: Sequence[Cause]) -> str | None:
    """The line to type."""
    return next((cause.next for cause in causes if not cause.past), None)


def to_json(seen: Evidence, causes: Sequence[Cause]) -> dict[str, Any]:
    return {
        "run": str(seen.run.root),
        "alive": seen.alive,
        "queue": seen.silent or "asked",
        "missing": _missing(seen),
        "causes": [asdict(cause) for cause in causes],
        "next": next_of(causes),
    }


def render(seen: Evidence, causes: Sequence[Cause], width: int | None = None) -> str:
    """A paragraph a cause. What a person copies (paths, commands) is never broken over lines."""
    width = width or shutil.get_terminal_size().columns
    wrapped: Callable[[str, str], str] = lambda text, indent: textwrap.fill(  # noqa: E731
        text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
    lines = [f"run {printable(str(seen.run.root))}", *(wrapped(line, "  ") for line in _situation(seen, causes))]
    now = [cause for cause in causes if not cause.past]
    for number, cause in enumerate(now[:TOLD], 1):
        heading = f"{number}. {cause.kind}: {_scope(cause)}".rstrip(": ")
        lines += ["", wrapped(heading, "   "), wrapped("   " + printable(cause.what), "   ")]
        lines += [f"   | {line}" for line in cause.lines]
        lines += [f"   log   {printable(cause.log)}"] if cause.log else []
        lines += [f"   next  {cause.next}"]
    if len(now) > TOLD:
        lines += ["", f"and {len(now) - TOLD} further causes: --json has them all"]
    if past := [cause for cause in causes if cause.past]:
        lines += ["", "taken up again since:"]
        lines += [wrapped(f"- {cause.line}", "  ") for cause in past[:TOLD]]
    return "\n".join(lines)


def _situation(seen: Evidence, causes: Sequence[Cause]) -> list[str]:
    missing, planned = _missing(seen), len(seen.state.samples)
    lines = [f"{planned - missing} of {planned} samples have their scores"]
    if seen.silent:
        lines.append(f"the queue can't be asked: {printable(seen.silent)}")
    if missing and seen.alive:
        lines.append("it is not over yet; nothing is wrong so far" if not causes else "it is not over yet")
    elif not missing:
        lines.append("it is complete" if any(not c.past for c in causes) else "it is complete; nothing is wrong")
    elif not causes:
        lines.append("nothing was found that says why the others have none; to go on, type:")
        lines.append(command("resubmit", seen.run.root))
    return lines


def _missing(seen: Evidence) -> int:
    return len(seen.state.unscored())


def _cause(seen: Evidence, kind: Kind, symptoms: Sequence[Symptom]) -> Cause:
    told = sorted(symptoms, key=lambda symptom: not symptom.samples)
    nodes = tuple(sorted({symptom.node for symptom in told if symptom.node}))
    log = next((s.log for s in told if s.log and Path(s.log).exists()), "")
    detail = within(_reason(told[0].detail), LINE)
    jobs = ",".join(dict.fromkeys(symptom.job.split("_")[0] for symptom in told if symptom.job))
    facts = {"detail": detail, "job": jobs, "node": ",".join(nodes) or "of the task", "log": log}
    lines = next((symptom.lines for symptom in told if symptom.lines), ())
    return Cause(
        kind=kind.name,
        what=kind.says.format_map(facts),
        samples=tuple(dict.fromkeys(sample_id for symptom in told for sample_id in symptom.samples)),
        tasks=tuple(dict.fromkeys(f"{s.task[0]}/{s.task[1]}" for s in told if s.task)),
        nodes=nodes,
        lines=_shown(lines),
        log=log,
        next=_next(seen, kind, facts),
        past=symptoms[0].past,
    )


def _next(seen: Evidence, kind: Kind, facts: Mapping[str, str]) -> str:
    root = seen.run.root
    verbs = {
        "resubmit": command("resubmit", root),
        "watch": command("status", root, "--watch"),
        "cancel": command("cancel", root),
        "report": command("report", root),
    }
    over = seen.alive is False
    line = kind.next if kind.now or over else WATCH
    line = RESUBMIT if over and line == WATCH else line
    return line.format_map({**facts, **verbs, "log": shlex.quote(facts["log"])})


def _reason(detail: str) -> str:
    """Without what only says how often, and the colon before a message that is empty."""
    return re.sub(r"^SystematicFailure: the first \d+ samples all failed alike: ", "", detail).rstrip(": ")


def _alike(detail: str) -> str:
    return alike(_reason(detail))[:LINE]


def _with_last_words(seen: Evidence, cause: Cause) -> Cause:
    """What a process that ended itself printed before, where Slurm said nothing: our own log has nothing of it."""
    if cause.lines or not cause.tasks or cause.kind not in LAST_WORDS:
        return cause
    name, _, task = cause.tasks[0].partition("/")
    attempt = next((attempt for attempt in seen.attempts if attempt.name == name), None)
    if attempt is None:  # its file was moved away
        return cause
    output = seen.run.folder.output(attempt.stage, attempt.number, int(task))
    file = output if output.exists() else job_logs(seen.run.folder.submitit).get(attempt.job_of(int(task)))
    words = last_words(file) if file else []
    return replace(cause, lines=_shown(words), log=str(file)) if words else cause


def _with_lines(cause: Cause) -> Cause:
    """The telling lines of its log, where Slurm said none: what stands there of its first sample, else our own last
    word, which says how the task ended, if it could say that."""
    if cause.lines or not cause.log:
        return cause
    lines = tail(cause.log)
    begun = [n for n, line in enumerate(lines) if cause.samples and f" ERROR {cause.samples[0]!r}: " in line]
    if not begun and cause.kind not in SILENT:
        begun = [n for n, line in enumerate(lines) if OWN_LINE.match(line)]
    telling = _raised(lines[begun[-1] :]) if begun else []
    return replace(cause, lines=_shown(telling or lines[-LINES:]))


def _shown(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(within(visible(line.strip()), LINE) for line in lines[-LINES:])


def _raised(lines: Sequence[str]) -> list[str]:
    """The first line, and of the traceback that follows it where the plug-in raised."""
    lines = [line for line in lines if line.strip(" ^~")]  # less what points at a part of the line above
    end = next((n for n, line in enumerate(lines) if n and OWN_LINE.match(line)), len(lines))
    places = [n for n in range(end) if lines[n].startswith("  File ") and not any(own in lines[n] for own in ENGINE)]
    return list(lines[places[-1] : end][:LINES] if places else lines[:1])


def _scope(cause: Cause) -> str:
    """How many samples and which, of what tasks on what nodes."""
    few = ", ".join(map(repr, cause.samples[:3])) + (", …" if len(cause.samples) > 3 else "")
    count = f"{_count(len(cause.samples), 'sample')} ({few})" if cause.samples else ""
    return printable(", ".join(filter(None, (count, _place(cause)))))


def _place(cause: Cause) -> str:
    nodes = f"on {', '.join(cause.nodes)}" if cause.nodes else ""
    return " ".join(filter(None, (_tasks(cause.tasks), nodes)))


def _tasks(tasks: Iterable[str]) -> str:
    by_attempt: dict[str, list[str]] = defaultdict(list)
    for task in tasks:
        attempt, _, number = task.partition("/")
        by_attempt[attempt].append(number)
    lines = []
    for attempt, numbers in by_attempt.items():
        numbers = sorted(numbers, key=int)
        shown = ", ".join(numbers if len(numbers) <= 8 else [*numbers[:7], f"… ({len(numbers)} in all)"])
        lines.append(f"{'task' if len(numbers) == 1 else 'tasks'} {shown} of {attempt}")
    return ", ".join(lines[:3]) + (", …" if len(lines) > 3 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
