"""What the demo's scenes are drawn with: a small canvas, smooth edges, no fonts, and no chance but a fixed one."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence

from PIL import Image, ImageChops, ImageDraw, ImageFilter

WIDTH, HEIGHT = 384, 288
_FINE = 2

Colour = tuple[int, int, int]

INK: Colour = (52, 48, 56)
WHITE: Colour = (250, 250, 248)
RED: Colour = (206, 52, 46)
GREEN: Colour = (64, 152, 72)
BLUE: Colour = (56, 108, 200)
YELLOW: Colour = (240, 200, 50)
ORANGE: Colour = (232, 132, 40)
PURPLE: Colour = (132, 72, 176)
SKIN: Colour = (226, 180, 148)
WOOD: Colour = (150, 104, 66)


def shade(colour: Colour, factor: float) -> Colour:
    """Darker below 1, lighter above."""
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return red, green, blue


class Canvas:
    """Drawn at twice the size and reduced. Coordinates are in pixels of the finished image."""

    def __init__(self, top: Colour, bottom: Colour) -> None:
        self.image = Image.new("RGB", (WIDTH * _FINE, HEIGHT * _FINE))
        self._begin()
        self.gradient((0, 0, WIDTH, HEIGHT), top, bottom)

    def _begin(self) -> None:
        self.draw = ImageDraw.Draw(self.image)

    def gradient(self, box: Sequence[float], top: Colour, bottom: Colour) -> None:
        left, upper, right, lower = (round(value * _FINE) for value in box)
        for y in range(upper, lower):
            part = (y - upper) / max(1, lower - upper - 1)
            mixed = tuple(round(a + (b - a) * part) for a, b in zip(top, bottom, strict=True))
            self.draw.line((left, y, right, y), fill=mixed)

    def rect(self, x: float, y: float, width: float, height: float, colour: Colour, radius: float = 0) -> None:
        box = [value * _FINE for value in (x, y, x + width, y + height)]
        self.draw.rounded_rectangle(box, radius * _FINE, fill=colour)

    def ellipse(self, x: float, y: float, across: float, down: float, colour: Colour) -> None:
        """Around its centre (x, y), by its two radii."""
        self.draw.ellipse([value * _FINE for value in (x - across, y - down, x + across, y + down)], fill=colour)

    def polygon(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        self.draw.polygon([(x * _FINE, y * _FINE) for x, y in points], fill=colour)

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, width: float = 2) -> None:
        self.draw.line(
            [(x * _FINE, y * _FINE) for x, y in points], fill=colour, width=round(width * _FINE), joint="curve"
        )

    def arc(self, x: float, y: float, radius: float, start: float, end: float, colour: Colour) -> None:
        box = [value * _FINE for value in (x - radius, y - radius, x + radius, y + radius)]
        self.draw.arc(box, start, end, fill=colour, width=2 * _FINE)

    def ball(self, x: float, ground: float, radius: float, colour: Colour) -> None:
        """A sphere on the ground, lit from the upper left, with its shadow."""
        self.ellipse(x + radius * 0.25, ground, radius, radius * 0.22, (150, 122, 96))
        for step in range(24):
            part = step / 24
            size = radius * (1 - part * 0.9)
            self.ellipse(
                x - radius * 0.28 * part,
                ground - radius - radius * 0.3 * part,
                size,
                size,
                shade(colour, 0.72 + 0.5 * part),
            )

    def block(self, x: float, ground: float, side: float, colour: Colour) -> None:
        """A cube on the ground, its front's left edge at x, with its shadow."""
        slant = side * 0.28
        floor = (150, 122, 96)
        self.polygon(
            [(x, ground), (x + side, ground), (x + side + slant * 1.6, ground - 2), (x + side, ground + 7)], floor
        )
        self.rect(x, ground - side, side, side, colour)
        top = ground - side
        self.polygon(
            [(x, top), (x + slant, top - slant), (x + side + slant, top - slant), (x + side, top)], shade(colour, 1.18)
        )
        right = x + side
        self.polygon(
            [(right, top), (right + slant, top - slant), (right + slant, ground - slant), (right, ground)],
            shade(colour, 0.76),
        )

    def glow(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Light added around a point."""
        layer = Image.new("RGB", self.image.size)
        box = [value * _FINE for value in (x - radius / 2, y - radius / 2, x + radius / 2, y + radius / 2)]
        ImageDraw.Draw(layer).ellipse(box, fill=colour)
        small = layer.reduce(8).filter(ImageFilter.GaussianBlur(radius * _FINE / 8 / 3))
        self.image = ImageChops.screen(self.image, small.resize(self.image.size, Image.Resampling.BILINEAR))
        self._begin()

    def light(self, factors: tuple[float, float, float], added: Colour = (0, 0, 0)) -> None:
        """All that is drawn so far, under another light."""
        bands = [
            band.point([min(255, round(level * factor + plus)) for level in range(256)])
            for band, factor, plus in zip(self.image.split(), factors, added, strict=True)
        ]
        self.image = Image.merge("RGB", bands)
        self._begin()

    def veil(self, colour: Colour, top: float, bottom: float) -> None:
        """Fog: a veil whose density goes from `top` to `bottom`."""
        column = Image.new("L", (1, HEIGHT))
        column.putdata([round(255 * (top + (bottom - top) * y / HEIGHT)) for y in range(HEIGHT)])
        self.image.paste(colour, (0, 0), column.resize(self.image.size))

    def flakes(self, seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(260):
            size = rng.uniform(0.8, 2.4)
            self.ellipse(rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT), size, size, WHITE)

    def streaks(self, seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(220):
            x, y, length = rng.uniform(0, WIDTH + 20), rng.uniform(-10, HEIGHT), rng.uniform(8, 18)
            self.line([(x, y), (x - length / 4, y + length)], (176, 188, 202), 0.7)

    def finished(self) -> Image.Image:
        return self.image.reduce(_FINE)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
