"""Qwen3-VL as a judge, dense or mixture of experts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from slurm_bench import marks
from slurm_bench.checkpoints.folder import ModelFolder, check_transformers_folder, read_json, weight_files
from slurm_bench.checkpoints.hub import download_model, locate
from slurm_bench.checkpoints.stream import quick_to_read
from slurm_bench.errors import SampleError, UserError
from slurm_bench.machine import DTYPE_BYTES, GIB, check_device, check_gpu_memory, choose_device, visible_gpu
from slurm_bench.scorers.base import Score, Scored, ScoreRequest
from slurm_bench.scorers.judge import parse, prompt
from slurm_bench.scorers.judge.expectation import DigitAnswer, expected
from slurm_bench.scorers.judge.options import asks, check_judging, number, one_of, text
from slurm_bench.scorers.judge.question import Picture, Question
from slurm_bench.scorers.qwen3vl.micro_batches import MicroBatches
from slurm_bench.scorers.qwen3vl.model import (
    MAX_ASPECT_RATIO,
    Inputs,
    Judge,
    load_model,
    load_processor,
)

CLASSES = ("Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration")
PROCESSOR_FILES = (
    ("tokenizer.json", "vocab.json"),
    ("preprocessor_config.json", "processor_config.json"),
)
MICRO_BATCH = {"expected": 8, "generate": 16}
_KEY, _DEVICE_KEY = "params.model_name", "params.device"
_SERVE_IT = "serve it (vLLM, SGLang) and take slurm_bench.scorers.openai_api.OpenAIScorer"

# Beside the weights: activations of a few samples of two images of 1 MP, and the CUDA context.
_WORKING_MEMORY = 6 * GIB


@dataclass(frozen=True)
class _Question:
    """One prompt to the judge; `place` is its request's in the batch, `aspects` what its answer gives."""

    place: int
    request: ScoreRequest | Question
    aspects: tuple[str, ...]
    prompt: prompt.Prompt
    length: int

    @property
    def key(self) -> tuple[int, int, tuple[str, ...]]:
        return self.place, id(self.request), self.aspects

    @property
    def alike(self) -> Hashable:
        """At a glance at the first image: aspects of one sample, edits of one source."""
        first = next(iter(self.prompt.images), None)
        return first and (first.size, first.resize((8, 8), Image.Resampling.NEAREST).tobytes())


