"""What of a sample goes into a pipeline's call: its images, its prompt, its size, its seed."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from PIL import Image

from slurm_bench.editors.diffusers_pipeline.families import Family

PLACEHOLDERS = ("{instruction}", "{json}", "{images}")


def prompt_of(instruction: str, count: int, template: str, family: Family) -> str:
    """The template, filled in. What an instruction says between braces stays as it is."""
    values = {
        "{instruction}": instruction,
        "{json}": json.dumps(instruction, ensure_ascii=False),
        "{images}": "".join(family.image_tag.replace("{n}", str(n + 1)) for n in range(count)),
    }
    return re.sub("|".join(map(re.escape, PLACEHOLDERS)), lambda found: values[found[0]], template)


def size_like(width: int, height: int, min_pixels: int, max_pixels: int, multiple: int) -> tuple[int, int]:
    """The size nearest to width × height, in its aspect, whose area is within the bounds and whose sides are
    multiples. `max_pixels` is exceeded only by an image so thin that a side would be less than one multiple."""
    area = min(max(width * height, min(min_pixels, max_pixels)), max_pixels)
    exact = [side * math.sqrt(area / (width * height)) / multiple for side in (width, height)]
    lower, upper = ([max(1, rounded(side)) for side in exact] for rounded in (math.floor, math.ceil))
    sizes = {(w * multiple, h * multiple) for w in (lower[0], upper[0]) for h in (lower[1], upper[1])}
    fitting = [size for size in sizes if size[0] * size[1] <= max_pixels] or [
        (lower[0] * multiple, lower[1] * multiple)
    ]
    return min(
        fitting, key=lambda size: (abs(math.log(size[0] * height / (size[1] * width))), abs(size[0] * size[1] - area))
    )


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


@contextmanager
def seeded(seed: int, device: str) -> Iterator[Any]:
    """A generator of the seed, drawn on the CPU so that it means the same on any GPU. Some pipelines also draw from
    torch's own, numpy's or Python's (a prompt written anew, a scheduler's noise): these are seeded, and put back."""
    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([torch.device(device)] if device != "cpu" else []):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield torch.Generator().manual_seed(seed)
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def chance(device: str) -> tuple[Any, ...]:
    """Where the global generators stand: who compares two sees whether something drew from them in between."""
    import numpy as np
    import torch

    states = [torch.get_rng_state()] + ([] if device == "cpu" else [torch.cuda.get_rng_state(device)])
    return random.getstate(), str(np.random.get_state()), *(state.numpy().tobytes() for state in states)


def images_argument(images: Sequence[Image.Image], family: Family) -> Any:
    return list(images) if len(images) > 1 or family.as_list else images[0]
