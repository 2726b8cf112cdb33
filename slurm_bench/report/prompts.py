"""What the judges were asked, made again from the plan and provenance.json: no record holds such texts, only their hash
(`info.prompt`), which tells that these are the very ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slurm_bench.errors import SampleError, UserError
from slurm_bench.run.durable import write_atomic
from slurm_bench.run.manifest import info_of
from slurm_bench.run.opened import Run
from slurm_bench.run.plan import Sample
from slurm_bench.run.provenance import read_provenance
from slurm_bench.run.records import Outcome, State
from slurm_bench.scorers.base import ScoreRequest
from slurm_bench.scorers.judge.prompt import prompt_mark, prompts, texts_of
from slurm_bench.scorers.judge.rubric import rubrics_of
from slurm_bench.scorers.protocols.ask import questions
from slurm_bench.scorers.protocols.description import read_protocol

Texts = list[list[str | None]]  # a prompt each: system, then the user's turn, None where an image stands


def prompt_rows(run: Run, state: State) -> Iterator[dict[str, Any]]:
    """For each record that a judge's words stand in: `asked` has the prompts, None in them for an image; `same` says
    whether they have the recorded hash. Raises UserError where the run doesn't hold what they are made from."""
    provenance = read_provenance(run.folder)
    asks, protocols = provenance.get("asks", {}), provenance.get("protocols", {})
    if not asks:
        raise UserError(
            f"--prompts: {run.folder.provenance} has no judge's rubrics or prompts: none judged, or an older "
            "slurm_bench began the run"
        )
    for name, of in asks.items():
        for sample in state.samples:
            recorded = _recorded(state.scores[sample.id].get(name, Outcome()))
            if recorded is None:
                continue
            try:
                asked = asked_again(of, protocols.get(name), sample, run.folder.provenance)
            except SampleError:
                asked = []
            same = prompt_mark(asked) == recorded
            yield {"id": sample.id, "scorer": name, "prompt": recorded, "same": same, "asked": asked}


def write_prompts(run: Run, state: State) -> None:
    """`report/prompts.jsonl`, a line a record. Raises UserError, also where some aren't the recorded ones."""
    rows = list(prompt_rows(run, state))
    file = run.folder.report / "prompts.jsonl"
    write_atomic(file, "".join(json.dumps(row) + "\n" for row in rows).encode())
    if others := [row["id"] for row in rows if not row["same"]]:
        raise UserError(
            f"{file}: {len(others)} of {len(rows)} prompts are not those that were asked, the first of '{others[0]}'; "
            "make them with the slurm_bench that judged (git revision in provenance.json)"
        )


def asked_again(asks: Mapping[str, Any], protocol: Any, sample: Sample, where: Path) -> Texts:
    """The texts alone hang on how many images there are, and not on what they show. Raises SampleError."""
    request = _request(sample)
    if protocol is not None:
        made = questions(read_protocol(protocol, str(where)), asks["prompts"], request)
        return [texts_of("", one.parts) for one in made]
    built = prompts(request, rubrics_of(asks["rubrics"], where), asks["mode"], asks["aspects"])
    return [texts_of(one.system, one.parts) for one in built.values()]


def _request(sample: Sample) -> ScoreRequest:
    from PIL import Image

    blank = Image.new("RGB", (16, 16))
    return ScoreRequest(
        id=sample.id,
        category=sample.category,
        instruction=sample.instruction,
        sources=(blank,) if sample.follows else tuple(blank for _ in sample.sources),
        edited=blank,
        reference=blank if sample.reference else None,
        description=sample.description,
        rationale=sample.rationale,
        seed=sample.seed,
        facts=sample.facts,
    )


def _recorded(outcome: Outcome) -> str | None:
    """The hash in the record that counts, or in the last failure to read a reply."""
    for record in [outcome.ok, *reversed(outcome.errors)]:
        prompt = info_of(record).get("prompt")
        if isinstance(prompt, str):
            return prompt
    return None
