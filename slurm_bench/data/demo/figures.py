"""What stands, walks, drives and falls in the demo's scenes."""

from __future__ import annotations

from slurm_bench.data.demo.canvas import HEIGHT, INK, SKIN, WHITE, WIDTH, Canvas, Colour, shade

BARK: Colour = (96, 72, 56)


def draw_weather(c: Canvas, weather: str) -> None:
    if weather == "snow":
        c.flakes(7)
    elif weather == "rain":
        c.light((0.72, 0.76, 0.82))
        c.streaks(7)
    elif weather == "fog":
        c.veil((218, 222, 226), 0.85, 0.35)


def draw_table(c: Canvas) -> None:
    c.gradient((0, 196, WIDTH, HEIGHT), (186, 146, 108), (164, 122, 84))
    c.rect(0, 194, WIDTH, 3, (142, 106, 74))


def draw_window(c: Canvas, x: float, y: float, pane: Colour) -> None:
    c.rect(x - 3, y - 3, 40, 40, WHITE)
    c.rect(x, y, 34, 34, pane)
    c.rect(x + 15.5, y, 3, 34, WHITE)
    c.rect(x, y + 15.5, 34, 3, WHITE)


def draw_tree(c: Canvas, x: float, ground: float, leaves: Colour, snowy: bool = False, scale: float = 1.0) -> None:
    s = scale
    c.rect(x - 5 * s, ground - 56 * s, 10 * s, 60 * s, BARK)
    for dx, dy in ((-26, -104), (24, -108), (-12, -124), (12, -128)):
        c.line([(x, ground - 50 * s), (x + dx * s, ground + dy * s)], BARK, 3 * s)
    for dx, dy, r, light in ((-22, -84, 26, 0.9), (22, -86, 27, 0.95), (0, -110, 30, 1.0), (-6, -90, 24, 1.1)):
        c.ellipse(x + dx * s, ground + dy * s, r * s, r * s, shade(leaves, light))
    if snowy:
        for dx, dy, r in ((-22, -102, 20), (20, -106, 20), (0, -130, 22)):
            c.ellipse(x + dx * s, ground + dy * s, r * s, r * 0.5 * s, (240, 244, 248))


def draw_car(c: Canvas, x: float, ground: float, paint: Colour) -> None:
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


def draw_person(
    c: Canvas,
    x: float,
    ground: float,
    shirt: Colour,
    hat: Colour | None = None,
    umbrella: Colour | None = None,
    scale: float = 1.0,
    beard: bool = False,
    dress: bool = False,
) -> None:
    s = scale
    c.ellipse(x, ground + 1, 20 * s, 3 * s, (140, 122, 108))
    for side in (-1, 1):
        c.line([(x + side * 6 * s, ground - 36 * s), (x + side * 7 * s, ground)], (62, 68, 92), 8 * s)
        c.line([(x + side * 13 * s, ground - 72 * s), (x + side * 19 * s, ground - 40 * s)], shade(shirt, 0.88), 7 * s)
        c.ellipse(x + side * 19 * s, ground - 38 * s, 4 * s, 4 * s, SKIN)
    c.rect(x - 15 * s, ground - 80 * s, 30 * s, 48 * s, shirt, 9 * s)
    if dress:
        c.polygon(
            [
                (x - 14 * s, ground - 60 * s),
                (x + 14 * s, ground - 60 * s),
                (x + 26 * s, ground - 8 * s),
                (x - 26 * s, ground - 8 * s),
            ],
            shirt,
        )
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
