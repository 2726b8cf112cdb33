"""What is watched while a pipeline works: its seconds, its prompts, its pixels, its positions."""

from __future__ import annotations

import inspect
import time
from collections.abc import Collection
from typing import Any

from slurm_bench.editors.qwen.token_types import pass_token_types
from slurm_bench.errors import SampleError, UserError

DENOISERS = ("transformer", "unet", "prior", "decoder")
DECODERS = ("vae", "movq", "vqvae", "vqgan")


class PromptWatch:
    """Notes what the pipeline tells its tokenizers to cut. `constants` are the prompts that no sample wrote. Of several
    samples in a call, a tokenizer's row n is taken for sample n's."""

    def __init__(self, pipeline: Any, constants: Collection[Any]) -> None:
        self._constants = constants
        self._samples = 1
        self._seen: dict[tuple[str, int], tuple[int, int]] = {}  # by tokenizer and sample
        for name, component in pipeline.components.items():
            tokenizer = getattr(component, "tokenizer", component)
            if hasattr(tokenizer, "model_max_length"):
                self._watch(name, tokenizer)

    def start(self, samples: int = 1) -> None:
        self._samples = samples
        self._seen.clear()

    def cut(self, sample: int = 0) -> str | None:
        """How much of a sample's prompt each tokenizer kept since `start`. None if all kept all."""
        seen = {name: found for (name, place), found in self._seen.items() if place == sample}
        if all(count <= limit for count, limit in seen.values()):
            return None
        kept = {name: (min(count, limit), count) for name, (count, limit) in seen.items()}
        return "; ".join(f"{name} kept {left} of {count} tokens" for name, (left, count) in kept.items())

    def _watch(self, name: str, tokenizer: Any) -> None:
        """By a subclass put in the class's place: a call is looked up there, and isinstance goes on to hold."""
        plain = type(tokenizer)

        def call(self: Any, text: Any = None, *args: Any, **words: Any) -> Any:
            if words.get("truncation") not in (None, False, "do_not_truncate"):
                whole = {k: v for k, v in words.items() if k not in ("truncation", "max_length", "padding")}
                whole.pop("return_tensors", None)
                note(text, plain.__call__(self, text, *args, **whole), words.get("max_length") or self.model_max_length)
            return plain.__call__(self, text, *args, **words)

        def note(text: Any, encoded: Any, limit: int) -> None:
            batch = isinstance(text, list | tuple)
            rows = encoded["input_ids"] if batch else [encoded["input_ids"]]
            for place, (words, row) in enumerate(zip(text if batch else [text], rows, strict=True)):
                if words not in self._constants:
                    key = name, place % self._samples
                    self._seen[key] = max(self._seen.get(key, (0, limit)), (len(row), limit))

        tokenizer.__class__ = type(plain.__name__, (plain,), {"__call__": call, "__module__": plain.__module__})


def refuse_undefined_pixels(pipeline: Any) -> None:
    """A pipeline makes black of pixels that are no numbers, and white of infinite ones: here they are an error."""
    import torch

    def check(module: Any, args: Any, output: Any) -> None:
        decoded = output if isinstance(output, torch.Tensor) else output[0]
        if not torch.isfinite(decoded).all():
            raise SampleError("the model gave infinite or undefined pixels")

    for name in DECODERS:
        decoder = getattr(getattr(pipeline, name, None), "decoder", None)
        if isinstance(decoder, torch.nn.Module):
            decoder.register_forward_hook(check)


def keep_positions(pipeline: Any) -> None:
    """Token types for every part that places image tokens by them, where the pipeline drops what its processor gave
    (Qwen-Image-Edit, LongCat). Raises UserError for a part whose image tokens aren't known."""
    import torch

    for name, component in pipeline.components.items():
        if not isinstance(component, torch.nn.Module):
            continue
        for module in component.modules():
            if "mm_token_type_ids" not in inspect.signature(type(module).forward).parameters:
                continue
            if any(getattr(module.config, f"{kind}_token_id", None) is None for kind in ("image", "video")):
                raise UserError(
                    f"'editor.params.pipeline': {type(pipeline).__name__}'s {name} ({type(module).__name__}) places "
                    "image tokens by token types, and its configuration doesn't say which tokens are images"
                )
            pass_token_types(module)


class Clock:
    """Counts a call's denoiser forwards and splits its seconds at the first and the last of them, without
    making the GPU wait in between. Guidance in one batch is one forward."""

    def __init__(self, pipeline: Any, cuda: bool) -> None:
        self.forwards = 0
        parts = (getattr(pipeline, name, None) for name in DENOISERS)
        self._denoiser = next((part for part in parts if part is not None), None)
        self._cuda = cuda

    def __enter__(self) -> Clock:
        hooked = [] if self._denoiser is None else [self._denoiser]
        self._hooks = [part.register_forward_pre_hook(self._before) for part in hooked]
        self._hooks += [part.register_forward_hook(self._after) for part in hooked]
        self._begin = time.perf_counter()
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    def _before(self, *_: Any) -> None:
        if self.forwards == 0:
            self._first = self._now()
        self.forwards += 1

    def _after(self, *_: Any) -> None:
        self._last = self._now()

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self) -> dict[str, float]:
        """By part: text (all that conditions), denoise, decode; `call` alone where no denoiser was seen."""
        end = self._now()
        if self._cuda:
            end.synchronize()
        whole = time.perf_counter() - self._begin
        if not self.forwards:
            return {"call": round(whole, 4)}
        decode, denoise = self._between(self._last, end), self._between(self._first, self._last)
        parts = {"text": whole - denoise - decode, "denoise": denoise, "decode": decode}
        return {part: round(value, 4) for part, value in parts.items()}

    def _between(self, start: Any, stop: Any) -> float:
        return start.elapsed_time(stop) / 1000 if self._cuda else stop - start