@dataclass
class Qwen3VLScorer:
    """Scores 0 to 10, named by `aspects` (of the rubrics file: overall, instruction, preservation, quality).

    `mode`: "expected" asks for one digit and takes the expectation over the digits' probabilities, in one prefill
    an aspect and without sampling. Digits, as each is one token and "10" is two; 0 to 9 is stretched to 0 to 10.
    The record has the probability on digits as `mass`; under `min_mass` there is no score. "generate" lets the
    judge write, greedily, up to `max_new_tokens`; what can't be parsed is asked again up to `retries` times,
    sampled at `temperature` with another seed each, and is a failure after that.

    `max_pixels` bounds each image. `micro_batch` is how many prompts the model takes at once: 8, or 16 where the
    judge writes, as a token takes as long for one as for all. While it works on some, the next are prepared.

    Scores don't depend on the batch beyond rounding. Measured with random weights, samples of mixed sizes and
    lengths together against each alone: on a CPU at most 3e-6 in float32 and nothing in bfloat16; on an H100 in
    bfloat16, where the kernels change with the batch's size, 0.05 at most and 0.003 on average, at a standard
    deviation of 1 between samples.
    """

    model_name: str
    revision: str | None = None
    dtype: str = "bfloat16"
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
        number(self, "micro_batch", 1, 1024, optional=True)
        number(self, "max_new_tokens", 8, 1 << 16)
        text(self, "device", optional=True)
        self._rubrics = check_judging(self)
        self.rubric_names = tuple(self._rubrics.categories)
        self.scores = {aspect: Score(*prompt.SCORE_RANGE) for aspect in self.aspects}
        self._found: ModelFolder | None = None
        self.judge: Judge | None = None
        self._batches: MicroBatches[_Question] | None = None

    def check(self) -> None:
        """The checkpoint is there and complete, of a known class, and fits the GPU if one is to be seen."""
        check_device(self.device, _DEVICE_KEY)
        folder = self._locate()
        if folder is None:
            return
        _check_config(read_json(folder / "config.json"), self.model_name)
        model = check_transformers_folder(folder)
        for files in PROCESSOR_FILES:
            if not any((folder / file).is_file() for file in files):
                raise UserError(f"'{_KEY}': {folder} has no {' or '.join(files)}: the download is incomplete")
        self._found = model
        if self.device != "cpu":
            needed = sum(model.bytes_in(self.dtype).values()) + _WORKING_MEMORY
            check_gpu_memory(needed, visible_gpu(), self.model_name, "take a smaller judge")

    def load(self) -> None:
        with marks.part("import torch"):
            device = choose_device(self.device, _DEVICE_KEY)
        folder = self._locate() or download_model(self.model_name, self.revision)
        check_transformers_folder(folder)
        _check_config(read_json(folder / "config.json"), self.model_name)
        self.use(load_model(folder, self.dtype, device), load_processor(folder))

    def streams(self) -> bool:
        """Whether `load` would find its weights where many readers at once are quick, and so needs no turn."""
        folder = self._locate()
        return folder is not None and quick_to_read(weight_files(folder))

    def _locate(self) -> Path | None:
        return locate(self.model_name, self.revision, _KEY, index="config.json")

    def use(self, model: Any, processor: Any) -> None:
        """Judge with this model and processor, already on their device (see `random_judge`)."""
        self.judge = Judge(model, processor, self.max_pixels, at_once=self.mode == "expected")
        size = self.micro_batch or MICRO_BATCH[self.mode]
        # A prefill's first few are soon at work; a reply takes as long for two as for all.
        self._batches = MicroBatches(self._preprocess, size, first=min(2, size) if self.mode == "expected" else size)

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
            if narrow := _too_narrow(asked):
                found[place] = narrow
            elif question.temperature:
                inputs = judge.preprocess([asked])
                (found[place],) = judge.generate(inputs, max_tokens, question.temperature, question.seed)
            else:
                greedy.append(_Question(place, question, (), asked, self._length(asked)))
        for batch, inputs in batches.split(greedy):
            written = judge.generate(inputs, max_tokens)
            found |= {question.place: reply for question, reply in zip(batch, written, strict=True)}
        return [found[place] for place in range(len(questions))]

    def _questions(self, batch: Sequence[ScoreRequest]) -> tuple[list[_Question], dict[int, SampleError]]:
        """What to ask, and by its place what can't be asked about."""
        questions: list[_Question] = []
        refused: dict[int, SampleError] = {}
        for place, request in enumerate(batch):
            try:
                questions += self.questions(place, request)
            except SampleError as error:
                refused[place] = error
        return questions, refused

    def questions(self, place: int, request: ScoreRequest) -> list[_Question]:
        prompts = prompt.prompts(request, self._rubrics, self.mode, self.aspects)
        if narrow := _too_narrow(next(iter(prompts.values()))):
            raise narrow
        return [_Question(place, request, aspects, built, self._length(built)) for aspects, built in prompts.items()]

    def _expected(self, questions: Sequence[_Question]) -> dict[int, Scored]:
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

    def _generated(self, questions: Sequence[_Question]) -> dict[int, Scored]:
        judge, batches = self._loaded()
        replies: dict[int, parse.Reply] = {}
        for batch, inputs in batches.split(questions):
            written = judge.generate(inputs, self.max_new_tokens)
            replies |= {question.place: reply for question, reply in zip(batch, written, strict=True)}
        return {question.place: self._read_or_ask_again(question, replies[question.place]) for question in questions}

    def _read_or_ask_again(self, question: _Question, reply: parse.Reply) -> Scored:
        judge, _ = self._loaded()
        result = parse.scored(reply, self.aspects)
        for retry in range(1, self.retries + 1):
            if result.parse == "ok" or reply.cut_short:
                break
            inputs, seed = judge.preprocess([question.prompt]), question.request.seed + retry
            (reply,) = judge.generate(inputs, self.max_new_tokens, self.temperature, seed)
            result = replace(parse.scored(reply, self.aspects), info={"judge_retries": retry})
        return result

    def _preprocess(self, batch: Sequence[_Question]) -> Inputs:
        return self._loaded()[0].preprocess([question.prompt for question in batch])

    def _length(self, built: prompt.Prompt) -> int:
        """About how many pixels, and letters of text, the model will see."""
        pixels = sum(min(image.width * image.height, self.max_pixels) for image in built.images)
        return pixels + sum(len(part) for part in built.parts if isinstance(part, str))

    def _loaded(self) -> tuple[Judge, MicroBatches[_Question]]:
        if self.judge is None or self._batches is None:
            raise RuntimeError("the judge is not loaded")
        return self.judge, self._batches


def _too_narrow(asked: prompt.Prompt) -> SampleError | None:
    for image in asked.images:
        if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
            return SampleError(f"an image of {image.width}×{image.height} is too narrow for the judge")
    return None


def _check_config(config: Mapping[str, Any], name: str) -> None:
    """UserError for a checkpoint that this code can't run, with what can."""
    (kind, *_) = config.get("architectures") or ["nothing known"]
    if kind not in CLASSES:
        raise UserError(
            f"'{_KEY}': {name} is {kind}; this judge takes {' or '.join(CLASSES)}. For another, {_SERVE_IT}"
        )
    if config.get("quantization_config"):
        raise UserError(
            f"'{_KEY}': {name} is a quantized checkpoint, which this judge doesn't run; take the one in bfloat16, or "
            f"{_SERVE_IT}"
        )
