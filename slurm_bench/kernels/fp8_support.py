"""Whether a GPU has matrix products in 8 bits, asked before anything is loaded. No torch until a device is asked."""

from __future__ import annotations

from slurm_bench.errors import UserError
from slurm_bench.machine import Gpu

FP8_CAPABILITY = (8, 9)


def check_gpu_has_fp8(gpu: Gpu | None, key: str, profile: str) -> None:
    """Raises UserError, of the setting `key`, if a GPU of NVIDIA's can be seen here and has no such products. (0, 0) is
    one whose capability isn't told."""
    if gpu is not None and (0, 0) < gpu.capability < FP8_CAPABILITY:
        raise UserError(
            f"'{key}': {profile} needs a GPU with fp8 matrix products (Ada, Hopper or later: compute capability 8.9), "
            f"{gpu.name} has {gpu.capability[0]}.{gpu.capability[1]}; use profile=exact"
        )


def check_device_has_fp8(device: str, key: str, profile: str) -> None:
    """Once the device is chosen: raises UserError if it can't run such products."""
    if not device.startswith("cuda"):
        raise UserError(f"'{key}': {profile} needs a GPU with fp8 matrix products, not {device}")
    import torch

    from slurm_bench.kernels.fp8 import why_unsupported

    if reason := why_unsupported(torch.device(device)):
        raise UserError(
            f"'{key}': {profile} can't run on {torch.cuda.get_device_name(device)} with torch {torch.__version__} "
            f"({reason}); use profile=exact"
        )
