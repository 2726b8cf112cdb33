"""What of a model is on a GPU at once, and what is spared where that is too much."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from slurm_bench.checkpoints.folder import ModelFolder, bytes_of
from slurm_bench.checkpoints.safetensors_header import TensorInfo
from slurm_bench.editors.qwen.base_settings import BaseSettings
from slurm_bench.editors.qwen.profiles import Profile
from slurm_bench.errors import UserError
from slurm_bench.machine import GIB, Gpu


@dataclass(frozen=True)
class Fit:
    """`settings` with the savings that are made; none changes an image. `from_host`: the transformer is built in the
    host's memory and brought to the GPU layer by layer, already in 8 bits where it is to be; otherwise it streams there
    whole, which is faster. `needed` is the peak in bytes."""

    settings: Any
    from_host: bool
    needed: int


def choose_fit(folder: ModelFolder, settings: BaseSettings, profile: Profile, gpu: Gpu | None) -> Fit:
    """The first of the ways to fit that does; without a GPU to ask, what the settings say. Raises UserError."""
    ways = ways_to_fit(folder, settings, profile)
    if gpu is None:
        return ways[0]
    fitting = next((way for way in ways if way.needed <= gpu.memory), None)
    if fitting is not None:
        return fitting
    least = ways[-1]
    spared = f" with {' and '.join(least.settings.savings)}" if least.settings.savings else ""
    narrower = next(iter(each.name for each in settings.family.profiles.values() if each.narrow_weights), None)
    other = f", or try editor.params.profile={narrower}" if narrower and not profile.narrow_weights else ""
    raise UserError(
        f"'editor.params.model_name': {settings.model_name} with profile={profile.name} needs about "
        f"{least.needed / GIB:.0f} GiB of GPU memory{spared}, {gpu.name} has {gpu.memory / GIB:.0f} GiB; take a larger "
        f"GPU{other}"
    )


def ways_to_fit(folder: ModelFolder, settings: Any, profile: Profile) -> list[Fit]:
    """From what was asked for to what spares most."""
    asked = [(settings, profile.narrow_weights)]
    if profile.own_loop:
        first = replace(settings, text_first=True)
        leanest = replace(first, offload_modulation=True) if settings.family.modulation else first
        asked += [(first, profile.narrow_weights), (leanest, True)]
    return [Fit(each, from_host, _needed(folder, each, profile, from_host)) for each, from_host in asked]


def _needed(folder: ModelFolder, settings: BaseSettings, profile: Profile, from_host: bool) -> int:
    sizes = folder.bytes_in(settings.dtype)
    text_encoder = sizes.pop("text_encoder")
    transformer = sizes.pop("transformer")
    if from_host:
        tensors = folder.tensors["transformer"].items()
        transformer = sum(_bytes_on_gpu(name, tensor, settings, profile) for name, tensor in tensors)
    together = max(transformer, text_encoder) if settings.text_first else transformer + text_encoder
    return sum(sizes.values()) + together + settings.family.workspace


def _bytes_on_gpu(name: str, tensor: TensorInfo, settings: BaseSettings, profile: Profile) -> int:
    """Of a tensor of a transformer that was brought there layer by layer. A layer with outliers has both widths."""
    family, whole = settings.family, bytes_of(tensor, settings.dtype)
    if "offload_modulation" in settings.savings and set(name.split(".")) & set(family.modulation):
        return 0
    layer = name.removesuffix(".weight")
    narrow = (profile.fp8 or profile.narrow_weights) and family.narrowable.has(layer, settings.keep_bf16)
    if layer == name or not narrow:
        return whole
    return tensor.parameters + (whole if profile.fp8 and layer.endswith(family.narrowable.with_outliers) else 0)
