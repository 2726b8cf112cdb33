"""A Qwen3-VL model with its processor: prompts to tensors, tensors to probabilities or to text.

Shapes: B prompts of a batch, T tokens of the longest one.
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
from slurm_bench.logs import log
from slurm_bench.scorers.judge.parse import Reply, opens_thinking
from slurm_bench.scorers.judge.prompt import DIGITS, Prompt

# The model's own processor refuses longer strips.
MAX_ASPECT_RATIO = 200

# Prompts are padded to a multiple of this: attention kernels are planned once for each length.
LENGTH_STEP = 64

# What a Qwen model that doesn't think writes behind an opened thought.
_NO_THOUGHT = "\n</think>\n\n"


@dataclass(frozen=True)
class Inputs:
    """A batch on the model's device. `lengths` has each prompt's number of tokens without padding, `shared_prefix` how
    many tokens all prompts begin with; `ready` is the CUDA event after which the tensors are there."""

    tensors: dict[str, Any]
    lengths: tuple[int, ...]
    shared_prefix: int = 0
    ready: Any = None


@dataclass(frozen=True)
class DigitProbabilities:
    """Of the first token, out of the whole vocabulary: `digits` [B, 10], and `likeliest` [B], the likeliest token's id.
    Both may still be computing on the GPU."""

    digits: Any
    likeliest: Any


def load_model(folder: Path, dtype: str, device: str) -> Any:
    """Safetensors only, no code of the model's own, streamed to the device while transformers is imported."""
    import torch

    with WeightStream(device) as stream:
        stream.begin(folder)
        with marks.part("import transformers"):
            import transformers

            cls = getattr(transformers, read_json(folder / "config.json")["architectures"][0])
        with marks.part("await weights"):
            tensors = stream.take(folder)
        with marks.part("build the model"):
            return transformers_model(cls, folder, tensors, getattr(torch, dtype), device, attn_implementation="sdpa")


def load_processor(folder: Path) -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(folder, trust_remote_code=False)


class Judge:
    """`max_pixels` bounds each image, whatever its own size; small images are enlarged to the processor's minimum.

    With `prefill_only` it gives `digit_probabilities`, and pads at the end; without, it can `generate`, and pads at the
    start. The published generation configuration samples, so all of it but the ids of special tokens is dropped.
    """

    def __init__(self, model: Any, processor: Any, max_pixels: int, prefill_only: bool) -> None:
        from transformers import GenerationConfig

        self.model = model.eval()
        self.processor = processor
        self.device = model.device
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
        self.padding: dict[str, Any] = {"padding_side": "left"}
        self.prefill: Any = None
        if prefill_only:
            from slurm_bench.scorers.qwen3vl.prefill import Prefill

            self.prefill = Prefill(model)
            self.padding = {"padding_side": "right", "pad_to_multiple_of": LENGTH_STEP}
            if self.thinks:
                log.warning("this judge thinks before it answers; mode expected has it answer at once")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        published = model.generation_config
        ends = published.eos_token_id if published.eos_token_id is not None else tokenizer.eos_token_id
        self.end_ids = set(ends if isinstance(ends, list | tuple) else [ends])
        model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
        self.digit_ids = self._digit_ids()
        self._side_stream = self._new_stream()

    def preprocess(self, prompts: Sequence[Prompt]) -> Inputs:
        """Tokens and pixels, on the device. May run in a thread: on CUDA it works on a stream of its own, beside the
        model, and images are resized and cut into patches by the GPU."""
        import torch

        texts = [self._text(prompt) for prompt in prompts]
        images = [list(prompt.images) for prompt in prompts]
        with torch.cuda.stream(self._side_stream) if self._side_stream else nullcontext():
            batch = self.processor(
                text=texts,
                images=images,
                padding=True,
                **self.padding,
                return_tensors="pt",
                images_kwargs={"device": str(self.device)},
            )
            lengths = batch["attention_mask"].sum(dim=1).tolist()
            shared_prefix = self._positions_and_prefix(batch, lengths) if self.prefill else 0
            tensors = {name: tensor.to(self.device) for name, tensor in batch.items()}
            ready = self._side_stream.record_event() if self._side_stream else None
        return Inputs(tensors, tuple(lengths), shared_prefix, ready)

    def digit_probabilities(self, inputs: Inputs) -> DigitProbabilities:
        """One prefill: no cache is kept, and only a prompt's last token meets the vocabulary."""
        import torch

        from slurm_bench.scorers.qwen3vl.prefill import PackedBatch

        self._wait_for(inputs)
        with torch.inference_mode():
            hidden = self.prefill.last_hidden(inputs.tensors, PackedBatch(inputs.lengths, inputs.shared_prefix))
            logits = self.model.lm_head(hidden).float()
            return DigitProbabilities(logits.softmax(-1)[:, list(self.digit_ids.values())], logits.argmax(-1))

    def generate(
        self, inputs: Inputs, max_new_tokens: int, temperature: float = 0.0, seed: int | None = None
    ) -> list[Reply]:
        """What the judge writes: greedy at temperature 0, else sampled from `seed`, whatever was drawn before."""
        import torch

        self._wait_for(inputs)
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices):
            if seed is not None:
                torch.manual_seed(seed)
            tokens = self.model.generate(**inputs.tensors, **sampling, max_new_tokens=max_new_tokens)
        written = tokens[:, inputs.tensors["input_ids"].shape[1] :]
        texts = self.processor.tokenizer.batch_decode(written, skip_special_tokens=True)
        # The prompt has opened the thought, so the reply must: what is in it isn't the answer.
        opened = "<think>\n" if self.thinks else ""
        return [
            Reply(opened + text, None if self.end_ids & set(row) else _cut_short(max_new_tokens))
            for text, row in zip(texts, written.tolist(), strict=True)
        ]

    def token(self, index: int) -> str:
        return str(self.processor.tokenizer.decode([index]))

    def _positions_and_prefix(self, batch: Any, lengths: Sequence[int]) -> int:
        """Adds the position ids, and gives the length of the prefix that all prompts share: both are computed from
        tensors on the CPU, as the model itself would make the GPU wait for them."""
        from slurm_bench.scorers.qwen3vl.prefill import shared_prefix

        parts = {
            name: batch[name].cpu() for name in ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
        }
        batch["position_ids"], _ = self.model.model.get_rope_index(**parts)
        return shared_prefix(parts["input_ids"], parts["mm_token_type_ids"], lengths)

    def _text(self, prompt: Prompt) -> str:
        """The prompt as the model reads it, up to where the answer begins."""
        text = self._template(prompt)
        return text + _NO_THOUGHT if self.prefill and self.thinks else text

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


def _cut_short(max_new_tokens: int) -> str:
    return f"the reply was cut off at the limit of tokens: max_new_tokens is {max_new_tokens}"
