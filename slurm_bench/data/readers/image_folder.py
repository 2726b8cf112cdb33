"""A folder of images, each with its instruction in a text file beside it: `cat.jpg` and `cat.txt`.

The id is the image's path in the folder without its suffix, the category the folder that it lies in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from slurm_bench.config import DataConfig
from slurm_bench.data.item import Item
from slurm_bench.data.readers.fields import data_path
from slurm_bench.errors import UserError

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


def read_image_folder(data: DataConfig) -> Iterator[Item]:
    """In the order of their paths. Raises UserError."""
    folder = data_path(data)
    if not folder.is_dir():
        raise UserError(f"'data.path': {folder}: not a folder")
    files = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES)
    files = [file for file in files if not any(part.startswith(".") for part in file.parts)]
    stems = Counter(file.with_suffix("") for file in files)
    for file in files:
        instruction, problem = _instruction((folder / file).with_suffix(".txt"))
        yield Item(
            id=file.with_suffix("").as_posix() if stems[file.with_suffix("")] == 1 else file.as_posix(),
            category=file.parent.as_posix() if file.parent.parts else "all",
            instruction=instruction,
            source=folder / file,
            problem=problem,
        )


def _instruction(file: Path) -> tuple[str, str]:
    """The text and what is wrong with it."""
    try:
        return file.read_bytes().decode("utf-8-sig", "replace").strip(), ""
    except OSError as error:
        return "", f"the instruction can't be read: {file.name}: {error.strerror}"
