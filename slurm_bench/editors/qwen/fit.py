"""What of a model is on a GPU at once, and what is spared where that is too much."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from slurm_bench.checkpoints.folder import ModelFolder, bytes_of
from slurm_bench.checkpoints.safetensors_header import TensorInfo
from slurm_bench.editors.qwen.base_settings import BaseSettings
from slurm_bench.editors.qwen.profiles import Profile
from slurm_bench.editors.qwen.waiting import BLOCK, BUFFERS, Waiting, spread
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
    least = min(ways, key=lambda way: way.needed)
    spared = f" with {' and '.join(least.settings.savings)}" if least.settings.savings else ""
    narrower = next(iter(each.name for each in settings.family.profiles.values() if each.narrow_weights), None)
    other = f", or try editor.params.profile={narrower}" if narrower and not profile.narrow_weights else ""
    raise UserError(
        f"'editor.params.model_name': {settings.model_name} with profile={profile.name} needs about "
        f"{least.needed / GIB:.0f} GiB of GPU memory{spared}, {gpu.name} has {gpu.memory / GIB:.0f} GiB; take a larger "
        f"GPU{other}"
    )


def ways_to_fit(folder: ModelFolder, settings: Any, profile: Profile) -> list[Fit]:
    """From what was asked for to what spares most, each slower than the one before. Raises UserError for more blocks
    to stream than there are."""
    blocks = count_blocks(folder.tensors["transformer"])

    @cache
    def weights(from_host: bool, offload_modulation: bool) -> dict[int | None, int]:
        waiting = replace(settings.waiting(blocks, from_host), blocks=frozenset())
        if offload_modulation:
            waiting = replace(waiting, parts=waiting.parts | set(settings.family.modulation))
        return _weights(folder.tensors["transformer"], settings, profile if from_host else None, waiting)

    def way(settings: Any, from_host: bool) -> Fit:
        transformer = weights(from_host, "offload_modulation" in settings.savings)
        streamed = spread(settings.stream_blocks, blocks)
        return Fit(settings, from_host, _needed(folder, settings, _on_gpu(transformer, streamed)))

    ways = [way(settings, profile.narrow_weights or settings.stream_blocks > 0)]
    if profile.own_loop:
        first = replace(settings, text_first=True)
        lean = replace(first, offload_modulation=True) if settings.family.modulation else first
        # No more than the device's buffers hold: nothing is spared.
        counts = range(max(BUFFERS, settings.stream_blocks) + 1, blocks + 1)
        ways += [way(first, ways[0].from_host), way(lean, from_host=True)]
        ways += [way(replace(lean, stream_blocks=count), from_host=True) for count in counts]
    return ways


def count_blocks(names: Iterable[str]) -> int:
    return len({found[1] for name in names if (found := BLOCK.match(name))})


def _needed(folder: ModelFolder, settings: BaseSettings, transformer: int) -> int:
    """The larger of two peaks, where prompts are encoded first: that, and the editing."""
    sizes, family = folder.bytes_in(settings.dtype), settings.family
    rest = sum(size for name, size in sizes.items() if name not in ("text_encoder", "transformer"))
    encoding, editing = sizes["text_encoder"], transformer + family.workspace
    if not settings.text_first:
        return rest + encoding + editing
    return rest + max(encoding + family.text_workspace, editing)


def _on_gpu(weights: Mapping[int | None, int], streamed: Collection[int]) -> int:
    """Of a transformer's `weights` in bytes, by block, what is there at once if these blocks are streamed."""
    largest = max((weights[block] for block in streamed), default=0)
    return sum(weights.values()) - sum(weights[block] for block in streamed) + min(BUFFERS, len(streamed)) * largest


def _weights(
    tensors: Mapping[str, TensorInfo], settings: BaseSettings, narrowed: Profile | None, waiting: Waiting
) -> dict[int | None, int]:
    """Bytes by block, of None outside the blocks, without what waits on the host; with `narrowed`, of a transformer
    whose layers come in the width of that profile."""
    found: dict[int | None, int] = defaultdict(int)
    narrowable, narrow = settings.family.narrowable, narrowed and (narrowed.fp8 or narrowed.narrow_weights)
    for name, tensor in tensors.items():
        if waiting.has(name):
            continue
        block, layer = BLOCK.match(name), name.removesuffix(".weight")
        in_8_bits = narrow and layer != name and narrowable.has(layer, settings.keep_bf16)
        size = tensor.parameters if in_8_bits else bytes_of(tensor, settings.dtype)
        found[int(block[1]) if block else None] += size
    return found
