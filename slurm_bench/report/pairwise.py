"""Several runs over one set, judged pair by pair in both orders; only what no earlier call has judged is asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from slurm_bench.errors import SampleError, ServiceDown, UserError
from slurm_bench.logs import hide_secrets, log
from slurm_bench.report.comparable import differ, unlike_to_see
from slurm_bench.report.judgements import Asked, Judgement, JudgementWriter, Match, about, read_judgements, writing
from slurm_bench.report.pairwise_results import Verdict, results, verdicts_of
from slurm_bench.report.side import Side, open_sides
from slurm_bench.run.durable import write_atomic
from slurm_bench.run.images import read_recorded
from slurm_bench.run.records import Record
from slurm_bench.scorers.protocols.judge import Exchange, ask, call
from slurm_bench.scorers.protocols.pairwise import FIRST, SECOND, Asker, load_askers

AT_ONCE = 32  # questions; what was judged is on disk when the next are asked


@dataclass(frozen=True)
class Judged:
    """`said` is everything that `compare --judge` says, as JSON; it is in the folder too, beside each judgement."""

    sides: Sequence[Side]
    verdicts: Sequence[Verdict]
    said: Mapping[str, Any]
    folder: Path


def judge_pairs(roots: Sequence[Path], file: Path, folder: Path) -> Judged:
    """Judge what is missing. What came before an error is kept. Raises UserError."""
    sides, askers = open_sides(roots), load_askers(file)
    matches, left_out = _matches(sides)
    if not matches:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise UserError(f"no two of the runs have edited the same sample ({why})")
    known = read_judgements(folder)
    missing = {name: _missing(matches, name, asker, known) for name, asker in askers.items()}
    new, problems = 0, dict[Asked, str]()
    if any(missing.values()):
        for asker in askers.values():
            call(asker.judge, "check", f"{file}: judge")
        with writing(folder) as writer:
            for name, asker in askers.items():
                judged_before = any(asked.by == asker.by for asked in known)
                found, failed = _judge(sides, asker, missing[name], writer, judged_before)
                known |= found
                problems |= failed
                new += len(found)
    verdicts = verdicts_of(matches, askers, known)
    said = results(sides, askers, verdicts, problems) | {"left_out": dict(left_out), "asked_now": new}
    write_atomic(folder / "elo.json", (json.dumps(said, indent=1) + "\n").encode())
    return Judged(sides, verdicts, said, folder)


def _matches(sides: Sequence[Side]) -> tuple[list[Match], Counter[str]]:
    """The matches of each two runs; and why samples are none, with how often. A sample is compared under its first
    seed."""
    found: list[Match] = []
    left_out: Counter[str] = Counter()
    for (n, a), (m, b) in combinations(enumerate(sides), 2):
        left_out[f"in one plan only, of {a.name} and {b.name}"] += len(a.samples.keys() ^ b.samples.keys())
        for i in (i for i in a.samples if i in b.samples):
            one, two = (side.state.edits[side.samples[i].id].ok for side in (a, b))
            if one is None or two is None:
                without = [side.name for side, edit in ((a, one), (b, two)) if edit is None]
                left_out[f"not edited in {' and '.join(without)}"] += 1
            elif why := differ(a, b, i) or unlike_to_see(a, b, i):
                left_out[f"{why}, in {a.name} and {b.name}"] += 1
            else:
                key = about(a.samples[i].instruction, one.get("source_sha256"))
                found.append(Match(n, m, i, key, (one["sha256"], two["sha256"])))
    return found, +left_out


def _missing(
    matches: Iterable[Match], dimension: str, asker: Asker, known: Mapping[Asked, Judgement]
) -> dict[Asked, Match]:
    """What must be asked, each once: several runs may have made equal images. The first match that needs it counts."""
    found: dict[Asked, Match] = {}
    for match in matches:
        if match.images[0] != match.images[1]:
            for asked in match.asked(dimension, asker.by):
                if asked not in known:
                    found.setdefault(asked, match)
    return found


def _judge(
    sides: Sequence[Side],
    asker: Asker,
    missing: Mapping[Asked, Match],
    writer: JudgementWriter,
    judged_before: bool,
) -> tuple[dict[Asked, Judgement], dict[Asked, str]]:
    """What could be judged, and why the rest couldn't. A reply that can't be read is a judgement without a winner; an
    image that can't be read, or a server that fails at one, is none and will be asked again. Where this judge has
    `judged_before` and a server answers nothing of the rest, it may be these questions that it fails at: what there is
    is told all the same."""
    found: dict[Asked, Judgement] = {}
    failed: dict[Asked, str] = {}
    if not missing:
        return found, failed
    todo = list(missing)
    with _loaded(asker):
        for start in range(0, len(todo), AT_ONCE):
            exchanges: dict[Asked, Exchange[str]] = {}
            for asked in todo[start : start + AT_ONCE]:
                try:
                    exchanges[asked] = _exchange(sides, asker, missing[asked], asked)
                except SampleError as error:
                    failed[asked] = _said(error, missing[asked])
            ask(asker.judge, list(exchanges.values()), asker.max_tokens)
            for asked, exchange in exchanges.items():
                if isinstance(exchange.problem, str):
                    found[asked] = Judgement(exchange.found, exchange.problem, exchange.raw)
                    writer.write(asked, found[asked])
            down = _raise_if_none_is_to_blame(exchanges.values(), judged_before and not found)
            for asked, exchange in exchanges.items():
                if isinstance(exchange.problem, Exception):
                    failed[asked] = _said(exchange.problem, missing[asked])
            if down is not None:
                failed |= {asked: _said(down, missing[asked]) for asked in todo if asked not in failed}
                break
            log.info("%s: %d of %d judged", todo[start].dimension, len(found), len(todo))
    return found, failed


def _said(error: Exception, match: Match) -> str:
    """In a line, which goes to the log too."""
    said = " ".join(hide_secrets(str(error)).split())[:400] or type(error).__name__
    log.warning("%r isn't judged: %s", match.sample, said)
    return said


def _exchange(sides: Sequence[Side], asker: Asker, match: Match, asked: Asked) -> Exchange[str]:
    """Raises SampleError where the judge would be shown another image than those that it is asked about."""
    from slurm_bench.data.images import open_image
    from slurm_bench.stages.work import edited_sources

    first, second = sides[match.first], sides[match.second]
    sample = first.samples[match.sample]
    order = (first, second) if asked.first == match.images[0] else (second, first)
    images = {"source": edited_sources(first.run.folder, sample, _edit(first, match.sample)).images}
    for name, side in zip((FIRST, SECOND), order, strict=True):
        data, problem = read_recorded(side.run.folder, _edit(side, match.sample))
        if problem:
            raise SampleError(f"{side.name}: {problem}")
        images[name] = (open_image(data),)
    return asker.exchange(sample.instruction, sample.seed, images)


def _edit(side: Side, sample: str) -> Record:
    return side.state.edits[side.samples[sample].id].ok or {}


def _raise_if_none_is_to_blame(exchanges: Iterable[Exchange[str]], go_on: bool) -> ServiceDown | None:
    """With `go_on` a server that doesn't work is given, not raised."""
    down = None
    for exchange in exchanges:
        if isinstance(exchange.problem, UserError):
            raise exchange.problem
        if isinstance(exchange.problem, ServiceDown):
            down = exchange.problem
            if go_on:
                continue
            raise UserError(f"{exchange.problem}; what was judged is kept: type the same again to go on")
    return down


@contextmanager
def _loaded(asker: Asker) -> Iterator[None]:
    try:
        call(asker.judge, "load")
        yield
    finally:
        call(asker.judge, "close")
