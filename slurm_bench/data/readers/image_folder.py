"""A folder of images, each with its instruction in a text file beside it: `cat.jpg` and `cat.txt`.

The id is the image's path in the folder without its suffix, the category the folder that it lies in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from slurm_bench.config import DataConfig
from slurm_bench.data.item import Item
from slurm_bench.data.readers.encoding import decoder_of
from slurm_bench.data.readers.fields import data_path, files_below
from slurm_bench.data.text import joined
from slurm_bench.errors import UserError
from slurm_bench.logs import log

_READ = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
# What people take for images too: a sample that can't be edited, and says why.
_NOT_READ = {".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".svg", ".dng", ".cr2", ".nef", ".arw", ".tga", ".ppm"}
_NAMED = 3


def read_image_folder(data: DataConfig) -> Iterator[Item]:
    """In the order of their paths. Raises UserError."""
    folder = data_path(data)
    if not folder.is_dir():
        raise UserError(f"'data.path': {folder}: not a folder")
    files = [file.relative_to(folder) for file in files_below(folder)]
    files = [file for file in files if not any(part.startswith(".") for part in file.parts)]
    images = _images(files)
    stems = Counter(file.with_suffix("") for file in images)
    _tell_lone_texts(folder, [file for file in files if file.suffix == ".txt" and file.with_suffix("") not in stems])
    for file in images:
        instruction, problem = _instruction((folder / file).with_suffix(".txt"), data.encoding)
        yield Item(
            id=file.with_suffix("").as_posix() if stems[file.with_suffix("")] == 1 else file.as_posix(),
            category=file.parent.as_posix() if file.parent.parts else "all",
            instruction=instruction,
            source=folder / file,
            problem=problem,
        )


def _images(files: Collection[Path]) -> list[Path]:
    """Those of a kind that isn't read only where no other has their name."""
    read = {file.with_suffix("") for file in files if file.suffix.lower() in _READ}
    return [
        file
        for file in files
        if (suffix := file.suffix.lower()) in _READ or (suffix in _NOT_READ and file.with_suffix("") not in read)
    ]


def _tell_lone_texts(folder: Path, texts: Collection[Path]) -> None:
    """They may be notes, or samples whose images didn't arrive."""
    if texts:
        log.warning("%s: texts without an image of their name (%d): %s", folder, len(texts), joined(texts, _NAMED))


def _instruction(file: Path, encoding: str | None) -> tuple[str, str]:
    """The text and what is wrong with it."""
    try:
        text = decoder_of(encoding or "utf-8").decode(file.read_bytes(), final=True)
        return text.removeprefix("\ufeff").strip(), ""
    except OSError as error:
        return "", f"the instruction can't be read: {file.name}: {error.strerror}"
