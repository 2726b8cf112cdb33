"""The contract of an editor: any class with `edit`. Nothing need be inherited.

class MyEditor:
    def __init__(self, strength=1.0): ...      # `editor.params`; keep it light, it also runs on the login node
    def check(self): ...                       # optional, login node: raise UserError if it can't work
    def load(self): ...                        # optional, on the GPU node, one process a node at a time
    def streams(self): return True             # optional: load holds little of the host's memory, so needs no turn
    def prepare(self, requests): ...           # optional, once after load: every request of the task's slice, lazily
    def edit(self, batch): return [image, …]   # for each request, in order: an image, an Edited, or an exception
    def close(self): ...                       # optional, once it was loaded, however the work ended
    def provenance(self): return {"model": …}  # optional, login node: what decides its images beside the params (JSON
                                               # values); `<param>_sha256` tells the content of a file that one names
    takes_over = True                          # optional: False keeps every sample with its task (a scorer's likewise)

Where `edit` raises, each sample is tried again alone, or out of memory in half of the batch; an exception is then its
sample's error, and a FinalError its last. A UserError (nobody could edit as things are), ServiceDown (not now) and
LostGpu are no sample's: they end the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image


@dataclass(frozen=True)
class EditRequest:
    """What an editor may know of a sample; what only the judge may be told isn't here.

    `images` are the sources, one at least: upright (EXIF applied), RGB or RGBA, of any size. The result may depend on
    these fields alone, never on the neighbours in the batch; all randomness comes from `seed` (32 bits).
    """

    id: str
    instruction: str
    images: tuple[Image.Image, ...]
    seed: int

    @property
    def image(self) -> Image.Image:
        return self.images[0]


@dataclass(frozen=True)
class Edited:
    """An edited image, of any size, RGB or RGBA (another mode of 8 bits is converted to RGB), with facts for its
    record: JSON values. `info["seconds"]` is {part: seconds}, which the report adds up."""

    image: Image.Image
    info: dict[str, Any] = field(default_factory=dict)


class Editor(Protocol):
    """What type checkers know of it; all that is optional is above."""

    def edit(self, batch: Sequence[EditRequest]) -> Sequence[Image.Image | Edited | Exception]: ...
