"""Qwen3-VL as a judge, dense or mixture of experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slurm_bench import marks
from slurm_bench.checkpoints.folder import ModelFolder, read_json, weight_files
from slurm_bench.checkpoints.hub import download_model, locate
from slurm_bench.checkpoints.stream import quick_to_read
from slurm_bench.errors import SampleError, UserError
from slurm_bench.kernels.fp8_support import check_device_has_fp8, check_gpu_has_fp8
from slurm_bench.logs import log
from slurm_bench.machine import (
    DTYPE_BYTES,
    GIB,
    check_device,
    check_gpu_memory,
    choose_device,
    free_memory,
    gpu_at,
    lasting,
    visible_gpu,
)
from slurm_bench.scorers.base import Score, Scored, ScoreRequest
from slurm_bench.scorers.judge import parse, prompt
from slurm_bench.scorers.judge.expectation import DigitAnswer, expected
from slurm_bench.scorers.judge.options import asks, check_judging, number, one_of, text
from slurm_bench.scorers.judge.question import Picture, Question
from slurm_bench.scorers.qwen3vl.asked import Asked, length_of, refusal
from slurm_bench.scorers.qwen3vl.checkpoint import MODEL_KEY, PROFILE_KEY, check_judge_folder
from slurm_bench.scorers.qwen3vl.fit import (
    EXACT,
    FP8,
    MICRO_BATCH,
    PROFILES,
    W8A16,
    narrow,
    needed_memory,
    reply_bytes,
    sample_bytes,
    samples_at_once,
    weight_bytes,
)
from slurm_bench.scorers.qwen3vl.micro_batches import MicroBatches
from slurm_bench.scorers.qwen3vl.model import Inputs, Judge, load_model, load_processor

_DEVICE_KEY = "params.device"


@dataclass
class Qwen3VLScorer:
    """Scores 0 to 10, named by `aspects` (of the rubrics file: overall, instruction, preservation, quality).

    `mode`: "expected" asks for one digit and takes the expectation over the digits' probabilities, in one prefill
    an aspect and without sampling. Digits, as each is one token and "10" is two; 0 to 9 is stretched to 0 to 10.
    The record has the probability on digits as `mass`; under `min_mass` there is no score. "generate" lets the
    judge write, greedily, up to `max_new_tokens`; what can't be parsed is asked again up to `retries` times,
    sampled at `temperature` with another seed each, and is a failure after that.

    `max_pixels` bounds each image. `micro_batch` is how many prompts the model takes at once: those of 8 samples, or of
    16 where the judge writes, as a token takes as long for one as for all; fewer where the GPU has no memory for them.
    While it works on some, the next are prepared.

    `profile`: "exact", or, never unless it is asked for, the language model's layers in 8 bits: "fp8" computes in them,
    "w8a16" has their weights alone so.

    Scores don't depend on the batch beyond rounding. Measured with random weights, samples of mixed sizes and
    lengths together against each alone: on a CPU at most 3e-6 in float32 and nothing in bfloat16; on an H100 in
    bfloat16, where the kernels change with the batch's size, 0.05 at most and 0.003 on average, at a standard
    deviation of 1 between samples.
    """

    model_name: str
    revision: str | None = None
    dtype: str = "bfloat16"
    profile: str = EXACT
    mode: str = "expected"
    aspects: Sequence[str] = ("overall",)
    rubrics: Path | None = None
    max_pixels: int = 1024 * 1024
    min_mass: float = 0.5
    micro_batch: int | None = None
    max_new_tokens: int = 256
    retries: int = 2
    temperature: float = 0.7
    device: str | None = None

    def __post_init__(self) -> None:
        text(self, "model_name")
        text(self, "revision", optional=True)
        one_of(self, "dtype", tuple(DTYPE_BYTES))
        one_of(self, "profile", PROFILES)
        if self.profile == FP8 and self.dtype != "bfloat16":
            raise UserError(f"'{PROFILE_KEY}': {FP8} computes in bfloat16 beside its 8 bits; leave params.dtype out")
        number(self, "micro_batch", 1, 1024, optional=True)
        number(self, "max_new_tokens", 8, 1 << 16)
        text(self, "device", optional=True)
        self._rubrics = check_judging(self)
        self.rubric_names = tuple(self._rubrics.categories)
        self.scores = {aspect: Score(*prompt.SCORE_RANGE) for aspect in self.aspects}
        self._found: ModelFolder | None = None
        self.judge: Judge | None = None
        self._batches: MicroBatches[Asked] | None = None

    def check(self) -> None:
        """The checkpoint is there and complete, of a known class, and fits the GPU if one is to be seen."""
        check_device(self.device, _DEVICE_KEY)
        if self.profile == FP8:
            self._check_fp8()
        folder = self._locate()
        if folder is None:
            return
        model = check_judge_folder(folder, self.model_name, self.profile)
        self._found = model
        if self.device != "cpu":
            weights = weight_bytes(model.tensors[""], self.dtype, self.profile)
            reply = self._reply_bytes(read_json(folder / "config.json"))
            needed = needed_memory(weights, self.profile, self.micro_batch or 1, self._each(reply))
            narrower = "Moe" in model.class_name or self.profile == W8A16
            mend = "take a smaller judge" + ("" if narrower else f", or {PROFILE_KEY}={W8A16}")
            mend += ", or fewer params.max_new_tokens" if reply > GIB else ""
            check_gpu_memory(needed, visible_gpu(), self.model_name, mend)

    def _check_fp8(self) -> None:
        if self.device == "cpu":
            check_device_has_fp8("cpu", PROFILE_KEY, FP8)
        check_gpu_has_fp8(visible_gpu(), PROFILE_KEY, FP8)

    def load(self) -> None:
        with marks.part("import torch"), lasting():
            device = choose_device(self.device, _DEVICE_KEY)
        folder = self._locate() or download_model(self.model_name, self.revision)
        check_judge_folder(folder, self.model_name, self.profile)
        if self.profile == FP8:
            check_device_has_fp8(device, PROFILE_KEY, FP8)
        model = load_model(folder, self.dtype, "cpu" if self.profile == W8A16 else device, self.profile == FP8)
        self.use(model if self.profile == EXACT else narrow(model, self.profile, device), load_processor(folder))

    def streams(self) -> bool:
        """Whether `load` would find its weights where many readers at once are quick, and so needs no turn. In 8 bits
        they pass through the host's memory as a whole."""
        folder = self._locate()
        return self.profile != W8A16 and folder is not None and quick_to_read(weight_files(folder))

    def _locate(self) -> Path | None:
        return locate(self.model_name, self.revision, MODEL_KEY, index="config.json")

    def use(self, model: Any, processor: Any) -> None:
        """Judge with this model and processor, already on their device (see `random_judge`)."""
        self.judge = Judge(model, processor, self.max_pixels, at_once=self.mode == "expected")
        weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
        gpu = gpu_at(str(model.device))
        reply = self._reply_bytes(model.config.to_dict())
        samples = samples_at_once(weights, self.mode, self.profile, gpu, self._each(reply))
        if samples < MICRO_BATCH[self.mode] and self.micro_batch is None:
            log.info("the judge takes %d samples at once: more don't fit this GPU's memory", samples)
        size = self.micro_batch or samples * self._prompts
        # A prefill's first few are soon at work; a reply takes as long for two as for all.
        self._batches = MicroBatches(self._preprocess, size, first=min(2, size) if self.mode == "expected" else size)

    @property
    def _prompts(self) -> int:
        """In which a sample is asked about."""
        return len(self.aspects) if self.mode == "expected" else 1

    def _each(self, reply: int) -> int:
        """Bytes of a sample, or of a prompt where it is said how many there are at once."""
        return sample_bytes(self.mode, 1 if self.micro_batch else self._prompts, reply)

    def _reply_bytes(self, config: dict[str, Any]) -> int:
        return reply_bytes(config, self.dtype, self.mode, self.max_new_tokens)

    def provenance(self) -> dict[str, Any]:
        """Class and commit are known once the checkpoint was seen: by `check`, if it is on this machine."""
        found = self._found
        return {
            "model": self.model_name,
            "revision": self.revision,
            "commit": found.commit if found else None,
            "class": found.class_name if found else None,
            "rubrics_sha256": self._rubrics.sha256,
            "asks": asks(self, self._rubrics),
        }

    def close(self) -> None:
        if self._batches is not None:
            self._batches.close()
        self.judge = self._batches = None
        free_memory()

    def score(self, batch: Sequence[ScoreRequest]) -> list[Scored | Exception]:
        questions, refused = self._questions(batch)
        answered = self._expected(questions) if self.mode == "expected" else self._generated(questions)
        asked: dict[int, list[list[str | None]]] = {}
        for one in questions:
            asked.setdefault(one.place, []).append(prompt.texts_of(one.prompt.system, one.prompt.parts))
        told = {
            place: replace(scored, info=scored.info | {"prompt": prompt.prompt_mark(asked[place])})
            for place, scored in answered.items()
        }
        results: dict[int, Scored | Exception] = {**told, **refused}
        return [results[place] for place in range(len(batch))]

    def prefetch(self, next_batch: Callable[[], Sequence[ScoreRequest]]) -> None:
        self._loaded()[1].prefetch(lambda: self._questions(next_batch())[0])

    def replies(self, questions: Sequence[Question], max_tokens: int) -> list[parse.Reply | Exception]:
        """What the judge writes to a protocol's own questions: those that aren't sampled in micro-batches, a sampled
        one alone, from its own seed. Needs `mode` "generate"."""
        judge, batches = self._loaded()
        found: dict[int, parse.Reply | Exception] = {}
        greedy = []
        for place, question in enumerate(questions):
            parts = tuple(part.image() if isinstance(part, Picture) else part for part in question.parts)
            asked = prompt.Prompt(question.system, parts)
            if refused := refusal(asked):
                found[place] = refused
            elif question.temperature:
                inputs = judge.preprocess([asked])
                (found[place],) = judge.generate(inputs, max_tokens, question.temperature, question.seed)
            else:
                greedy.append(Asked(place, question, (), asked, length_of(asked, self.max_pixels)))
        for batch, inputs in batches.split(greedy):
            written = judge.generate(inputs, max_tokens)
            found |= {question.place: reply for question, reply in zip(batch, written, strict=True)}
        return [found[place] for place in range(len(questions))]

    def _questions(self, batch: Sequence[ScoreRequest]) -> tuple[list[Asked], dict[int, SampleError]]:
        """What to ask, and by its place what can't be asked about."""
        questions: list[Asked] = []
        refused: dict[int, SampleError] = {}
        for place, request in enumerate(batch):
            try:
                questions += self.questions(place, request)
            except SampleError as error:
                refused[place] = error
        return questions, refused

    def questions(self, place: int, request: ScoreRequest) -> list[Asked]:
        prompts = prompt.prompts(request, self._rubrics, self.mode, self.aspects)
        if refused := refusal(next(iter(prompts.values()))):
            raise refused
        return [
            Asked(place, request, aspects, built, length_of(built, self.max_pixels))
            for aspects, built in prompts.items()
        ]

    def _expected(self, questions: Sequence[Asked]) -> dict[int, Scored]:
        """Every batch is launched before the first answer is fetched, so that the GPU doesn't wait for it."""
        judge, batches = self._loaded()
        launched = [(batch, judge.digit_probabilities(inputs)) for batch, inputs in batches.split(questions)]
        answers: dict[int, list[DigitAnswer]] = {}
        for batch, found in launched:
            rows = zip(batch, found.digits.tolist(), found.likeliest.tolist(), strict=True)
            for question, probabilities, likeliest in rows:
                by_digit = dict(zip(prompt.DIGITS, probabilities, strict=True))
                answer = DigitAnswer(question.aspects[0], by_digit, judge.token(likeliest))
                answers.setdefault(question.place, []).append(answer)
        return {place: expected(given, self.aspects, self.min_mass) for place, given in answers.items()}

    def _generated(self, questions: Sequence[Asked]) -> dict[int, Scored]:
        judge, batches = self._loaded()
        replies: dict[int, parse.Reply] = {}
        for batch, inputs in batches.split(questions):
            written = judge.generate(inputs, self.max_new_tokens)
            replies |= {question.place: reply for question, reply in zip(batch, written, strict=True)}
        return {question.place: self._read_or_ask_again(question, replies[question.place]) for question in questions}

    def _read_or_ask_again(self, question: Asked, reply: parse.Reply) -> Scored:
        judge, _ = self._loaded()
        result = parse.scored(reply, self.aspects)
        for retry in range(1, self.retries + 1):
            if result.parse == "ok" or reply.cut_short:
                break
            inputs, seed = judge.preprocess([question.prompt]), question.request.seed + retry
            (reply,) = judge.generate(inputs, self.max_new_tokens, self.temperature, seed)
            result = replace(parse.scored(reply, self.aspects), info={"judge_retries": retry})
        return result

    def _preprocess(self, batch: Sequence[Asked]) -> Inputs:
        return self._loaded()[0].preprocess([question.prompt for question in batch])

    def _loaded(self) -> tuple[Judge, MicroBatches[Asked]]:
        if self.judge is None or self._batches is None:
            raise RuntimeError("the judge is not loaded")
        return self.judge, self._batches
