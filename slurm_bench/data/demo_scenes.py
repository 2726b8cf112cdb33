"""The demo's scenes. Each is a function of what may change in it, so that the reference of an edit is the same
scene with the true change: not only the lamp that turned green, also the car that drove off."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from slurm_bench.data.demo_canvas import (
    BLUE,
    HEIGHT,
    INK,
    ORANGE,
    RED,
    SKIN,
    WHITE,
    WIDTH,
    WOOD,
    YELLOW,
    Canvas,
    Colour,
    shade,
)

_WARM: Colour = (255, 214, 130)
_BARK: Colour = (96, 72, 56)
_LEAVES: Colour = (72, 140, 66)


def house(
    time: str = "day", weather: str = "clear", leaves: Colour | None = _LEAVES, door: Colour = BLUE
) -> Image.Image:
    """A house with a garden. `time`: day, night or sunset; `weather`: clear, snow, rain or fog."""
    snowy = weather == "snow"
    dull = weather != "clear"
    sky = ((168, 184, 200), (206, 214, 222)) if dull else ((112, 172, 226), (204, 230, 246))
    if time == "sunset":
        sky = ((126, 96, 150), (255, 168, 84))
    c = Canvas(*sky)
    if time != "night" and not dull:
        low = time == "sunset"
        c.ellipse(70, 150 if low else 48, 22, 22, (255, 214, 110) if low else (255, 238, 170))
        c.glow(70, 150 if low else 48, 110, (150, 110, 40))
    ground = (236, 240, 246) if snowy else (126, 172, 96)
    c.ellipse(90, 235, 190, 62, shade(ground, 0.86))
    c.ellipse(330, 240, 170, 74, shade(ground, 0.92))
    c.rect(0, 212, WIDTH, 80, ground)
    c.polygon([(196, 216), (222, 216), (268, 288), (176, 288)], (222, 224, 226) if snowy else (204, 186, 152))
    for x in range(8, 132, 16):
        c.rect(x, 208, 7, 30, WHITE if not snowy else (214, 218, 224), 2)
    c.rect(4, 216, 130, 4, (232, 232, 228))
    _tree(c, 58, 214, leaves, snowy)
    _tree(c, 344, 220, leaves, snowy)
    c.rect(262, 62, 18, 44, (150, 84, 70))
    c.rect(144, 128, 156, 90, (240, 222, 190))
    c.polygon([(128, 132), (222, 66), (316, 132)], (242, 246, 250) if snowy else (176, 78, 60))
    c.rect(196, 164, 30, 54, door, 3)
    c.ellipse(220, 192, 2, 2, YELLOW)
    for x in (156, 244):
        _window(c, x, 152, (150, 190, 214))
    if time == "night":
        c.light((0.24, 0.29, 0.46), (2, 4, 14))
        for x, y in ((30, 30), (96, 22), (140, 52), (178, 20), (250, 34), (306, 18), (362, 70), (20, 92), (336, 44)):
            c.ellipse(x, y, 1.2, 1.2, WHITE)
        c.ellipse(62, 56, 17, 17, (244, 240, 214))
        c.glow(62, 56, 90, (60, 60, 70))
        for x in (156, 244):
            _window(c, x, 152, _WARM)
            c.glow(x + 17, 170, 70, (110, 76, 24))
    if time == "sunset":
        c.light((1.0, 0.8, 0.68), (14, 6, 0))
    _weather(c, weather)
    return c.finished()


def street(
    lamp: str = "red",
    car: float = 60,
    paint: Colour = BLUE,
    weather: str = "clear",
    time: str = "day",
    walker: float = 318,
) -> Image.Image:
    """A crossing with a traffic light, a car (its left end at `car`) and someone on foot (at `walker`)."""
    wet = weather in ("rain", "snow")
    c = Canvas((176, 190, 204) if weather != "clear" else (140, 188, 230), (222, 228, 232))
    for x, width, top, colour in (
        (0, 84, 62, (196, 150, 122)),
        (84, 66, 92, (214, 198, 168)),
        (150, 96, 48, (170, 176, 186)),
        (246, 70, 84, (204, 168, 140)),
        (316, 70, 56, (184, 170, 178)),
    ):
        c.rect(x, top, width, 150, colour)
        for row in range(top + 12, 168, 24):
            for column in range(x + 10, x + width - 12, 20):
                c.rect(column, row, 10, 13, (122, 148, 170))
    c.rect(0, 186, WIDTH, 14, (188, 184, 178))
    c.rect(0, 200, WIDTH, 88, (84, 88, 96) if wet else (108, 108, 112))
    for x in range(248, 372, 22):
        c.polygon([(x, 204), (x + 11, 204), (x + 2, 284), (x - 14, 284)], (232, 232, 230))
    if wet:
        for x, y in ((60, 268), (190, 276), (150, 222)):
            c.ellipse(x, y, 40, 5, (134, 146, 160))
    c.rect(233, 74, 5, 126, INK)
    c.rect(223, 60, 25, 62, INK, 5)
    for y, name, colour in ((72, "red", (232, 48, 40)), (91, "amber", (244, 184, 40)), (110, "green", (60, 200, 90))):
        c.ellipse(235.5, y, 7.5, 7.5, colour if lamp == name else (74, 70, 74))
    _person(c, walker, 206, (108, 84, 140), umbrella=RED if wet else None, scale=0.8)
    _car(c, car, 258, paint)
    if time == "night":
        c.light((0.26, 0.3, 0.46), (2, 4, 12))
        c.ellipse(235.5, 72 if lamp == "red" else 110, 7.5, 7.5, (240, 60, 50) if lamp == "red" else (70, 220, 100))
        c.glow(car + 118, 244, 90, (200, 180, 110))
        for x, y in ((10, 98), (94, 128), (160, 84), (200, 132), (256, 120), (346, 92), (30, 146), (346, 140)):
            c.rect(x, y, 10, 13, _WARM)
    _weather(c, weather)
    return c.finished()


def still_life(objects: Sequence[tuple[str, float, float, Colour]], lamp: str = "none") -> Image.Image:
    """Balls and blocks on a table: (kind, x, size, colour). `lamp`: none, on or off."""
    c = Canvas((226, 218, 204), (214, 204, 188))
    _table(c)
    for kind, x, size, colour in objects:
        (c.ball if kind == "ball" else c.block)(x, 232, size, colour)
    if lamp != "none":
        c.rect(318, 120, 4, 112, INK)
        c.ellipse(320, 233, 26, 6, INK)
        c.polygon([(296, 122), (344, 122), (334, 82), (306, 82)], (238, 220, 170) if lamp == "on" else (150, 140, 122))
        if lamp == "on":
            c.glow(320, 130, 170, (120, 92, 36))
        else:
            c.light((0.4, 0.4, 0.47))
    return c.finished()


def ice(melted: bool = False) -> Image.Image:
    """Three ice cubes on a plate, or the water that they became."""
    c = Canvas((206, 222, 222), (190, 208, 210))
    _table(c)
    c.ellipse(192, 236, 132, 30, (96, 128, 168))
    c.ellipse(192, 232, 124, 25, (122, 156, 194))
    if melted:
        c.ellipse(192, 232, 98, 16, (176, 212, 236))
        c.ellipse(178, 229, 60, 7, (206, 230, 244))
    else:
        for x, ground, side in ((122, 236, 46), (196, 240, 50), (166, 192, 44)):
            c.block(x, ground, side, (238, 246, 250))
            c.rect(x + 6, ground - side + 6, 9, side * 0.5, WHITE, 3)
    return c.finished()


def candle(burning: bool = True) -> Image.Image:
    """A candle and a book in a room that has no other light."""
    c = Canvas((150, 126, 108), (132, 108, 92))
    _table(c)
    top = 128 if burning else 196
    c.rect(178, top, 30, 236 - top, (244, 236, 214), 4)
    c.ellipse(193, 237, 34, 8, (176, 140, 70))
    c.line([(193, top), (193, top - 9)], INK, 2)
    c.polygon([(252, 236), (330, 236), (338, 222), (262, 222)], (142, 52, 56))
    c.polygon([(256, 233), (328, 233), (334, 224), (264, 224)], (240, 232, 214))
    if burning:
        c.ellipse(193, top - 19, 6, 13, (255, 190, 60))
        c.ellipse(193, top - 15, 3, 7, (255, 246, 200))
        c.glow(193, top - 16, 190, (190, 130, 50))
    else:
        c.light((0.34, 0.35, 0.44))
        c.line([(193, top - 10), (187, top - 34), (197, top - 58), (190, top - 84)], (96, 96, 106), 2)
    return c.finished()


def party(
    shirts: Sequence[Colour | None],
    hats: Sequence[Colour | None] = (),
    lanterns: str = "none",
    beards: Sequence[int] = (),
) -> Image.Image:
    """People side by side before a wall; None is someone who isn't there. `lanterns`: none, off or lit."""
    c = Canvas((224, 214, 200), (232, 224, 210))
    c.rect(0, 226, WIDTH, 62, (178, 150, 124))
    c.rect(0, 222, WIDTH, 5, (150, 124, 100))
    step = WIDTH / (len(shirts) + 1)
    for place, shirt in enumerate(shirts):
        if shirt is not None:
            hat = hats[place] if place < len(hats) else None
            _person(c, step * (place + 1), 262, shirt, hat=hat, scale=1.5, beard=place in beards)
    if lanterns != "none":
        if lanterns == "lit":
            c.light((0.3, 0.3, 0.44), (4, 4, 12))
        c.line([(0, 24), (96, 34), (192, 38), (288, 34), (384, 24)], INK, 1.5)
        for x, y in ((64, 32), (149, 37), (235, 37), (320, 32)):
            c.ellipse(x, y + 18, 16, 14, (238, 92, 52) if lanterns == "lit" else (196, 74, 54))
            c.rect(x - 7, y + 2, 14, 4, (214, 170, 70))
            c.rect(x - 7, y + 30, 14, 4, (214, 170, 70))
            if lanterns == "lit":
                c.glow(x, y + 18, 80, (190, 96, 40))
    return c.finished()


