"""A tiny Qwen3-VL of random weights on disk, as a published checkpoint lies there."""

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from PIL import Image

from slurm_bench.scorers.base import ScoreRequest

# What the published checkpoints say: sampling is on.
PUBLISHED_GENERATION = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.3}


@cache
def checkpoint(moe: bool = False) -> Path:
    """A folder for from_pretrained, float32; the same in all tests of a process, so write nothing into it.

    Weights of the usual size would make every next token about as likely; larger ones make what the judge says
    hang on what it sees. Norms and biases are at random too: left at 1 and 0, two that are swapped wouldn't be seen.
    """
    import torch
    from transformers import GenerationConfig

    from slurm_bench.scorers.qwen3vl.random_weights import random_judge

    folder = Path(mkdtemp(prefix="tiny-judge-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    model, processor = random_judge("tiny", moe=moe, dtype="float32")
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for weight in model.parameters():
            if weight.ndim > 1:
                weight *= 6
            else:
                weight += torch.empty_like(weight).uniform_(-0.5, 0.5, generator=generator)
        model.lm_head.weight *= 2
    model.generation_config = GenerationConfig(**PUBLISHED_GENERATION, eos_token_id=processor.tokenizer.eos_token_id)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def picture(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def request(number: int = 0, **changes) -> ScoreRequest:
    """Sample `number`: its images' sizes and its texts' lengths differ from the others'."""
    width, height = 64 + 32 * (number % 3), 96 - 32 * (number % 2)
    fields = {
        "id": f"sample-{number}",
        "category": ("physical", "social", "causal")[number % 3],
        "instruction": "Let go of the ball. " * (1 + number),
        "sources": (picture(2 * number, width, height),),
        "edited": picture(2 * number + 1, height, width),
        "reference": None,
        "description": "",
        "rationale": "It falls." if number % 2 else "",
        "seed": 100 + number,
    }
    return ScoreRequest(**(fields | changes))


def scorer(moe: bool = False, thinking: bool = False, **params):
    """The judge of that checkpoint, loaded; `thinking` gives it a chat template as Qwen3-VL-Thinking has one, which
    opens the thought itself."""
    from slurm_bench.scorers.qwen3vl.model import load_model, load_processor
    from slurm_bench.scorers.qwen3vl.scorer import Qwen3VLScorer

    params = {"dtype": "float32", "min_mass": 0.0, "device": "cpu"} | params
    made = Qwen3VLScorer(str(checkpoint(moe)), **params)
    made.check()
    if not thinking:
        made.load()
        return made
    processor = load_processor(checkpoint(moe))
    opened = "<|im_start|>assistant\n<think>\n"
    processor.chat_template = processor.chat_template.replace("<|im_start|>assistant\n", opened)
    made.use(load_model(checkpoint(moe), made.dtype, "cpu"), processor)
    return made


def inputs_by_hand(request, question):
    """The prompt's tensors for one sample, by the processor's own chat template and defaults."""
    from transformers import AutoProcessor

    from slurm_bench.scorers.judge import prompt
    from slurm_bench.scorers.judge.rubric import load_rubrics

    processor = AutoProcessor.from_pretrained(checkpoint())
    built = prompt.build(request, load_rubrics(), question)
    content = [
        {"type": "image", "image": part} if isinstance(part, Image.Image) else {"type": "text", "text": part + "\n"}
        for part in built.parts
    ]
    system = [{"type": "text", "text": built.system}]
    messages = [{"role": "system", "content": system}, {"role": "user", "content": content}]
    return processor, processor.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
