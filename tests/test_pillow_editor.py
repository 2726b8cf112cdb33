"""The editor without a model: what it does by eye, and that a sample's result is its own."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from slurm_bench.editors.base import EditRequest
from slurm_bench.editors.pillow.editor import PillowEditor
from slurm_bench.errors import SampleError, UserError


def scene(mode: str = "RGB") -> Image.Image:
    """A red, a green and a blue square on grey."""
    image = Image.new("RGB", (120, 60), (150, 150, 150))
    draw = ImageDraw.Draw(image)
    for x, colour in ((10, (210, 30, 30)), (50, (40, 170, 60)), (90, (50, 100, 200))):
        draw.rectangle((x, 20, x + 19, 39), fill=colour)
    return image.convert(mode)


def edit(instruction: str, image: Image.Image | None = None, seed: int = 3, strength: float = 1.0) -> Image.Image:
    (edited,) = PillowEditor(strength).edit([EditRequest("a", instruction, (image or scene(),), seed)])
    if isinstance(edited, Exception):
        raise edited
    return edited


def dominant(image: Image.Image, x: int, y: int = 30) -> str:
    red, green, blue = image.getpixel((x, y))[:3]
    if max(red, green, blue) - min(red, green, blue) < 25:
        return "grey"
    return {red: "red", green: "green", blue: "blue"}[max(red, green, blue)]


def squares(image: Image.Image) -> list[str]:
    return [dominant(image, x) for x in (20, 60, 100)]


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Turn the red square blue.", ["blue", "green", "blue"]),
        ("Change the green one to red", ["red", "red", "blue"]),
        ("paint the leftmost square green", ["green", "green", "blue"]),
        ("Make the right square red", ["red", "green", "red"]),
        ("Paint the middle square white", ["red", "grey", "blue"]),
        ("Remove the middle square", ["red", "grey", "blue"]),
        ("erase the blue square", ["red", "green", "grey"]),
        ("Flip the picture", ["blue", "green", "red"]),
        ("Rotate it by 180 degrees", ["blue", "green", "red"]),
        ("Make it black and white", ["grey", "grey", "grey"]),
        ("Turn the picture black and white", ["grey", "grey", "grey"]),
    ],
)
def test_what_is_named_changes_and_nothing_else(instruction: str, expected: list[str]) -> None:
    assert squares(scene()) == ["red", "green", "blue"]
    edited = edit(instruction)
    assert squares(edited) == expected
    assert dominant(edited, 42, 5) == "grey"


@pytest.mark.parametrize(
    ("instruction", "brighter"),
    [
        ("Make it night", False),
        ("darken it", False),
        ("Add rain", False),
        ("make it brighter", True),
        ("add fog", True),
    ],
)
def test_the_light_goes_the_right_way(instruction: str, brighter: bool) -> None:
    before, after = (np.asarray(image, dtype=float).mean() for image in (scene(), edit(instruction)))
    assert (after > before) == brighter


def test_a_sunset_is_warm_and_snow_is_white() -> None:
    red, _, blue = np.asarray(edit("a warm sunset"), dtype=float).mean(axis=(0, 1))
    assert red > blue + 30
    white = (np.asarray(edit("Let it snow")) > 225).all(axis=2).mean()
    assert 0.005 < white < 0.9


def test_chance_comes_from_the_seed_alone() -> None:
    for instruction in ("make it snow", "make it rain"):
        assert edit(instruction, seed=1).tobytes() == edit(instruction, seed=1).tobytes()
        assert edit(instruction, seed=1).tobytes() != edit(instruction, seed=2**32 - 1).tobytes()


def test_a_sample_is_the_same_in_any_batch() -> None:
    words = ["make it snow", "nonsense", "make it rain", "turn the red square blue"]
    requests = [EditRequest(str(n), text, (scene(),), n) for n, text in enumerate(words)]
    editor = PillowEditor()
    together = editor.edit(requests)
    alone = [editor.edit([request])[0] for request in reversed(requests)][::-1]
    assert [isinstance(result, SampleError) for result in together] == [False, True, False, False]
    for one, other in zip(together, alone, strict=True):
        if isinstance(one, Image.Image):
            assert one.tobytes() == other.tobytes()


def test_strength_blends_from_the_source() -> None:
    assert edit("make it night", strength=0).tobytes() == scene().tobytes()
    half, full = (np.asarray(edit("make it night", strength=s), dtype=float).mean() for s in (0.5, 1))
    assert full < half < np.asarray(scene(), dtype=float).mean()


def test_transparency_stays() -> None:
    source = scene("RGBA")
    source.putalpha(77)
    assert edit("make it snow", source).getchannel("A").getextrema() == (77, 77)


@pytest.mark.parametrize("instruction", ["把它变成夜晚", "do something nice", "remove the square", "make the square"])
def test_what_it_does_not_understand_names_what_it_does(instruction: str) -> None:
    with pytest.raises(SampleError, match=r"it knows: mirror, .*remove the"):
        edit(instruction)


def test_what_is_not_in_the_image_is_told() -> None:
    with pytest.raises(SampleError, match="nothing purple"):
        edit("remove the purple square")
    with pytest.raises(SampleError, match="nothing that stands out"):
        edit("remove the left square", Image.new("RGB", (20, 20), "grey"))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1)])
def test_tiny_images_break_nothing(size: tuple[int, int]) -> None:
    for words in ("night", "snow", "rain", "fog", "sunset", "black and white", "brighten", "turn the red x blue"):
        assert edit(words, Image.new("RGB", size, (210, 30, 30))).size == size


@pytest.mark.parametrize("params", [{"strength": 1.5}, {"strength": float("nan")}, {"delay": -1}])
def test_params_out_of_range_are_refused(params: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"editor.params"):
        PillowEditor(**params)


def test_the_delay_is_slept_for_each_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("slurm_bench.editors.pillow.editor.time", SimpleNamespace(sleep=slept.append))
    PillowEditor(delay=0.5).edit([EditRequest(str(n), "night", (scene(),), n) for n in range(2)])
    assert slept == [0.5, 0.5]
