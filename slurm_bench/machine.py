"""The machine that this process runs on: its GPUs, its memory, the packages installed. Importing this is light."""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from slurm_bench.errors import LostGpu, UserError
from slurm_bench.logs import log

GIB = 2**30
CONTEXT = GIB  # of GPU memory, for what isn't torch's tensors: the CUDA context, kernels, libraries' workspaces
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
    "scipy",
    "pandas",
    "numpy",
    "httpx",
    "torchmetrics",
)


@dataclass(frozen=True)
class Gpu:
    name: str
    memory: int  # bytes
    capability: tuple[int, int]
    uuid: str = ""
    driver: str = ""
    cut: bool = False  # into parts (MIG)

    def facts(self) -> dict[str, str]:
        """For a journal or a run's provenance."""
        memory = f"{self.memory // 2**20} MiB"
        return {"uuid": self.uuid, "name": self.name, "memory": memory, "driver": self.driver}


def visible_gpus() -> list[Gpu]:
    """The GPUs that this process may use, by nvidia-smi: no CUDA context, no torch. Empty where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not visible.strip():
        return []
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        return list(_listed(program, os.stat(program).st_mtime_ns, visible))
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


@cache
def _listed(program: str, written: int, visible: str | None) -> tuple[Gpu, ...]:
    """The GPUs that nvidia-smi lists: the `program`, which was `written` then. It is asked once, as it takes a good
    part of a second and each part of a start wants to know. In the place of a GPU that is cut up (MIG) stand its
    parts, one of which a process can use, and by whose names nvidia-smi can't be asked."""
    parts = [name.strip() for name in visible.split(",")] if visible and "MIG-" in visible else []
    query = ["--query-gpu=uuid,name,memory.total,driver_version,compute_cap,mig.mode.current"]
    query += ["--format=csv,noheader,nounits", *([f"--id={visible}"] if visible and not parts else [])]
    gpus = [_gpu(line) for line in _said(program, *query) if line.strip()]
    if any(gpu.cut for gpu in gpus):
        found = _parts(gpus, _said(program, "-L"))
        gpus = [part for gpu in gpus for part in (found.get(gpu.uuid, []) if gpu.cut else [gpu])]
    if parts:
        gpus = [gpu for name in parts for gpu in gpus if gpu.uuid.startswith(name)]
    if not gpus:
        raise ValueError("none is listed")  # which is no answer to keep
    return tuple(gpus)


def _said(program: str, *words: str) -> list[str]:
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()


def _parts(gpus: Sequence[Gpu], listed: Iterable[str]) -> dict[str, list[Gpu]]:
    """Of each GPU that has some, by its uuid, from `nvidia-smi -L`. Their names tell about how much memory they have:
    `1g.10gb` has 9.5 GiB."""
    by_uuid, found, whole = {gpu.uuid: gpu for gpu in gpus}, dict[str, list[Gpu]](), None
    for line in listed:
        uuid = line.rpartition("UUID: ")[2].rstrip(") ")
        part = re.match(r"\s+MIG (\S*?(\d+)gb\S*)", line)
        if part is None:
            whole = by_uuid.get(uuid)
        elif whole is not None:
            name, memory = f"{whole.name} MIG {part[1]}", int(part[2]) * 10**9
            found.setdefault(whole.uuid, []).append(replace(whole, name=name, memory=memory, uuid=uuid, cut=False))
    return found


def visible_gpu() -> Gpu | None:
    """The first GPU that this process may use. None without one."""
    return next(iter(visible_gpus()), None)