def park(
    ground: Colour = (122, 176, 92), leaves: Colour | None = _LEAVES, snowy: bool = False, walker: bool = True
) -> Image.Image:
    """Two trees, a bench and a path."""
    c = Canvas((142, 190, 230), (220, 236, 244))
    c.ellipse(110, 200, 180, 46, shade(ground, 0.86))
    c.ellipse(320, 204, 150, 40, shade(ground, 0.92))
    c.rect(0, 190, WIDTH, 98, ground)
    c.polygon([(0, 262), (384, 236), (384, 258), (0, 288)], (226, 228, 232) if snowy else (214, 194, 158))
    _tree(c, 76, 222, leaves, snowy, 1.35)
    _tree(c, 318, 214, leaves, snowy, 1.2)
    for x in (160, 218):
        c.rect(x, 214, 4, 24, INK)
    c.rect(152, 212, 80, 5, WOOD)
    c.rect(152, 198, 80, 5, WOOD)
    if walker:
        _person(c, 262, 262, BLUE if snowy else ORANGE, hat=RED if snowy else None, scale=0.9)
    return c.finished()


def signs(colours: Sequence[Colour | None]) -> Image.Image:
    """Road signs side by side, each a disc on a pole with an arrow; None is a place left empty."""
    c = Canvas((150, 196, 232), (226, 238, 246))
    c.rect(0, 220, WIDTH, 68, (132, 172, 104))
    step = WIDTH / (len(colours) + 1)
    for place, colour in enumerate(colours):
        if colour is None:
            continue
        x = step * (place + 1)
        c.rect(x - 3, 130, 6, 104, (128, 132, 138))
        c.ellipse(x, 108, 36, 36, WHITE)
        c.ellipse(x, 108, 32, 32, colour)
        c.line([(x - 16, 108), (x + 10, 108)], WHITE, 6)
        c.polygon([(x + 6, 95), (x + 22, 108), (x + 6, 121)], WHITE)
    return c.finished()


