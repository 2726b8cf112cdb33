"""The verb `bench`: what to measure here, in which order, and the results as one dictionary, which grows row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import asdict, dataclass
from typing import Any

from slurm_bench.bench.say import say
from slurm_bench.bench.table import forecast
from slurm_bench.editors.qwen.base_editor import check_diffusers
from slurm_bench.editors.qwen.family import EDITORS, QWEN_IMAGE_EDIT, Family
from slurm_bench.editors.qwen.profiles import Profile, check_capability, check_extras
from slurm_bench.editors.qwen21.family import QWEN_IMAGE_21
from slurm_bench.errors import UserError
from slurm_bench.machine import GIB, Gpu, check_gpu_memory, gpu_at, held_by_others


@dataclass(frozen=True)
class ModelFacts:
    """What is asked of a model before torch is imported. `needed` is the pipeline at full size in bf16, and room to
    work, in bytes; `size` what its checkpoint takes on disk, `folder` where that is written. `batched`: its editor
    takes several samples at once."""

    family: Family
    needed: int
    size: int
    folder: str
    batched: bool = False

    @property
    def class_path(self) -> str:
        return EDITORS[self.family.pipelines[0]]


MODELS = {
    "qwen-image-edit": ModelFacts(QWEN_IMAGE_EDIT, 64 * GIB, 58_000_000_000, "edit"),
    "qwen-image-2.1": ModelFacts(QWEN_IMAGE_21, 44 * GIB, 33_000_000_000, "edit-2.1", batched=True),
}
SIDES = {"full": 8192, "tiny": 256}
PARTS = ("editing", "batches", "scoring")
# Of the GPU, for what isn't by the model that edits: InstructPix2Pix, and the judge of 8 B where it writes.
NEEDED = {"batches": 8 * GIB, "scoring": 32 * GIB}


def run_bench(
    model: str, size: str, profiles: list[str] | None, parts: list[str] | None, gpus: int, kernels: bool
) -> Iterator[dict[str, Any]]:
    """The results so far, with each row that comes. Of the `parts` that aren't asked for there are none. Raises
    UserError where this machine can't do what is asked."""
    facts, asked = model_named(model), set(parts or PARTS)
    if unknown := sorted(asked - {*PARTS}):
        raise UserError(f"--parts {','.join(parts or ())}: no part '{unknown[0]}'; there are {', '.join(PARTS)}")
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    gpu = gpu_at(device)
    if size == "full":
        if gpu is None:
            raise UserError("bench: no CUDA GPU here; run it where there is one, or take --size tiny")
        mend = "take --size tiny, other --parts, or a larger GPU"
        if others := held_by_others(device):
            mend = "end them, or set CUDA_VISIBLE_DEVICES to another GPU"
            say(f"other processes hold {others / GIB:.1f} GiB of this GPU: the figures may be theirs too")
        check_gpu_memory(gpu_memory(facts, asked), gpu, "bench --size full", mend, others)
    chosen = choose_profiles(profiles, facts.family.profiles, gpu)
    from slurm_bench.bench.batches import measure_batches
    from slurm_bench.bench.editing import measure_editing
    from slurm_bench.bench.machine import describe_machine, matmul_ceilings
    from slurm_bench.bench.scoring import measure_scoring

    if facts.batched and "exact" not in chosen:  # by which its batches are made
        if parts and "batches" in asked:
            raise UserError(f"--profiles {','.join(chosen)}: the batches of {model} are measured in exact")
        asked.discard("batches")
    batching = model if facts.batched else None
    say("matrix products")
    ceilings = matmul_ceilings(device, SIDES[size])
    results: dict[str, Any] = {
        "model": model,
        "size": size,
        "gpus": gpus,
        "machine": describe_machine(device),
        "ceilings": asdict(ceilings),
        **{part: [] for part in PARTS},
    }
    measure: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "editing": lambda: measure_editing(model, size, device, chosen, ceilings, kernels, say),
        "batches": lambda: measure_batches(batching, size, device),
        "scoring": lambda: measure_scoring(size, device, kernels, say),
    }
    for part in PARTS:
        for row in measure[part]() if part in asked else ():
            results[part].append(row)
            yield {**results, "forecast": forecast(results, gpus)}


def gpu_memory(facts: ModelFacts, parts: Set[str]) -> int:
    """Bytes that these parts need at full size."""
    by_itself = parts & ({"editing", "batches"} if facts.batched else {"editing"})
    return facts.needed if by_itself else max(NEEDED[part] for part in parts)


def model_named(name: str) -> ModelFacts:
    """Raises UserError for one that isn't known, or that the installed diffusers is too old for."""
    if name not in MODELS:
        raise UserError(f"--model {name}: no such model; there are {', '.join(MODELS)}")
    check_diffusers(MODELS[name].family.diffusers)
    return MODELS[name]


def choose_profiles(names: list[str] | None, profiles: Mapping[str, Profile], gpu: Gpu | None) -> list[str]:
    """All that can run here, unless named. A profile that was named and can't run is an error."""
    if names:
        if unknown := [name for name in names if name not in profiles]:
            raise UserError(f"--profiles {','.join(names)}: no profile '{unknown[0]}'; there are {', '.join(profiles)}")
        for name in names:
            _check(profiles[name], gpu)
        return [name for name in profiles if name in names]
    chosen = []
    for profile in profiles.values():
        try:
            _check(profile, gpu)
            chosen.append(profile.name)
        except UserError as reason:
            say(f"without {profile.name}: {reason}")
    return chosen


def _check(profile: Profile, gpu: Gpu | None) -> None:
    if profile.fp8 and gpu is None:
        raise UserError(
            f"bench: {profile.name} needs a GPU with fp8 matrix products (Ada, Hopper or later); there is none here"
        )
    check_capability(profile, gpu)
    check_extras(profile)
