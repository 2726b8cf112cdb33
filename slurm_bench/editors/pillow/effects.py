"""The Pillow editor's effects: each takes an RGB image and gives one of the same size.

All chance comes from the seed. Arrays are (height, width, 3), floats from 0 to 255.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from slurm_bench.errors import SampleError

if TYPE_CHECKING:
    import numpy as np

# Hue of 256; None stands for the colours that have none.
COLOURS: dict[str, int | None] = {
    "red": 0,
    "orange": 18,
    "yellow": 36,
    "green": 82,
    "blue": 152,
    "purple": 195,
    "pink": 232,
    "white": None,
    "black": None,
}
_HUE_WIDTH = {"orange": 9, "yellow": 11, "green": 32, "blue": 26, "purple": 16}


def select(image: Image.Image, place: str | None, colour: str | None) -> np.ndarray:
    """The pixels (height, width, bool) of the colour, or else of what stands out from the rows' margins; of
    these, the left, middle or right of the groups that empty columns part. Raises SampleError if there is none."""
    mask = _of_colour(image, colour) if colour else _standing_out(image)
    groups = _column_groups(mask)
    if place is not None and groups:
        start, end = groups[{"left": 0, "middle": len(groups) // 2, "right": -1}[place]]
        mask[:, :start] = False
        mask[:, end:] = False
    if not groups:
        raise SampleError(f"there is nothing {colour or 'that stands out'} in the image")
    return mask


def remove(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """Each row of the selection is filled from the pixels on its left and right."""
    import numpy as np

    grown = np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MaxFilter(7))) > 0
    filled = _array(image).copy()
    columns = np.arange(image.width)
    for row, hidden in zip(filled, grown, strict=True):
        if hidden.any() and not hidden.all():
            for channel in range(3):
                row[hidden, channel] = np.interp(columns[hidden], columns[~hidden], row[~hidden, channel])
    return _image(filled)


def recolour(image: Image.Image, mask: np.ndarray, colour: str) -> Image.Image:
    """The selection in another colour, its light and shade kept."""
    import numpy as np

    hsv = np.array(image.convert("HSV"))
    hue, saturation, value = (channel.copy() for channel in np.moveaxis(hsv, 2, 0))
    if COLOURS[colour] is None:
        saturation[mask] = 0
        value[mask] = value[mask] // 5 if colour == "black" else 150 + value[mask] * 0.4
    else:
        hue[mask] = COLOURS[colour]
        brightest = max(1.0, float(np.percentile(value[mask], 95)))
        value[mask] = np.minimum(255, value[mask] * max(1.0, 220 / brightest))
        saturation[mask] = np.maximum(saturation[mask], 150)
    painted = Image.merge("HSV", [Image.fromarray(channel) for channel in (hue, saturation, value)]).convert("RGB")
    soft = Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(3))
    return Image.composite(painted, image, soft.filter(ImageFilter.GaussianBlur(0.7)))


def black_and_white(image: Image.Image, seed: int) -> Image.Image:
    return image.convert("L").convert("RGB")


def brighten(image: Image.Image, seed: int) -> Image.Image:
    return _image(255 * (_array(image) / 255) ** 0.6)


def darken(image: Image.Image, seed: int) -> Image.Image:
    return _image(_array(image) * (0.45, 0.45, 0.5))


def night(image: Image.Image, seed: int) -> Image.Image:
    """Dark and blue."""
    pixels = _array(image)
    grey = pixels.mean(axis=2, keepdims=True)
    return _image((0.6 * pixels + 0.4 * grey) * (0.26, 0.31, 0.5) + (4, 6, 16))


def sunset(image: Image.Image, seed: int) -> Image.Image:
    """Warm light, strongest above the horizon."""
    import numpy as np

    pixels = _array(image)
    height = len(pixels)
    glow = np.interp(np.arange(height), [0, height * 0.5, height], [0.25, 0.6, 0.1])[:, None, None]
    warm = pixels * (0.95, 0.75, 0.62)
    return _image(warm * (1 - glow * 0.7) + np.array((255, 140, 60)) * glow * 0.7)


def fog(image: Image.Image, seed: int) -> Image.Image:
    """Thick above, thinner below, where things are nearer."""
    import numpy as np

    pixels = _array(image)
    density = np.linspace(0.8, 0.4, len(pixels))[:, None, None]
    return _image(pixels * (1 - density) + np.array((216, 220, 224)) * density)


def snow(image: Image.Image, seed: int) -> Image.Image:
    """A cold light and flakes of three sizes."""
    pixels = _array(image)
    cold = _image(pixels * 0.75 + (58, 62, 68))
    layer = Image.new("L", image.size)
    draw = ImageDraw.Draw(layer)
    unit = max(image.size) / 384
    for x, y, size in _drops(image, seed, 320):
        radius = unit * (0.8 + 1.6 * size)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=235)
    return Image.composite(
        Image.new("RGB", image.size, "white"), cold, layer.filter(ImageFilter.GaussianBlur(unit / 2))
    )


def rain(image: Image.Image, seed: int) -> Image.Image:
    """A grey light and slanting streaks."""
    pixels = _array(image)
    grey = pixels.mean(axis=2, keepdims=True)
    dull = _image((0.55 * pixels + 0.45 * grey) * (0.68, 0.72, 0.78))
    layer = Image.new("L", image.size)
    draw = ImageDraw.Draw(layer)
    unit = max(image.size) / 384
    for x, y, size in _drops(image, seed, 260):
        length = unit * (8 + 12 * size)
        draw.line((x, y, x - length * 0.25, y + length), fill=int(90 + 80 * size), width=max(1, round(unit)))
    return ImageChops.screen(dull, Image.merge("RGB", [layer] * 3))


def _drops(image: Image.Image, seed: int, count: int) -> list[tuple[float, float, float]]:
    """x, y in pixels and a size 0 … 1 each."""
    import numpy as np

    rng = np.random.Generator(np.random.PCG64(seed))
    drops = rng.random((count, 3)) * (image.width, image.height, 1)
    return [(float(x), float(y), float(size)) for x, y, size in drops]


def _of_colour(image: Image.Image, colour: str) -> np.ndarray:
    import numpy as np

    hue, saturation, value = np.moveaxis(np.array(image.convert("HSV")).astype(np.int16), 2, 0)
    if colour == "white":
        return (saturation < 20) & (value > 228)
    if colour == "black":
        return value < 50
    distance = abs((hue - COLOURS[colour] + 128) % 256 - 128)
    return (distance <= _HUE_WIDTH.get(colour, 10)) & (saturation > 100) & (value > 60)


def _standing_out(image: Image.Image) -> np.ndarray:
    """What differs from both the row's left and its right margin."""
    import numpy as np

    pixels = _array(image)
    margin = max(1, image.width // 32)
    margins = (np.median(part, axis=1, keepdims=True) for part in (pixels[:, :margin], pixels[:, -margin:]))
    return np.logical_and(*(abs(pixels - side).max(axis=2) > 28 for side in margins))


def _column_groups(mask: np.ndarray) -> list[tuple[int, int]]:
    """[start, end) of each run of columns with selected pixels, runs narrower than a hundredth left out."""
    import numpy as np

    filled = np.concatenate(([0], mask.any(axis=0).astype(np.int8), [0]))
    edges = np.flatnonzero(np.diff(filled))
    pairs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return [(start, end) for start, end in pairs if end - start > mask.shape[1] / 100]


def _array(image: Image.Image) -> np.ndarray:
    import numpy as np

    return np.asarray(image, dtype=np.float32)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray((pixels.clip(0, 255) + 0.5).astype("uint8"))