def _weather(c: Canvas, weather: str) -> None:
    if weather == "snow":
        c.flakes(7)
    elif weather == "rain":
        c.light((0.72, 0.76, 0.82))
        c.streaks(7)
    elif weather == "fog":
        c.veil((218, 222, 226), 0.85, 0.35)


def _table(c: Canvas) -> None:
    c.gradient((0, 196, WIDTH, HEIGHT), (186, 146, 108), (164, 122, 84))
    c.rect(0, 194, WIDTH, 3, (142, 106, 74))


def _window(c: Canvas, x: float, y: float, pane: Colour) -> None:
    c.rect(x - 3, y - 3, 40, 40, WHITE)
    c.rect(x, y, 34, 34, pane)
    c.rect(x + 15.5, y, 3, 34, WHITE)
    c.rect(x, y + 15.5, 34, 3, WHITE)


def _tree(c: Canvas, x: float, ground: float, leaves: Colour | None, snowy: bool, scale: float = 1.0) -> None:
    s = scale
    c.rect(x - 5 * s, ground - 56 * s, 10 * s, 60 * s, _BARK)
    for dx, dy in ((-26, -104), (24, -108), (-12, -124), (12, -128)):
        c.line([(x, ground - 50 * s), (x + dx * s, ground + dy * s)], _BARK, 3 * s)
    if leaves is None:
        return
    for dx, dy, r, light in ((-22, -84, 26, 0.9), (22, -86, 27, 0.95), (0, -110, 30, 1.0), (-6, -90, 24, 1.1)):
        c.ellipse(x + dx * s, ground + dy * s, r * s, r * s, shade(leaves, light))
    if snowy:
        for dx, dy, r in ((-22, -102, 20), (20, -106, 20), (0, -130, 22)):
            c.ellipse(x + dx * s, ground + dy * s, r * s, r * 0.5 * s, (240, 244, 248))


