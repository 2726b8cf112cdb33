"""Qwen3-VL as a judge: milliseconds a sample, of the model alone, with preprocessing, and from files on disk; what more
aspects cost, and what its weights in 8 bits save."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from slurm_bench.bench.kernels import kernel_groups
from slurm_bench.bench.machine import peak_gib, reset_peak, seconds_of
from slurm_bench.bench.pictures import INSTRUCTION, picture
from slurm_bench.config import Config
from slurm_bench.kernels.fp8 import why_unsupported
from slurm_bench.machine import free_memory
from slurm_bench.run.durable import LineWriter, write_atomic
from slurm_bench.run.layout import RunDir
from slurm_bench.run.plan import Sample
from slurm_bench.scorers.qwen3vl.fit import EXACT, FP8, MICRO_BATCH, W8A16, narrow
from slurm_bench.scorers.qwen3vl.random_weights import random_judge
from slurm_bench.scorers.qwen3vl.scorer import Qwen3VLScorer
from slurm_bench.stages.engine import Engine
from slurm_bench.stages.picture import encode_png
from slurm_bench.stages.stop import StopSignals
from slurm_bench.stages.work import ScoreWork


@dataclass(frozen=True)
class Case:
    mode: str = "expected"
    aspects: tuple[str, ...] = ("overall",)
    profile: str = EXACT


# The first of a mode is what a forecast goes by.
CASES = (
    Case(),
    Case(aspects=("overall", "instruction", "preservation", "quality")),
    Case(profile=FP8),
    Case(profile=W8A16),
    Case("generate"),
    Case("generate", profile=FP8),
)
SAMPLES = {"full": {"expected": 160, "generate": 32}, "tiny": {"expected": 4, "generate": 2}}
NEW_TOKENS = {"full": 128, "tiny": 4}
SIDE = {"full": 1024, "tiny": 64}
BATCH = Config().score_batch_size


def measure_scoring(size: str, device: str, kernels: bool, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """A row for each of `CASES`. More aspects than one have `times_one`, how many times the model takes."""
    one: float | None = None
    say("judge: drawing pictures")
    pngs = _pictures(2 * max(SAMPLES[size].values()), SIDE[size])
    for case in CASES:
        if case.profile == FP8 and (device != "cuda" or why_unsupported(torch.device(device))):
            continue
        say(f"judge: {case.mode}, {len(case.aspects)} of the aspects, {case.profile}")
        # Random weights put hardly any probability on digits, and never end a reply.
        scorer = Qwen3VLScorer(
            "random",
            mode=case.mode,
            aspects=case.aspects,
            profile=case.profile,
            min_mass=0.0,
            max_new_tokens=max(8, NEW_TOKENS[size]),
            retries=0,
            device=device,
        )
        model, processor = random_judge(size, device=device, dtype="bfloat16" if device == "cuda" else "float32")
        if case.profile != EXACT:
            narrow(model, case.profile, device)
        free_memory()
        scorer.use(model, processor)
        del model
        with TemporaryDirectory() as folder:
            row = _measure(scorer, Path(folder), pngs[: 2 * SAMPLES[size][case.mode]], device, kernels)
        say(f"{row['ms_model_alone']} ms a sample by the model alone, {row['ms_from_files']} from files")
        one = one or row["ms_model_alone"]
        if len(case.aspects) > 1:
            row["times_one"] = round(row["ms_model_alone"] / one, 2)
        yield row
        scorer.close()
        free_memory()


def _pictures(count: int, side: int) -> list[bytes]:
    """No two alike: what is shown twice is computed once. PNGs, packed in threads, as that leaves Python free."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda number: encode_png(picture(number, side)), range(count)))


def _measure(scorer: Any, folder: Path, pngs: Sequence[bytes], device: str, kernels: bool) -> dict[str, Any]:
    """By two of `pngs` a sample."""
    work, samples = _work(scorer, folder, pngs)
    count = len(samples)
    reset_peak()
    from_files = _through_engine(work, samples, folder / "records.jsonl")
    requests = [work.read(sample) for sample in samples]
    begin = time.perf_counter()
    scorer.score(requests)
    preprocessed = time.perf_counter() - begin
    row: dict[str, Any] = {
        "mode": scorer.mode,
        "aspects": len(scorer.aspects),
        "profile": scorer.profile,
        "samples": count,
        "ms_from_files": round(1000 * from_files, 1),
        "ms_with_preprocessing": round(1000 * preprocessed / count, 1),
        "ms_model_alone": None,
        "peak_gib": peak_gib(),
    }
    asked = [scorer.questions(place, request) for place, request in enumerate(requests)]
    few = asked[: MICRO_BATCH[scorer.mode]]
    prompts = [question.prompt for questions in few for question in questions]
    inputs = scorer.judge.preprocess(prompts)
    row["tokens"] = max(inputs.lengths)
    if scorer.mode == "expected":

        def prefill() -> Any:
            return scorer.judge.digit_probabilities(inputs)

        row["ms_model_alone"] = round(1000 * seconds_of(prefill, device, repeat=5) / len(few), 1)
        if kernels:
            row["kernels"] = {name: round(ms / len(few), 1) for name, ms in kernel_groups(prefill, device).items()}
    else:
        begin = time.perf_counter()
        scorer.judge.generate(inputs, scorer.max_new_tokens)
        row["ms_model_alone"] = round(1000 * (time.perf_counter() - begin) / len(few), 1)
    return row


def _work(scorer: Any, folder: Path, pngs: Sequence[bytes]) -> tuple[ScoreWork, list[Sample]]:
    """A run folder of edits to score, two images a sample."""
    run = RunDir(folder)
    samples, edits = [], {}
    for index, (before, after) in enumerate(zip(pngs[::2], pngs[1::2], strict=True)):
        sample_id = f"bench-{index}"
        source, edited = run.source(sample_id, "", "png"), run.image(sample_id, "bench")
        write_atomic(run.root / source, before)
        write_atomic(run.root / edited, after)
        samples.append(Sample(index, sample_id, "physical", f"{INSTRUCTION} ({index})", (source,), seed=index))
        edits[sample_id] = {"image": edited, "sha256": hashlib.sha256(after).hexdigest()}
    return ScoreWork(run, "judge", scorer, "bench", edits, lambda record, problem: None), samples


def _through_engine(work: ScoreWork, samples: list[Sample], manifest: Path) -> float:
    """Seconds a sample, from the first batch's end on. What random weights write can't be parsed, and each such
    failure would be logged."""
    batch = min(BATCH, len(samples) // 2)
    marks: list[float] = []
    errors: list[dict[str, Any]] = []

    def note(record: dict[str, Any]) -> None:
        marks.append(time.perf_counter())
        errors.extend([record["error"]] if "error" in record else [])

    logging.disable(logging.ERROR)
    try:
        with closing(LineWriter(manifest)) as writer:
            Engine(work, writer, {}, batch, StopSignals(), note).run(samples)
    finally:
        logging.disable(logging.NOTSET)
    if errors and work.scorer.mode == "expected":
        first = f"{errors[0]['type']}: {errors[0]['message']}"
        raise RuntimeError(f"{len(errors)} of {len(samples)} samples could not be scored; the first: {first}")
    return (marks[-1] - marks[batch - 1]) / (len(samples) - batch)
