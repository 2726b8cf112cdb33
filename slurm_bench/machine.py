"""The machine that this process runs on: its GPUs, its memory, the packages installed. Importing this is light."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import subprocess
import sys
from dataclasses import dataclass

from slurm_bench.errors import UserError

GIB = 2**30
DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}

# What a result may depend on, as pip calls them.
PACKAGES = (
    "slurm_bench",
    "submitit",
    "torch",
    "torchvision",
    "triton",
    "fa3-fwd",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
    "cache-dit",
    "safetensors",
    "pillow",
    "omegaconf",
    "pandas",
    "numpy",
    "httpx",
)


@dataclass(frozen=True)
class Gpu:
    name: str
    memory: int  # bytes
    capability: tuple[int, int]
    uuid: str = ""
    driver: str = ""

    def facts(self) -> dict[str, str]:
        """For a journal or a run's provenance."""
        memory = f"{self.memory // 2**20} MiB"
        return {"uuid": self.uuid, "name": self.name, "memory": memory, "driver": self.driver}


def visible_gpus() -> list[Gpu]:
    """The GPUs that this process may use, by nvidia-smi: no CUDA context, no torch. Empty where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not visible.strip():
        return []
    query = ["nvidia-smi", "--query-gpu=uuid,name,memory.total,driver_version,compute_cap"]
    query += ["--format=csv,noheader,nounits", *([f"--id={visible}"] if visible else [])]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        return [_gpu(line) for line in answer.splitlines() if line.strip()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def visible_gpu() -> Gpu | None:
    """The first GPU that this process may use. None without one."""
    return next(iter(visible_gpus()), None)


def check_gpu_memory(needed: int, gpu: Gpu | None, what: str, mend: str) -> None:
    """Raises UserError if a GPU can be seen here and is too small: `needed` bytes for `what`."""
    if gpu is not None and gpu.memory < needed:
        raise UserError(
            f"{what} needs about {needed / GIB:.0f} GiB of GPU memory, {gpu.name} has "
            f"{gpu.memory / GIB:.0f} GiB; {mend}"
        )


def free_memory() -> None:
    """Collect garbage, and hand the GPU memory that torch keeps for later back to the device."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def package_versions() -> dict[str, str]:
    """Those of PACKAGES that are installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _gpu(line: str) -> Gpu:
    uuid, rest = line.split(", ", 1)
    name, mebibytes, driver, capability = rest.rsplit(", ", 3)
    major, minor = capability.split(".")
    return Gpu(name, int(mebibytes) * 2**20, (int(major), int(minor)), uuid, driver)