def _car(c: Canvas, x: float, ground: float, paint: Colour) -> None:
    c.ellipse(x + 60, ground + 2, 66, 6, (70, 70, 76))
    c.polygon(
        [(x + 22, ground - 34), (x + 38, ground - 58), (x + 82, ground - 58), (x + 100, ground - 34)], shade(paint, 0.9)
    )
    c.polygon(
        [(x + 30, ground - 35), (x + 42, ground - 53), (x + 58, ground - 53), (x + 58, ground - 35)], (206, 222, 232)
    )
    c.polygon(
        [(x + 63, ground - 35), (x + 63, ground - 53), (x + 79, ground - 53), (x + 91, ground - 35)], (206, 222, 232)
    )
    c.rect(x, ground - 37, 122, 28, paint, 9)
    c.ellipse(x + 118, ground - 25, 4, 5, (255, 240, 190))
    for wheel in (x + 28, x + 94):
        c.ellipse(wheel, ground - 8, 13, 13, INK)
        c.ellipse(wheel, ground - 8, 6, 6, (176, 178, 184))


def _person(
    c: Canvas,
    x: float,
    ground: float,
    shirt: Colour,
    hat: Colour | None = None,
    umbrella: Colour | None = None,
    scale: float = 1.0,
    beard: bool = False,
) -> None:
    s = scale
    c.ellipse(x, ground + 1, 20 * s, 3 * s, (140, 122, 108))
    for side in (-1, 1):
        c.line([(x + side * 6 * s, ground - 36 * s), (x + side * 7 * s, ground)], (62, 68, 92), 8 * s)
        c.line([(x + side * 13 * s, ground - 72 * s), (x + side * 19 * s, ground - 40 * s)], shade(shirt, 0.88), 7 * s)
        c.ellipse(x + side * 19 * s, ground - 38 * s, 4 * s, 4 * s, SKIN)
    c.rect(x - 15 * s, ground - 80 * s, 30 * s, 48 * s, shirt, 9 * s)
    c.ellipse(x, ground - 94 * s, 14 * s, 15 * s, SKIN)
    if beard:
        c.ellipse(x, ground - 84 * s, 12 * s, 12 * s, (244, 244, 242))
        c.ellipse(x, ground - 92 * s, 9 * s, 5 * s, SKIN)
    c.polygon(
        [
            (x - 14 * s, ground - 96 * s),
            (x - 12 * s, ground - 108 * s),
            (x, ground - 112 * s),
            (x + 12 * s, ground - 108 * s),
            (x + 14 * s, ground - 96 * s),
            (x, ground - 103 * s),
        ],
        (84, 60, 48),
    )
    for side in (-1, 1):
        c.ellipse(x + side * 5 * s, ground - 95 * s, 1.6 * s, 1.9 * s, INK)
    c.arc(x, ground - 91 * s, 5 * s, 20, 160, (160, 84, 76))
    if hat is not None:
        c.polygon([(x - 15 * s, ground - 102 * s), (x + 15 * s, ground - 102 * s), (x + 5 * s, ground - 132 * s)], hat)
        c.rect(x - 17 * s, ground - 106 * s, 34 * s, 7 * s, WHITE, 3 * s)
        c.ellipse(x + 5 * s, ground - 132 * s, 4 * s, 4 * s, WHITE)
    if umbrella is not None:
        c.line([(x + 18 * s, ground - 40 * s), (x + 18 * s, ground - 132 * s)], INK, 2 * s)
        c.polygon(
            [
                (x - 22 * s, ground - 118 * s),
                (x - 6 * s, ground - 138 * s),
                (x + 18 * s, ground - 146 * s),
                (x + 42 * s, ground - 138 * s),
                (x + 58 * s, ground - 118 * s),
            ],
            umbrella,
        )
