"""What the readers of published benchmarks share: files as they were downloaded, the languages and flags of their
samples, and image names, which are a stranger's and must stay within the benchmark's folder."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from slurm_bench.config import DataConfig, nearest
from slurm_bench.data.readers.fields import data_path, field_names, is_empty, refuse_absent, value_of
from slurm_bench.data.readers.json_rows import list_rows
from slurm_bench.data.readers.rows import Row
from slurm_bench.data.text import as_text, quoted
from slurm_bench.errors import UserError

Names = Mapping[str, Sequence[str]]  # our name → the benchmark's, of which the first that isn't empty counts

_TRUE, _FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no", "none", "nan", "")


def find_file(data: DataConfig, *names: str) -> Path:
    """`data.path` where it is a file, else the first of `names` in that folder or one below. Raises UserError."""
    path = data_path(data)
    if path.is_file():
        return path
    for name in names:
        for pattern in (name, f"*/{name}", f"*/*/{name}"):
            if found := sorted(path.glob(pattern)):
                return found[0]
    raise UserError(f"'data.path': {path}: there is no {' or '.join(names)} in it")


def list_of(data: DataConfig, file: Path, names: Names, required: Collection[str]) -> list[Row]:
    """The objects of a JSON list, which may have NaN for an empty field. Raises UserError."""
    rows = list(list_rows(file, data.encoding, nan=True))
    refuse_unlike(data, names, required, names_in(rows), file)
    return rows


def names_in(rows: Iterable[Row]) -> list[str]:
    """Each once, in the order in which they are met."""
    return list(dict.fromkeys(name for row in rows for name in field_names(row.cells)))


def refuse_unlike(
    data: DataConfig, names: Names, required: Collection[str], found: Collection[str], file: Path
) -> None:
    """A file without a field that each sample must have isn't this benchmark's, and one that `data.fields` names must
    be there. Raises UserError."""
    if not found:
        raise UserError(f"{file}: there are no samples in it")
    needed = [name for name in names if name in required or name in data.fields]
    refuse_absent({name: names[name][0] for name in needed if not {*names[name]} & {*found}}, found, file)


def values_of(cells: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """A row's values by our names; None where one is absent or empty."""
    return {ours: value_of(cells, theirs) for ours, theirs in names.items()}


def other_facts(cells: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """The fields that the reader has no name for."""
    used = {name for theirs in names.values() for name in theirs}
    return {name: value for name, value in cells.items() if name not in used and not is_empty(value)}


def images_root(data: DataConfig, file: Path, images: Iterable[Any]) -> Path:
    """What the image names start from: `data.image_root`, else the file's own folder or the one in it that has any of
    the first `images`."""
    if data.image_root:
        return Path(data.image_root)
    names = [name for name in islice(images, 200) if isinstance(name, str)]
    folders = [file.parent, *sorted(folder for folder in file.parent.iterdir() if folder.is_dir())]
    for folder in folders:
        if any(os.path.isfile(within(folder, name)[0] or "") for name in names):
            return folder
    return file.parent


def within(root: Path, name: Any) -> tuple[Any, str]:
    """The image that `name` means, or the images of a list, and what is wrong. A name with `..` or from `/` is refused;
    links are followed, for a download cache is made of them."""
    if isinstance(name, list):
        parts = [within(root, part) for part in name]
        return tuple(image for image, _ in parts), next((problem for _, problem in parts if problem), "")
    if not isinstance(name, str):
        return name, ""
    place = PurePosixPath(as_text(name).strip().replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts:
        return None, f"the image {quoted(name)} leads out of {root}"
    return (root / place, "") if place.parts else (None, "")


def _flag(value: Any) -> bool:
    """A flag however it is written: true, 1, "True"; absent, null, NaN, "False" are false."""
    text = "" if is_empty(value) else str(value).strip().lower()
    if text in _FALSE:
        return False
    if text in _TRUE:
        return True
    raise ValueError(f"{quoted(value)} is neither true nor false")


def flags(cells: Mapping[str, Any], names: Sequence[str]) -> tuple[dict[str, bool], str]:
    """Each by its name, and what is wrong with them."""
    told, problem = {}, ""
    for name in names:
        try:
            told[name] = _flag(cells.get(name))
        except ValueError as error:
            problem = problem or f"{name}: {error}"
    return told, problem


def turns(data: DataConfig, known: Sequence[str] = ("single", "multi")) -> str:
    """What `data.options.turns` says: `multi` has each turn made of what was made in the one before. Raises
    UserError."""
    asked = data.options.get("turns", "single")
    if asked not in known:
        raise UserError(f"'data.options.turns': {quoted(asked)}; {nearest(str(asked), known)}")
    return str(asked)


def languages(data: DataConfig, known: Sequence[str], default: Sequence[str]) -> list[str]:
    """Those of `data.options.language`, one or a list. Raises UserError."""
    asked = data.options.get("language")
    chosen = list(default) if asked is None else asked if isinstance(asked, list) else [asked]
    for name in chosen:
        if name not in known:
            raise UserError(f"'data.options.language': no language {quoted(name)}; {nearest(str(name), known)}")
    return list(dict.fromkeys(chosen))
