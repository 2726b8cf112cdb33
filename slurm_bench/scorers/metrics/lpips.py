"""LPIPS (Zhang et al. 2018) by torchmetrics, with the backbone's weights from torch's cache: never downloaded here."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slurm_bench.errors import UserError
from slurm_bench.scorers.metrics.regions import tensor_of

if TYPE_CHECKING:
    from PIL import Image

# The backbones' files as torchvision names them: the end of each name is the beginning of its sha256.
BACKBONES = {
    "alex": ("alexnet", "alexnet-owt-7be5be79.pth"),
    "vgg": ("vgg16", "vgg16-397923af.pth"),
    "squeeze": ("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth"),
}
SMALLEST = 64  # pixels a side, that the deepest layer still has some


def backbone_file(net: str) -> Path:
    """Where torch keeps it; found without torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", f"{cache}/torch")
    return Path(home).expanduser() / "hub" / "checkpoints" / BACKBONES[net][1]


def missing(net: str) -> str:
    """Why LPIPS can't be computed here, with what to do about it; "" where it can."""
    if find_spec("torchmetrics") is None:
        return "it needs torchmetrics: pip install 'slurm_bench[metrics]'"
    file, name = backbone_file(net), BACKBONES[net][0]
    if not file.is_file():
        return (
            f"its weights aren't in {file}; where there is a network, type: python -c \"import torchvision; "
            f"torchvision.models.{name}(weights='DEFAULT')\""
        )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return "" if digest.startswith(file.stem.rpartition("-")[2]) else f"{file} is damaged (another sha256); remove it"


def load_lpips(net: str, device: str) -> Any:
    """A module that takes two batches, (images, 3, height, width) in 0 to 1, with `normalize=True`, and gives one
    number each. Raises UserError. The weights are read as tensors alone: a file of pickled code is refused by torch."""
    import torch
    from torchmetrics.functional.image.lpips import _NoTrainLpips

    if why := missing(net):
        raise UserError(f"'params.metrics': lpips: {why}")
    # The linear layers come with torchmetrics. Its own way to the backbone is a download that unpickles.
    module = _NoTrainLpips(net=net, pnet_rand=True)  # type: ignore[arg-type]
    weights = torch.load(backbone_file(net), map_location="cpu", weights_only=True)
    module.net.load_state_dict({key: weights[torchvision_key(key)] for key in module.net.state_dict()})
    return module.to(device)


def between(net: str) -> Callable[[Image.Image, Image.Image], float]:
    """LPIPS of two RGB images of one size, on a GPU where there is one."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = load_lpips(net, device)

    def distance(a: Image.Image, b: Image.Image) -> float:
        with torch.inference_mode():
            return float(module(tensor_of([a], device), tensor_of([b], device), normalize=True))

    return distance


def torchvision_key(key: str) -> str:
    """`slice2.3.weight` → `features.3.weight`: torchmetrics cuts torchvision's layers into slices (of SqueezeNet:
    `slices.1.3.weight`) and keeps their numbers."""
    return re.sub(r"^slice(s\.)?\d+\.", "features.", key)
