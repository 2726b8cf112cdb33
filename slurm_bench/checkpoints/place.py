"""Tensors → a model of diffusers or transformers, as `from_pretrained` makes it of the same folder.

Each way first does what can be done while the tensors are on their way, and gives a function that takes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slurm_bench.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Fill = Callable[[Mapping[str, "Tensor"]], Any]


def transformers_model(
    cls: Any, folder: Path, dtype: torch.dtype, device: str, unused: str | None = None, **options: Any
) -> Fill:
    """transformers itself puts the tensors in: it renames, ties, casts and knows of quantized checkpoints. What is
    missing it would make at random: to fill it raises UserError then, but for the module that is `unused`."""
    from transformers import GenerationConfig

    config = cls.config_class.from_pretrained(folder)

    def fill(tensors: Mapping[str, Tensor]) -> Any:
        with _without_reservation():
            model, found = cls.from_pretrained(
                None,
                config=config,
                state_dict=dict(tensors),
                dtype=dtype,
                device_map={"": device},
                output_loading_info=True,
                **options,
            )
        if missing := sorted(name for name in found["missing_keys"] if name.partition(".")[0] != unused):
            more = f" and {len(missing) - 1} more" if missing[1:] else ""
            raise UserError(f"{folder}: its weights lack {missing[0]}{more}; download it again")
        model.config.name_or_path = model.name_or_path = str(folder)
        if (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
        return model

    return fill


@contextmanager
def _without_reservation() -> Iterator[None]:
    """transformers reserves a model's size on the GPU before it fills it: a second time, with the weights there."""
    from transformers import modeling_utils

    name = "caching_allocator_warmup"
    before = getattr(modeling_utils, name, None)
    if before is None:
        yield
        return
    setattr(modeling_utils, name, lambda *_: None)
    try:
        yield
    finally:
        setattr(modeling_utils, name, before)


def diffusers_model(cls: Any, folder: Path, dtype: torch.dtype, device: str) -> Fill:
    """diffusers takes files alone, so this is its own way of loading: built without weights, then filled. Buffers
    that aren't stored, and tables that are plain attributes, come from the constructor. To fill it raises RuntimeError
    where a tensor is missing, unknown, or of another shape."""
    import torch
    from accelerate import init_empty_weights
    from diffusers.models.modeling_utils import no_init_weights

    with _default_dtype(dtype), no_init_weights(), init_empty_weights(include_buffers=False):
        model = cls.from_config(cls.load_config(folder))
    ignored = [re.compile(pattern) for pattern in cls._keys_to_ignore_on_load_unexpected or ()]
    wide = set(cls._keep_in_fp32_modules or ())

    def cast(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return tensor.to(torch.float32 if wide & set(name.split(".")) else dtype)

    def fill(tensors: Mapping[str, Tensor]) -> Any:
        wanted = {n: cast(n, t) for n, t in tensors.items() if not any(pattern.search(n) for pattern in ignored)}
        model.load_state_dict(wanted, assign=True)
        model.register_to_config(_name_or_path=str(folder))
        return model.to(device).eval()

    return fill


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
