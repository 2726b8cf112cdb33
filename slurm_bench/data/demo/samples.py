"""The demo's samples: drawn by the code beside, so that a run needs no download and every reference is true.

What each asks is in PillowEditor's vocabulary; what each means is often more, so that an edit can be partly right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image, ImageOps

from slurm_bench.config import DataConfig
from slurm_bench.data.demo import scenes
from slurm_bench.data.demo.canvas import BLUE, GREEN, ORANGE, PURPLE, RED, WHITE, YELLOW, png
from slurm_bench.data.item import Item

Draw = Callable[[], Image.Image]

_TOYS = (("ball", 84.0, 34.0, RED), ("block", 170.0, 52.0, YELLOW), ("ball", 312.0, 30.0, BLUE))
_BALLS = (("ball", 84.0, 32.0, GREEN), ("ball", 194.0, 32.0, RED), ("ball", 304.0, 32.0, PURPLE))
_FRUIT = (("ball", 90.0, 34.0, GREEN), ("ball", 180.0, 36.0, GREEN), ("ball", 276.0, 33.0, GREEN))
_GREY = (96, 96, 104)
_ROOM = (("ball", 96.0, 30.0, ORANGE), ("block", 168.0, 48.0, BLUE))


@dataclass(frozen=True)
class _Sample:
    id: str
    instruction: str
    source: Draw
    reference: Draw
    description: str
    rationale: str


def read_demo(data: DataConfig) -> Iterator[Item]:
    """The same samples, byte for byte, on each call."""
    for category, samples in _SAMPLES.items():
        for sample in samples:
            yield Item(
                id=sample.id,
                category=category,
                instruction=sample.instruction,
                source=png(sample.source()),
                description=sample.description,
                rationale=sample.rationale,
                reference=png(sample.reference()),
            )


def _with(objects: tuple[Any, ...], place: int, *colour: Any) -> tuple[Any, ...]:
    """The objects with the one at `place` in another colour, or without it."""
    changed = [(*objects[place][:3], colour[0])] if colour else []
    return (*objects[:place], *changed, *objects[place + 1 :])


def _mirrored() -> Image.Image:
    return ImageOps.mirror(scenes.still_life(_TOYS))


def _grey() -> Image.Image:
    return scenes.party((RED, BLUE, YELLOW)).convert("L").convert("RGB")


_house, _street, _table, _party = scenes.house, scenes.street, scenes.still_life, scenes.party

_SAMPLES: dict[str, tuple[_Sample, ...]] = {
    "physical": (
        _Sample(
            "mirror-toys", "Mirror the image, as if it were seen in a mirror.",
            partial(_table, _TOYS), _mirrored,
            "A red ball, a yellow block and a blue ball on a wooden table.",
            "A mirror swaps left and right; the light and the shadows are swapped with the rest.",
        ),
        _Sample(
            "lamp-off", "Make the room dark: the lamp has been switched off.",
            partial(_table, _ROOM, "on"), partial(_table, _ROOM, "off"),
            "A table with a ball, a block and a lamp that is on.",
            "Without the lamp the glow around it is gone and all is darker, the shade most.",
        ),
        _Sample(
            "lamp-on", "Brighten the room: the lamp has been switched on.",
            partial(_table, _ROOM, "off"), partial(_table, _ROOM, "on"),
            "A dark room with a ball, a block and a lamp that is off.",
            "The lamp lights what stands near it most, and its shade shines.",
        ),
        _Sample(
            "ball-shadow", "Remove the red ball, and its shadow with it.",
            partial(_table, _TOYS), partial(_table, _with(_TOYS, 0)),
            "A red ball, a yellow block and a blue ball on a wooden table.",
            "What is gone casts no shadow; the table and the wall behind it become visible.",
        ),
        _Sample(
            "ice-melts", "Turn the white ice into blue water.",
            scenes.ice, partial(scenes.ice, melted=True),
            "Three ice cubes on a blue plate.",
            "Molten ice keeps no shape: the cubes become a flat puddle on the plate.",
        ),
    ),
    "environmental": (
        _Sample(
            "house-night", "Make it night.",
            _house, partial(_house, time="night"),
            "A house with a garden on a sunny day.",
            "At night the sky is dark with moon and stars, and the windows are lit from within.",
        ),
        _Sample(
            "house-snow", "Make it snow.",
            _house, partial(_house, weather="snow"),
            "A house with a garden on a sunny day.",
            "Snow also lies on the roof, the ground and the trees; the sky is overcast.",
        ),
        _Sample(
            "house-sunset", "Give the scene the warm light of a sunset.",
            _house, partial(_house, time="sunset"),
            "A house with a garden on a sunny day.",
            "The sun stands low, the sky is orange at the horizon, and all colours are warmer.",
        ),
        _Sample(
            "street-fog", "Add thick fog to the street.",
            _street, partial(_street, weather="fog"),
            "A crossing in a town, with a blue car before a red traffic light.",
            "Fog hides what is far more than what is near.",
        ),
        _Sample(
            "park-autumn", "It is autumn: turn the green leaves orange.",
            scenes.park, partial(scenes.park, ground=(150, 164, 92), leaves=(222, 124, 44)),
            "A park in summer with two trees, a bench and a walker.",
            "In autumn the leaves are orange; the grass fades a little but stays green.",
        ),
    ),
    "social": (
        _Sample(
            "wedding-red", "Turn the white dress red, for a traditional Chinese wedding.",
            partial(_party, (BLUE, WHITE, _GREY), dresses=(1,)), partial(_party, (BLUE, RED, _GREY), dresses=(1,)),
            "Three guests before a wall; the one in the middle wears white.",
            "Red is the colour of luck at a traditional Chinese wedding; white is worn in mourning.",
        ),
        _Sample(
            "lantern-night", "Make it night: the lantern festival begins.",
            partial(_party, (BLUE, ORANGE, GREEN), (), "off"), partial(_party, (BLUE, ORANGE, GREEN), (), "lit"),
            "Three people below a row of red lanterns.",
            "At the festival the lanterns are lit, and they light the night.",
        ),
        _Sample(
            "santa-hat", "Turn the green hat red: one of them plays Santa.",
            partial(_party, (BLUE, RED, BLUE), (None, GREEN, None)),
            partial(_party, (BLUE, RED, BLUE), (None, RED, None), "none", (1,)),
            "Three people; the one in the middle wears a green pointed hat.",
            "Santa's hat is red and white, and he has a white beard.",
        ),
        _Sample(
            "old-photograph", "Make the picture black and white, like a photograph of 1920.",
            partial(_party, (RED, BLUE, YELLOW)), _grey,
            "Three people in red, blue and yellow before a wall.",
            "Family photographs of that time have no colours.",
        ),
        _Sample(
            "left-the-party", "Remove the left person, who has gone home.",
            partial(_party, (PURPLE, GREEN, ORANGE)), partial(_party, (None, GREEN, ORANGE)),
            "Three people in purple, green and orange before a wall.",
            "The other two stay as they are, and the wall shows where the first stood.",
        ),
    ),
    "causal": (
        _Sample(
            "green-light", "Turn the red traffic light green, and show what follows.",
            _street, partial(_street, lamp="green", car=236, walker=350),
            "A crossing in a town, with a blue car before a red traffic light.",
            "When the light turns green the red lamp goes out and the car drives on.",
        ),
        _Sample(
            "street-rain", "Let it rain on the street.",
            _street, partial(_street, weather="rain"),
            "A crossing in a town on a clear day, with someone on foot.",
            "Rain leaves the street dark and with puddles, and people open their umbrellas.",
        ),
        _Sample(
            "candle-out", "Make it dark: the candle has burnt down.",
            scenes.candle, partial(scenes.candle, burning=False),
            "A burning candle and a book in a dim room.",
            "A candle that has burnt down is short and gives no light; a little smoke is left.",
        ),
        _Sample(
            "fruit-ripens", "Turn the green tomatoes red: they have ripened.",
            partial(_table, _FRUIT), partial(_table, tuple((k, x, size, RED) for k, x, size, _ in _FRUIT)),
            "Three green tomatoes on a table.",
            "Ripe tomatoes are red; nothing else changes.",
        ),
        _Sample(
            "street-evening", "Let night fall over the street.",
            _street, partial(_street, time="night"),
            "A crossing in a town by day, with a blue car before a red traffic light.",
            "When night falls people switch on the lights of houses and cars.",
        ),
    ),
    "referential": (
        _Sample(
            "remove-middle", "Remove the middle ball.",
            partial(_table, _BALLS), partial(_table, _with(_BALLS, 1)),
            "A green, a red and a purple ball on a table, side by side.",
            "The middle one is the red ball.",
        ),
        _Sample(
            "paint-left", "Paint the left ball blue.",
            partial(_table, _BALLS), partial(_table, _with(_BALLS, 0, BLUE)),
            "A green, a red and a purple ball on a table, side by side.",
            "The left one is the green ball; its shadow keeps its colour.",
        ),
        _Sample(
            "block-purple", "Turn the yellow block purple.",
            partial(_table, _TOYS), partial(_table, _with(_TOYS, 1, PURPLE)),
            "A red ball, a yellow block and a blue ball on a wooden table.",
            "Only the block is yellow.",
        ),
        _Sample(
            "right-sign", "Paint the right blue sign red.",
            partial(scenes.signs, (BLUE, BLUE, BLUE)), partial(scenes.signs, (BLUE, BLUE, RED)),
            "Three blue road signs with white arrows.",
            "All three are blue; only the one on the right changes, and its arrow stays white.",
        ),
        _Sample(
            "blue-car", "Make the blue car yellow.",
            _street, partial(_street, paint=YELLOW),
            "A crossing in a town, with a blue car before a red traffic light.",
            "The body of the car is yellow; its windows, wheels and lamps stay.",
        ),
    ),
}  # fmt: skip
