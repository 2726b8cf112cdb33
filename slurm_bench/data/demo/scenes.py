"""The demo's scenes. Each is a function of what may change in it, so that the reference of an edit is the same
scene with the true change: not only the lamp that turned green, also the car that drove off."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from slurm_bench.data.demo.canvas import (
    BLUE,
    INK,
    ORANGE,
    RED,
    WHITE,
    WIDTH,
    WOOD,
    YELLOW,
    Canvas,
    Colour,
    shade,
)
from slurm_bench.data.demo.figures import draw_car, draw_person, draw_table, draw_tree, draw_weather, draw_window

_WARM: Colour = (255, 214, 130)
_LEAVES: Colour = (72, 140, 66)


def house(time: str = "day", weather: str = "clear") -> Image.Image:
    """A house with a garden. `time`: day, night or sunset; `weather`: clear, snow, rain or fog."""
    snowy = weather == "snow"
    dull = weather != "clear"
    sky = ((168, 184, 200), (206, 214, 222)) if dull else ((112, 172, 226), (204, 230, 246))
    if time == "sunset":
        sky = ((126, 96, 150), (255, 168, 84))
    c = Canvas(*sky)
    if time != "night" and not dull:
        low = time == "sunset"
        c.ellipse(116 if low else 70, 150 if low else 48, 22, 22, (255, 214, 110) if low else (255, 238, 170))
        c.glow(116 if low else 70, 150 if low else 48, 110, (150, 110, 40))
    ground = (236, 240, 246) if snowy else (126, 172, 96)
    c.ellipse(90, 235, 190, 62, shade(ground, 0.86))
    c.ellipse(330, 240, 170, 74, shade(ground, 0.92))
    c.rect(0, 212, WIDTH, 80, ground)
    c.polygon([(196, 216), (222, 216), (268, 288), (176, 288)], (222, 224, 226) if snowy else (204, 186, 152))
    for x in range(8, 132, 16):
        c.rect(x, 208, 7, 30, WHITE if not snowy else (214, 218, 224), 2)
    c.rect(4, 216, 130, 4, (232, 232, 228))
    draw_tree(c, 58, 214, _LEAVES, snowy)
    draw_tree(c, 344, 220, _LEAVES, snowy)
    c.rect(262, 62, 18, 44, (150, 84, 70))
    c.rect(144, 128, 156, 90, (240, 222, 190))
    c.polygon([(128, 132), (222, 66), (316, 132)], (242, 246, 250) if snowy else (176, 78, 60))
    c.rect(196, 164, 30, 54, BLUE, 3)
    c.ellipse(220, 192, 2, 2, YELLOW)
    for x in (156, 244):
        draw_window(c, x, 152, (150, 190, 214))
    if time == "night":
        c.light((0.24, 0.29, 0.46), (2, 4, 14))
        for x, y in ((30, 30), (96, 22), (140, 52), (178, 20), (250, 34), (306, 18), (362, 70), (20, 92), (336, 44)):
            c.ellipse(x, y, 1.2, 1.2, WHITE)
        c.ellipse(62, 56, 17, 17, (244, 240, 214))
        c.glow(62, 56, 90, (60, 60, 70))
        for x in (156, 244):
            draw_window(c, x, 152, _WARM)
            c.glow(x + 17, 170, 70, (110, 76, 24))
    if time == "sunset":
        c.light((1.0, 0.8, 0.68), (14, 6, 0))
    draw_weather(c, weather)
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
    draw_person(c, walker, 206, (108, 84, 140), umbrella=RED if wet else None, scale=0.8)
    draw_car(c, car, 258, paint)
    if time == "night":
        c.light((0.26, 0.3, 0.46), (2, 4, 12))
        c.ellipse(235.5, 72 if lamp == "red" else 110, 7.5, 7.5, (240, 60, 50) if lamp == "red" else (70, 220, 100))
        c.glow(car + 118, 244, 90, (200, 180, 110))
        for x, y in ((10, 98), (94, 128), (160, 84), (200, 132), (256, 120), (346, 92), (30, 146), (346, 140)):
            c.rect(x, y, 10, 13, _WARM)
    draw_weather(c, weather)
    return c.finished()


def still_life(objects: Sequence[tuple[str, float, float, Colour]], lamp: str = "none") -> Image.Image:
    """Balls and blocks on a table: (kind, x, size, colour). `lamp`: none, on or off."""
    c = Canvas((226, 218, 204), (214, 204, 188))
    draw_table(c)
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
    draw_table(c)
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
    draw_table(c)
    top = 128 if burning else 196
    c.rect(178, top, 30, 236 - top, (244, 236, 214), 4)
    c.ellipse(193, 237, 34, 8, (176, 140, 70))
    c.line([(193, top), (193, top - 9)], INK, 2)
    c.rect(254, 226, 80, 9, (240, 232, 214))
    c.polygon([(252, 226), (334, 226), (346, 212), (266, 212)], (142, 52, 56))
    c.rect(252, 234, 84, 3, (142, 52, 56))
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
    dresses: Sequence[int] = (),
) -> Image.Image:
    """People side by side before a wall; None is someone who isn't there. `lanterns`: none, off or lit."""
    c = Canvas((224, 214, 200), (232, 224, 210))
    c.rect(0, 226, WIDTH, 62, (178, 150, 124))
    c.rect(0, 222, WIDTH, 5, (150, 124, 100))
    step = WIDTH / (len(shirts) + 1)
    for place, shirt in enumerate(shirts):
        if shirt is not None:
            hat = hats[place] if place < len(hats) else None
            draw_person(
                c, step * (place + 1), 262, shirt, hat=hat, scale=1.5, beard=place in beards, dress=place in dresses
            )
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


def park(ground: Colour = (122, 176, 92), leaves: Colour = _LEAVES) -> Image.Image:
    """Two trees, a bench, and someone on foot on a path."""
    c = Canvas((142, 190, 230), (220, 236, 244))
    c.ellipse(110, 200, 180, 46, shade(ground, 0.86))
    c.ellipse(320, 204, 150, 40, shade(ground, 0.92))
    c.rect(0, 190, WIDTH, 98, ground)
    c.polygon([(0, 262), (384, 236), (384, 258), (0, 288)], (214, 194, 158))
    draw_tree(c, 76, 222, leaves, scale=1.35)
    draw_tree(c, 318, 214, leaves, scale=1.2)
    for x in (160, 218):
        c.rect(x, 214, 4, 24, INK)
    c.rect(152, 212, 80, 5, WOOD)
    c.rect(152, 198, 80, 5, WOOD)
    draw_person(c, 262, 262, ORANGE, scale=0.9)
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
