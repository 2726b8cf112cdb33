"""Our own way through the VAEs, against diffusers'."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch

from slurm_bench.editors.qwen.random_weights import randomize_norms_and_biases
from slurm_bench.editors.qwen.stock import to_picture
from slurm_bench.editors.qwen.vae import see_one_frame
from slurm_bench.errors import SampleError

GPU = torch.cuda.is_available()
EDIT = ("AutoencoderKLQwenImage", {"base_dim": 8}, (3, 16, 8))  # channels of a picture and of latents, pixels a latent
NEWEST = ("AutoencoderKLQwenImage21", {"base_dim": 8, "decoder_base_dim": 12}, (4, 64, 16))


def both(name: str, sizes: dict[str, Any]) -> tuple[Any, Any]:
    """Its channels are the published VAE's, but narrower."""
    if not hasattr(diffusers, name):
        pytest.skip("this diffusers has no Qwen-Image-2.1")
    torch.manual_seed(0)
    stock = getattr(diffusers, name)(**sizes).eval().requires_grad_(False)
    randomize_norms_and_biases(stock)
    stock = stock.to("cuda" if GPU else "cpu")
    ours = deepcopy(stock)
    see_one_frame(ours)
    return stock, ours


@pytest.mark.parametrize(("name", "sizes", "shape"), [EDIT, NEWEST])
def test_pictures_and_latents_are_the_stock_ones(name: str, sizes: dict[str, Any], shape: tuple[int, ...]) -> None:
    bands, channels, side = shape
    stock, ours = both(name, sizes)
    pixels = 2 * torch.rand(2, bands, 1, 96, 160, device=stock.device) - 1
    latents = torch.randn(2, channels, 1, 96 // side, 160 // side, device=stock.device)
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        encoded = [vae.encode(pixels).latent_dist.mode() for vae in (stock, ours)]
        decoded = [vae.decode(latents, return_dict=False)[0] for vae in (stock, ours)]
    for expected, found in (encoded, decoded):
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 1e-4 * expected.std()


def test_several_frames_are_refused() -> None:
    _, ours = both(*EDIT[:2])
    with pytest.raises(ValueError, match="unpack"):
        ours.encoder(torch.zeros(1, 3, 4, 32, 32, device=ours.device))


@pytest.mark.skipif(not GPU, reason="rounding on a GPU")
@pytest.mark.parametrize(("name", "sizes", "shape"), [EDIT, NEWEST])
def test_it_rounds_no_worse_than_the_stock_one(name: str, sizes: dict[str, Any], shape: tuple[int, ...]) -> None:
    _, channels, side = shape
    exact, _ = both(name, sizes)
    latents = torch.randn(1, channels, 1, 512 // side, 512 // side, device="cuda")
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = exact.decode(latents, return_dict=False)[0]
        stock = exact.bfloat16()
        ours = deepcopy(stock)
        see_one_frame(ours)
        errors = [(vae.decode(latents.bfloat16(), return_dict=False)[0] - expected).norm() for vae in (stock, ours)]
    assert errors[1] < 1.05 * errors[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_a_vae_could_not_compute_is_no_picture(value: float) -> None:
    """Of latents that are whole: it would have been black, or white."""
    processor = diffusers.image_processor.VaeImageProcessor()
    decoded = torch.zeros(1, 3, 4, 6)
    assert to_picture(SimpleNamespace(image_processor=processor), decoded).getpixel((5, 3)) == (128, 128, 128)
    decoded[0, 1, 3, 5] = value
    with pytest.raises(SampleError, match="infinite or undefined"):
        to_picture(SimpleNamespace(image_processor=processor), decoded)