def gpu_at(device: str) -> Gpu | None:
    """The GPU that torch calls so; None for the CPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    properties = torch.cuda.get_device_properties(device)
    return Gpu(properties.name, properties.total_memory, (properties.major, properties.minor))


def check_device(asked: Any, key: str) -> None:
    """Before anything starts, and without torch: is `asked` a device (null, cpu, cuda), and if a GPU, is
    there one here or a cluster that may have one? Raises UserError that names `key`, as `editor.params.device`."""
    _check_device_name(asked, key)
    if asked not in (None, "cpu") and not visible_gpus() and not shutil.which("sbatch"):
        raise UserError(f"'{key}': {asked}, but no GPU can be seen here, and no sbatch to ask a cluster for one")


def choose_device(asked: str | None, key: str) -> str:
    """The device to load a model on, as torch calls it: the one that was `asked` for, or without a wish a GPU if
    there is one. For `load`; the login node calls `check_device`. Imports torch.

    A process that was given a GPU never goes on without it: its work would take days on the CPU, and other
    processes can do it. Raises LostGpu then, and UserError that names `key` (as `editor.params.device`) for a
    device that nobody could have here.
    """
    _check_device_name(asked, key)
    if asked != "cpu" and "torch" not in sys.modules:
        threading.Thread(target=_make_context, name="CUDA context", daemon=True).start()
    import torch

    if asked == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        if given := given_gpus():
            raise LostGpu(f"this process's GPU can't be used: it was given {given}, but torch sees none")
        if asked:
            raise UserError(f"'{key}': {asked}, but torch sees no GPU; ask for one (--gpus), or take cpu")
        return "cpu"
    device = asked or "cuda"
    try:
        torch.ones(1, device=device).item()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # seen but not usable: Error 802, a mode that lets one process in, a dead device
        raise LostGpu(f"this process's GPU can't be used: {str(error).strip().splitlines()[0]}") from error
    with suppress(RuntimeError):  # a card that doesn't tell is none the worse for it
        if others := held_by_others(device):
            log.warning("other processes hold %.1f GiB of this GPU's memory; nvidia-smi says whose", others / GIB)
    return device


def _make_context() -> None:
    """The first GPU's, by the driver itself, which takes 0.3 s and no lock of Python's: beside the import of torch,
    which finds it made. Whatever goes wrong here, torch meets again."""
    with suppress(OSError, AttributeError):
        driver, gpu, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_void_p()
        if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(gpu), 0) == 0:
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), gpu)


def _check_device_name(asked: Any, key: str) -> None:
    if asked is not None and asked not in ("cpu", "cuda", "cuda:0"):
        # Kernels, captures and checks are all of a process's first GPU: the only one that a task has.
        raise UserError(
            f"'{key}': {asked!r} is no device; it is cuda or cpu (null: a GPU if there is one). A task has one "
            "GPU; for another one set CUDA_VISIBLE_DEVICES"
        )


def given_gpus() -> str:
    """What says that this process was given a GPU, by Slurm or by a slot of ours, as NAME=value. "" if nothing does."""
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        value = os.environ.get(name, "").strip()
        if value not in ("", "-1", "NoDevFiles"):  # how Slurm and users write "none"
            return f"{name}={value}"
    return ""


def held_by_others(device: str) -> int:
    """Bytes of the GPU's memory that are neither free nor this process's, which has a context there; less than a GiB
    may be this one's context."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return max(0, total - free - torch.cuda.memory_reserved(device) - CONTEXT)


def check_gpu_memory(needed: int, gpu: Gpu | None, what: str, mend: str, others: int = 0) -> None:
    """Raises UserError if a GPU can be seen here and is too small: `needed` bytes for `what`, beside what `others`
    hold."""
    if gpu is not None and gpu.memory - others < needed:
        held = f", of which other processes hold {others / GIB:.0f} (nvidia-smi says whose)" if others else ""
        raise UserError(
            f"{what} needs about {needed / GIB:.0f} GiB of GPU memory, {gpu.name} has "
            f"{gpu.memory / GIB:.0f} GiB{held}; {mend}"
        )


@contextmanager
def without_collection() -> Iterator[None]:
    """For reading what stays: to look for garbage among a million new objects takes as long as to make them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def lasting() -> Iterator[None]:
    """For imports and models: no garbage is looked for meanwhile, nor later among what is there by then. To look among
    the objects of torch, diffusers and transformers takes a quarter of a second, three times in a start."""
    with without_collection():
        yield
        gc.freeze()


def give_back_freed() -> None:
    """Give the system the memory that glibc keeps for later: after a step with large tables it may be 100 MB."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def free_memory() -> None:
    """Collect garbage, and hand the GPU memory that torch keeps for later back to the device."""
    gc.unfreeze()  # what was loaded to stay may be what goes
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def peak_gpu_memory() -> int | None:
    """The most bytes that torch's tensors have had on this process's GPU at once. None where nothing of it is used."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_allocated())


def process_start(pid: int) -> float | None:
    """When a process of this host started, in seconds since the epoch; tells a pid from its next owner. None where
    there is none, or it is dead and nobody has taken note of it."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def signal_name(number: int) -> str:
    """SIGKILL; most real-time signals have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


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
    """A row of the answer; a capability that isn't told counts as none. Of a GPU that is cut up not everybody is told
    the memory."""
    uuid, name, memory, driver, *more = (part.strip() for part in line.split(","))
    cut = more[1:] == ["Enabled"]
    mebibytes = 0 if cut else int(memory.split()[0])
    major, minor = more[0].split(".") if more else ("0", "0")
    return Gpu(name, mebibytes * 2**20, (int(major), int(minor)), uuid, driver, cut)
