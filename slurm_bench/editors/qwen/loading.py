"""From a model's folder to its components on the device: safetensors streamed to the GPU, no pickle, no code of the
model's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from slurm_bench import marks
from slurm_bench.checkpoints.lora import Lora, fit_lora, peft_config, read_lora, without_ones
from slurm_bench.checkpoints.place import diffusers_model, transformers_model
from slurm_bench.checkpoints.safetensors_header import TensorInfo
from slurm_bench.checkpoints.stream import WeightStream, read_plainly
from slurm_bench.editors.qwen.family import Family
from slurm_bench.editors.qwen.profiles import Profile
from slurm_bench.kernels.first_use import Kernels, first_use
from slurm_bench.lean_imports import lean_imports
from slurm_bench.machine import lasting

LORA_KEY = "editor.params.lora"
# No logits of a text encoder are read: whoever publishes it may leave out what makes them.
PLACE: dict[str, Callable[..., Any]] = {
    "transformers": partial(transformers_model, unused="lm_head"),
    "diffusers": diffusers_model,
}


@dataclass(frozen=True)
class Source:
    """Where the components come from, and where they go: to the device, but for those that are to wait on the host."""

    family: Family
    folder: Path
    dtype: str
    device: str
    on_host: tuple[str, ...] = ()


@contextmanager
def arriving(source: Source, names: Sequence[str]) -> Iterator[Callable[[str], Any]]:
    """The weights of the components with these `names` are on their way, in this order, while their code is imported;
    gives a function that awaits and builds one."""
    import torch

    with lasting(), WeightStream(source.device) as stream:
        for name in names:
            if name not in source.on_host:
                stream.begin(source.folder / name)
        with marks.part("import diffusers, transformers"), lean_imports():
            classes = {
                name: getattr(import_module(library), cls) for name, (library, cls) in source.family.classes.items()
            }

        def component(name: str) -> Any:
            on_host, folder = name in source.on_host, source.folder / name
            place = PLACE[source.family.classes[name][0]]
            with marks.part(f"build {name}"):
                fill = place(classes[name], folder, getattr(torch, source.dtype), "cpu" if on_host else source.device)
            with marks.part(f"await {name}"):
                tensors = read_plainly(folder) if on_host else stream.take(folder)
            with marks.part(f"fill {name}"):
                return fill(tensors)

        yield component


def load_component(source: Source, name: str) -> Any:
    with arriving(source, [name]) as component:
        return component(name)


def load_pipeline(source: Source, profile: Profile, text_first: bool) -> Any:
    """The pipeline on the device; with `text_first`, still without its transformer. That is the largest part and comes
    last: all else is built while it is on its way."""
    names = [name for name in source.family.classes if name != "transformer"]
    last = [] if text_first else ["transformer"]
    with first_use(source.device, _kernels(source, profile)), arriving(source, names + last) as component:
        components = {name: component(name) for name in names}
        with marks.part("build the pipeline"), lean_imports():
            from diffusers import DiffusionPipeline

            pipeline = DiffusionPipeline.from_pretrained(source.folder, transformer=None, **components)
        pipeline.register_modules(**{name: component(name) for name in last})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _kernels(source: Source, profile: Profile) -> Kernels | None:
    if not profile.own_loop:
        return None
    run_once = source.family.run_once
    name = f"{run_once.__module__.split('.')[-2]}-{8 if profile.fp8 else 16}"
    return Kernels(name, partial(run_once, source.device, profile.fp8))


def apply_loras(pipeline: Any, adapters: Sequence[Lora], fuse: bool) -> None:
    """`fuse` adds them to the weights, once and for all, which leaves nothing to do in a forward. Raises UserError for
    a file that doesn't fit in all its layers."""
    from safetensors.torch import load_file

    if not adapters:
        return
    transformer = getattr(pipeline, "transformer", None) or pipeline.unet
    tensors = {name: TensorInfo("", tuple(p.shape)) for name, p in transformer.named_parameters()}
    names = [f"lora_{index}" for index in range(len(adapters))]
    for name, adapter in zip(names, adapters, strict=True):
        layers = fit_lora(read_lora(adapter.path, LORA_KEY), tensors, LORA_KEY).layers
        weights = load_file(adapter.path)
        factors = {}
        for layer in layers:
            dimensions = len(tensors[f"{layer.module}.weight"].shape)
            for letter, factor in (("A", weights[layer.down]), ("B", weights[layer.up])):
                shape = without_ones(tuple(factor.shape))
                factors[f"{layer.module}.lora_{letter}.weight"] = factor.reshape(
                    *shape, *[1] * (dimensions - len(shape))
                )
        config = peft_config(layers)
        transformer.load_lora_adapter(factors, prefix=None, adapter_name=name, metadata=config, low_cpu_mem_usage=True)
    transformer.set_adapters(names, [adapter.scale for adapter in adapters])
    if fuse:
        transformer.fuse_lora(adapter_names=names)
        transformer.unload_lora()
