"""A Qwen3-VL model with its processor: prompts to tensors, tensors to probabilities or to text.

Shapes: B prompts of a batch, N tokens of all of them, packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from slurm_bench import marks
from slurm_bench.checkpoints.folder import read_json
from slurm_bench.checkpoints.place import transformers_model
from slurm_bench.checkpoints.stream import WeightStream
from slurm_bench.errors import UserError
from slurm_bench.kernels.first_use import first_use
from slurm_bench.lean_imports import lean_imports
from slurm_bench.logs import log
from slurm_bench.machine import lasting
from slurm_bench.scorers.judge.parse import Reply, opens_thinking
from slurm_bench.scorers.judge.prompt import DIGITS, Prompt
from slurm_bench.scorers.qwen3vl.packing import Packing, pack
from slurm_bench.scorers.qwen3vl.warm_up import kernels_of

# What a Qwen model that doesn't think writes behind an opened thought.
_NO_THOUGHT = "\n</think>\n\n"


@dataclass(frozen=True)
class Inputs:
    """A batch on the model's device: `tokens` [N] and their `positions` [3, N] as `packing` has them, `last` [B],
    `lengths` [B] and the `following` position [B] of each prompt, and the distinct images. `ready` is the CUDA event
    after which the tensors are there."""

    tensors: dict[str, Any]
    packing: Packing
    ready: Any = None

    @property
    def lengths(self) -> tuple[int, ...]:
        return self.packing.lengths


@dataclass(frozen=True)
class DigitProbabilities:
    """Of the first token, out of the whole vocabulary: `digits` [B, 10], and `likeliest` [B], the likeliest token's id.
    Both may still be computing on the GPU."""

    digits: Any
    likeliest: Any


def load_model(folder: Path, dtype: str, device: str, fp8: bool = False) -> Any:
    """Safetensors only, no code of the model's own, streamed to the device while transformers is imported, and kernels
    are built. `fp8` says that the model will be narrowed."""
    import torch

    config = read_json(folder / "config.json")
    with lasting(), WeightStream(device) as stream, first_use(device, kernels_of(config, dtype, device, fp8)):
        stream.begin(folder)
        with marks.part("import transformers"), lean_imports():
            import transformers

            cls = getattr(transformers, config["architectures"][0])
        with marks.part("await weights"):
            fill = transformers_model(cls, folder, getattr(torch, dtype), device, attn_implementation="sdpa")
            tensors = stream.take(folder)
        with marks.part("build the model"):
            return fill(tensors)


def load_processor(folder: Path) -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(folder, trust_remote_code=False)


class Judge:
    """`max_pixels` bounds each image, whatever its own size; small images are enlarged to the processor's minimum.

    With `at_once` a judge that thinks is asked to answer without: its first token is the answer's. The published
    generation configuration samples, so all of it but the ids of special tokens is left out.
    """

    def __init__(self, model: Any, processor: Any, max_pixels: int, at_once: bool) -> None:
        from slurm_bench.scorers.qwen3vl.decoding import Decoder
        from slurm_bench.scorers.qwen3vl.language_model import LanguageModel
        from slurm_bench.scorers.qwen3vl.prefill import Prefill

        self.model = model.eval()
        self.processor = processor
        self.device = model.device
        self.at_once = at_once
        size = processor.image_processor.size
        processor.image_processor.size = {
            "shortest_edge": min(size["shortest_edge"], max_pixels),
            "longest_edge": max_pixels,
        }
        tokenizer = processor.tokenizer
        processor.chat_template = processor.chat_template or tokenizer.chat_template
        if not processor.chat_template:
            raise UserError(f"{tokenizer.name_or_path}: the judge has no chat template: the download is incomplete")
        self.thinks = opens_thinking(self._template(Prompt("", ("",))))
        if at_once and self.thinks:
            log.warning("this judge thinks before it answers; mode expected has it answer at once")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        published = model.generation_config.eos_token_id
        ends = published if published is not None else tokenizer.eos_token_id
        self.end_ids = set(ends if isinstance(ends, list | tuple) else [ends])
        language_model = LanguageModel(model.model.language_model)
        self.prefill = Prefill(model.model, language_model)
        self.decoder = Decoder(language_model, model.lm_head, tokenizer.pad_token_id)
        self.digit_ids = self._digit_ids()
        self._side_stream = self._new_stream()

    def preprocess(self, prompts: Sequence[Prompt]) -> Inputs:
        """Tokens and pixels, on the device. May run in a thread: on CUDA it works on a stream of its own, beside the
        model, and images are resized and cut into patches by the GPU."""
        import torch

        with torch.cuda.stream(self._side_stream) if self._side_stream else nullcontext():
            images, shown = distinct_images(prompts)
            tensors = {}
            if images:
                seen = self.processor.image_processor(images=images, return_tensors="pt", device=str(self.device))
                tensors = {name: seen[name] for name in ("pixel_values", "image_grid_thw")}
            tensors, packing = self._packed(prompts, tensors, shown)
            tensors = {name: tensor.to(self.device) for name, tensor in tensors.items()}
            ready = self._side_stream.record_event() if self._side_stream else None
        return Inputs(tensors, packing, ready)

    def digit_probabilities(self, inputs: Inputs) -> DigitProbabilities:
        """One prefill: no cache is kept, and only a prompt's last token meets the vocabulary."""
        import torch

        self._wait_for(inputs)
        with torch.inference_mode():
            hidden = self.prefill.last_hidden(inputs.tensors, inputs.packing)
            logits = self.model.lm_head(hidden).float()
            return DigitProbabilities(logits.softmax(-1)[:, list(self.digit_ids.values())], logits.argmax(-1))

    def generate(
        self, inputs: Inputs, max_new_tokens: int, temperature: float = 0.0, seed: int | None = None
    ) -> list[Reply]:
        """What the judge writes: greedy at temperature 0, else sampled from `seed`, whatever was drawn before."""
        written = self.written(inputs, max_new_tokens, temperature, seed)
        texts = self.processor.tokenizer.batch_decode(written, skip_special_tokens=True)
        # The prompt has opened the thought, so the reply must: what is in it isn't the answer.
        opened = "<think>\n" if self.thinks else ""
        return [
            Reply(opened + text, _cut_short(row, self.end_ids, max_new_tokens))
            for text, row in zip(texts, written, strict=True)
        ]

    def written(
        self, inputs: Inputs, max_new_tokens: int, temperature: float = 0.0, seed: int | None = None
    ) -> list[list[int]]:
        """The tokens of `generate`: those that transformers' own finds, where rounding doesn't decide between two; none
        of a prompt whose numbers aren't finite."""
        import torch

        from slurm_bench.scorers.qwen3vl.decoding import Starts

        self._wait_for(inputs)
        draws = torch.Generator(self.device)
        if seed is not None:
            draws.manual_seed(seed)

        def choose(scores: Any) -> Any:
            if not temperature:
                return scores.argmax(-1)
            return torch.multinomial((scores / temperature).softmax(-1), 1, generator=draws)[:, 0]

        with torch.inference_mode():
            try:
                self.decoder.begin(inputs.lengths, max_new_tokens)
                hidden = self.prefill.last_hidden(inputs.tensors, inputs.packing, self.decoder.keep)
                starts = Starts(hidden, inputs.tensors["lengths"], inputs.tensors["following"], max(inputs.lengths))
                return self.decoder.write(starts, max_new_tokens, self.end_ids, choose)
            except torch.OutOfMemoryError:
                self.decoder.release()  # fewer prompts come next
                raise

    def token(self, index: int) -> str:
        return str(self.processor.tokenizer.decode([index]))

    def _packed(
        self, prompts: Sequence[Prompt], images: dict[str, Any], shown: Sequence[Sequence[int]]
    ) -> tuple[dict[str, Any], Packing]:
        """All on the CPU, as the model's own forward would make the GPU wait for it. `shown` are each prompt's images
        among the distinct ones."""
        import numpy as np
        import torch

        image_token, image_id = self.processor.image_token, self.processor.image_token_id
        grid = images["image_grid_thw"].cpu() if images else torch.zeros((0, 3), dtype=torch.long)
        sizes = [int(patches) // self.processor.image_processor.merge_size**2 for patches in grid.prod(-1)]
        rows = np.cumsum([0, *sizes])
        tokens, positions, following = [], [], []
        for prompt, numbers in zip(prompts, shown, strict=True):
            before, *behind = self._text(prompt).split(image_token)
            if len(behind) != len(numbers):
                raise ValueError(f"the prompt has {len(behind)} places for {len(numbers)} images")
            parts = (image_token * sizes[n] + text for n, text in zip(numbers, behind, strict=True))
            ids = np.array(self.processor.tokenizer("".join([before, *parts]))["input_ids"])
            is_image = torch.from_numpy(ids == image_id)
            found, delta = self.model.model.get_rope_index(
                torch.from_numpy(ids)[None], is_image.long()[None], grid[list(numbers)] if numbers else None
            )
            ids[ids == image_id] = -1 - np.concatenate([*(np.arange(*rows[n : n + 2]) for n in numbers), rows[:0]])
            tokens.append(ids)
            positions.append(found[:, 0])
            following.append(len(ids) + int(delta))
        packing = pack(tokens)
        tensors = images | {
            "tokens": torch.from_numpy(np.concatenate(tokens)[packing.order]),
            "positions": torch.cat(positions, dim=1)[:, packing.order],
            "last": torch.tensor(packing.last),
            "lengths": torch.tensor(packing.lengths),
            "following": torch.tensor(following),
        }
        return tensors, packing

    def _text(self, prompt: Prompt) -> str:
        """The prompt as the model reads it, up to where the answer begins."""
        text = self._template(prompt)
        return text + _NO_THOUGHT if self.at_once and self.thinks else text

    def _template(self, prompt: Prompt) -> str:
        parts = [
            {"type": "image"} if isinstance(part, Image.Image) else {"type": "text", "text": f"{part}\n"}
            for part in prompt.parts
        ]
        system = [{"role": "system", "content": [{"type": "text", "text": prompt.system}]}] if prompt.system else []
        messages = [*system, {"role": "user", "content": parts}]
        return str(self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _digit_ids(self) -> dict[str, int]:
        """Each digit's token where the reply begins. UserError where it isn't one token: no expectation then."""
        encode = self.processor.tokenizer.encode
        text = self._text(Prompt("", ("",)))
        before = encode(text, add_special_tokens=False)
        ids = {}
        for digit in DIGITS:
            tokens = encode(text + digit, add_special_tokens=False)
            if tokens[:-1] != before:
                raise UserError(f"the judge's tokenizer has no single token for the answer '{digit}'")
            ids[digit] = tokens[-1]
        return ids

    def _new_stream(self) -> Any:
        import torch

        return torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def _wait_for(self, inputs: Inputs) -> None:
        if inputs.ready is None:
            return
        import torch

        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(inputs.ready)
        for tensor in inputs.tensors.values():
            tensor.record_stream(stream)


def distinct_images(prompts: Sequence[Prompt]) -> tuple[list[Image.Image], list[list[int]]]:
    """The images that differ, and for each prompt which of them it shows."""
    numbers: dict[tuple[tuple[int, int], bytes], int] = {}
    images: list[Image.Image] = []
    shown: list[list[int]] = []
    for prompt in prompts:
        shown.append([])
        for image in prompt.images:
            number = numbers.setdefault((image.size, image.tobytes()), len(images))
            if number == len(images):
                images.append(image)
            shown[-1].append(number)
    return images, shown


def _cut_short(row: list[int], ends: set[int], max_new_tokens: int) -> str | None:
    """Why this reply isn't whole, if it isn't."""
    if not row:
        return "the judge's numbers are not finite for this prompt"
    if ends & set(row):
        return None
    return f"the reply was cut off at the limit of tokens: max_new_tokens is {max_new_tokens}"
