"""Small copies of a run's pictures, so that a page with thousands of them opens at once, and stays whole where the
sources lie elsewhere. A thumbnail's name tells the content that it was made of: what is there is right."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from slurm_bench.errors import SampleError
from slurm_bench.report.page.pictures import Picture

SIDE = 448  # pixels of the longer side: three beside each other fill a wide window
QUALITY = 78
YOUNG = 3600.0  # seconds: so young a file may be what another report of this run, of a newer state, has just made
MOST_THREADS = 8  # each holds a decoded image, of 64 megapixels at most


def make_thumbnails(pictures: Iterable[Picture], folder: Path) -> Mapping[Picture, tuple[str, str]]:
    """For each picture its thumbnail's file name and "", or "" and what is wrong with it. Only what is not there yet
    is made, in threads, as decoding leaves the interpreter free; what is old and nobody wants any more is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    there = {entry.name for entry in os.scandir(folder)}
    wanted = list(dict.fromkeys(pictures))
    with ThreadPoolExecutor(min(MOST_THREADS, len(os.sched_getaffinity(0)))) as threads:
        made = threads.map(lambda picture: _make(picture, folder, there), wanted)
        found = dict(zip(wanted, made, strict=True))
    for name in there - {name for name, _ in found.values()}:
        with suppress(OSError):
            if time.time() - os.stat(folder / name).st_mtime > YOUNG:
                os.unlink(folder / name)
    return found


def _make(picture: Picture, folder: Path, there: set[str]) -> tuple[str, str]:
    from slurm_bench.data.images import file_bytes

    try:
        name = f"{picture.key()}.webp"
        if name in there:
            return name, ""
        data = file_bytes(Path(picture.file))
        if picture.sha256 not in (None, hashlib.sha256(data).hexdigest()):
            return "", "changed since it was recorded (another sha256)"
        small = thumbnail(data)
    except (SampleError, OSError, ValueError) as error:  # ValueError: no path, as one with a NUL
        return "", str(error)
    # Of two runs the same picture may be made by two threads at once.
    temporary = folder / f"{name}.{os.getpid()}-{threading.get_ident()}.tmp"
    temporary.write_bytes(small)
    os.replace(temporary, folder / name)
    return name, ""


def thumbnail(data: bytes) -> bytes:
    """WebP, which keeps transparency. Raises SampleError."""
    from PIL import Image

    from slurm_bench.data.images import open_image

    image = open_image(data)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=1.0)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY, method=2)
    return file.getvalue()
