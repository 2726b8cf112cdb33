"""An editor without a model, for the demo and for rehearsals: real edits, by rule, of a small vocabulary.

It looks at colours and at columns, not at meaning: told to melt the ice, it recolours what is white. So its results
are partly right, as a model's are, and the scores have something to tell apart.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

from PIL import Image

from slurm_bench.editors.base import EditRequest
from slurm_bench.editors.pillow import effects as effects
from slurm_bench.errors import SampleError, UserError

VOCABULARY = (
    "mirror, upside down, rotate by 90 or 180, black and white, brighten, darken, night, sunset, snow, rain, fog, "
    "remove the (left, middle, right, COLOUR) …, turn the (left, middle, right, COLOUR) … COLOUR"
)

_COLOURS = "|".join(effects.COLOURS)
_PLACES = "left|middle|right"
_SELECTED = rf"(?:(?P<place>{_PLACES})(?:most)?\b)?\W*(?P<colour>{_COLOURS})?\b"
_REMOVE = re.compile(rf"\b(?:remove|erase|delete|take away) the {_SELECTED}")
_RECOLOUR = re.compile(
    rf"\b(?:turn|make|paint|change|colour|dye) the {_SELECTED}[^,.;:]*?\b(?:to |into |in )?(?P<new>{_COLOURS})\b"
)
_TURNS = (
    (r"\bmirror|\bflip", Image.Transpose.FLIP_LEFT_RIGHT),
    (r"\bupside down\b|\brotate\b.*\b180\b", Image.Transpose.ROTATE_180),
    (r"\brotate\b.*\b90\b", Image.Transpose.ROTATE_270),
)
_MOODS: tuple[tuple[str, Callable[..., Image.Image]], ...] = (
    (r"\bblack and white\b|\bgr[ae]yscale\b", effects.black_and_white),
    (r"\bsnow", effects.snow),
    (r"\brain", effects.rain),
    (r"\bfog|\bmist", effects.fog),
    (r"\bsunset\b|\bdusk\b", effects.sunset),
    (r"\bnight", effects.night),
    (r"\bdark", effects.darken),
    (r"\bbright|\blighter\b", effects.brighten),
)


class PillowEditor:
    """`strength`, 0 … 1, blends from the source (0) to the full edit (1), except where the image is turned.
    `delay` is slept for each sample, in seconds: to rehearse a cluster run with the pace of a model.
    """

    def __init__(self, strength: float = 1.0, delay: float = 0.0) -> None:
        if not 0 <= strength <= 1:
            raise UserError(f"'editor.params.strength' is {strength}; it must be 0 to 1")
        if not 0 <= delay < float("inf"):
            raise UserError(f"'editor.params.delay' is {delay}; it must be seconds, 0 or more")
        self.strength, self.delay = strength, delay

    def edit(self, batch: Sequence[EditRequest]) -> list[Image.Image | Exception]:
        return [self._one(request) for request in batch]

    def _one(self, request: EditRequest) -> Image.Image | Exception:
        time.sleep(self.delay)
        words = " ".join(request.instruction.casefold().split())
        for pattern, turn in _TURNS:
            if re.search(pattern, words):
                return request.image.transpose(turn)
        source = request.image.convert("RGB")
        try:
            edited = apply(words, source, request.seed)
        except SampleError as error:
            return error
        blended = Image.blend(source, edited, self.strength)
        if request.image.mode == "RGBA":
            blended.putalpha(request.image.getchannel("A"))
        return blended


def apply(words: str, source: Image.Image, seed: int) -> Image.Image:
    """What the lower-case instruction says, done to an RGB image of the same size. The first rule that matches
    counts. Raises SampleError where none does, or where what it names isn't there."""
    match = _REMOVE.search(words) or _RECOLOUR.search(words)
    if match and (match["place"] or match["colour"]):
        selected = effects.select(source, match["place"], match["colour"])
        new = match.groupdict().get("new")
        return effects.recolour(source, selected, new) if new else effects.remove(source, selected)
    for pattern, effect in _MOODS:
        if re.search(pattern, words):
            return effect(source, seed)
    raise SampleError(f"PillowEditor doesn't understand {words[:80]!r}; it knows: {VOCABULARY}")
