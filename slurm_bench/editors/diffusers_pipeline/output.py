"""From whatever a pipeline gives to the one edited image."""

from __future__ import annotations

from typing import Any

from PIL import Image

from slurm_bench.errors import SampleError


def edited_image(output: Any) -> Image.Image:
    """The image of `.images`, the last frame of `.frames` (an edit by video ends in it), or the output's first part.
    Raises SampleError if that isn't one image of finite numbers."""
    if any(getattr(output, "nsfw_content_detected", None) or ()):
        raise SampleError("the pipeline's safety checker withheld the image")
    if getattr(output, "images", None) is not None:
        return _image(_only(output.images))
    if getattr(output, "frames", None) is not None:
        return _image(_only(output.frames)[-1])
    if isinstance(output, Image.Image) or hasattr(output, "shape"):
        return _image(output)
    try:
        return _image(_only(output[0]))
    except (TypeError, LookupError):
        raise SampleError(f"the pipeline gave a {type(output).__name__} without an image") from None


def edited_images(output: Any, count: int) -> list[Image.Image]:
    """The images of a call for several samples. Raises SampleError where one of them has none."""
    if any(getattr(output, "nsfw_content_detected", None) or ()) or len(output.images) != count:
        raise SampleError(f"the pipeline gave no image for each of {count} samples")
    return [_image(each) for each in output.images]


def _only(batch: Any) -> Any:
    if isinstance(batch, Image.Image):
        return batch
    if len(batch) != 1:
        raise SampleError(f"the pipeline gave {len(batch)} images for one sample")
    return batch[0]


def _image(value: Any) -> Image.Image:
    """An image, an array of height × width × bands or a tensor of bands × height × width: 0 to 1, or bytes."""
    if isinstance(value, Image.Image):
        return value
    import numpy as np
    import torch

    array = value.detach().float().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.ndim == 3 and isinstance(value, torch.Tensor):
        array = array.transpose(1, 2, 0)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise SampleError(f"the pipeline gave numbers of shape {array.shape}, not an image")
    if not np.isfinite(array).all():
        raise SampleError("the model gave infinite or undefined pixels")
    if array.dtype != np.uint8:
        array = (array.clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)
