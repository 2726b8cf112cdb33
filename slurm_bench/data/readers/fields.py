"""Our names for a record's parts, and the names that they have in the user's file."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slurm_bench.config import DataConfig, nearest
from slurm_bench.data.text import joined
from slurm_bench.errors import UserError
from slurm_bench.logs import log

_OF_A_RUN = {"config.yaml", "plan.jsonl", "provenance.json"}


def data_path(data: DataConfig) -> Path:
    """The file or folder that `data.path` names. Raises UserError."""
    if not data.path:
        raise UserError(f"'data.path' is not set; the reader '{data.reader}' needs one")
    path = Path(data.path)
    if not path.exists():
        raise UserError(f"'data.path': {path}: no such file")
    return path


def data_file(data: DataConfig) -> Path:
    """The file that `data.path` names. Raises UserError."""
    path = data_path(data)
    if not path.is_file():
        raise UserError(f"'data.path': {path}: not a file")
    return path


def image_folder(data: DataConfig) -> Path:
    """What relative image paths start from."""
    path = data_path(data)
    return Path(data.image_root) if data.image_root else path if path.is_dir() else path.parent


def files_below(folder: Path, silent: bool = False) -> list[Path]:
    """All files of a folder in the order of their paths, those of folders that are linked in it too. One that is
    reached in several ways is looked into once, and not by a link where it can be. What a run of ours made is no data:
    who launches from the data's own folder has `runs` in it. A folder that can't be looked into is told, once a
    launch: samples may be missing for it."""

    def tell(error: OSError) -> None:
        if not silent:
            log.warning("'data.path': %s: can't be looked into: %s", error.filename, error.strerror)

    seen: set[str] = set()
    found: list[Path] = []
    to_do = deque([folder])
    while to_do:
        linked: list[Path] = []
        for place, folders, names in os.walk(to_do.popleft(), onerror=tell):
            if (real := os.path.realpath(place)) in seen or _OF_A_RUN.issubset(names):
                folders.clear()
                continue
            seen.add(real)
            found += [Path(place, name) for name in names]
            linked += [path for path in (Path(place, name) for name in folders) if path.is_symlink()]
        to_do += sorted(linked)
    return sorted(found)


def mapped_names(defaults: Mapping[str, Sequence[str]], mapped: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Our name → its names in the file, the first that isn't empty counts. Raises UserError."""
    for name in mapped:
        if name not in defaults:
            raise UserError(f"'data.fields.{name}': not one of {joined(defaults)}; {nearest(name, defaults)}")
    return {name: (mapped[name],) if name in mapped else tuple(names) for name, names in defaults.items()}


def refuse_absent(wanted: Mapping[str, str], found: Collection[str], file: Path) -> None:
    """A field that no record has is a mistake in the map, never an empty text (`wanted`: our name → the file's).
    Raises UserError that names all of them."""
    absent = {ours: theirs for ours, theirs in wanted.items() if theirs not in found}
    if absent:
        near = {theirs: nearest(theirs, found) for theirs in absent.values()}
        faults = [
            f"no field '{theirs}' for '{ours}'" + (f"; {near[theirs]}" if near[theirs].startswith("did you") else "")
            for ours, theirs in absent.items()
        ]
        keys = " ".join(f"data.fields.{ours}=…" for ours in absent)
        raise UserError(f"{file}: {'; '.join(faults)}; set {keys}; fields there: {joined(found)}")


def field_names(record: Mapping[str, Any]) -> Iterator[str]:
    """A record's fields, and those of the objects within as `meta.text`."""
    for name, value in record.items():
        yield name
        if isinstance(value, Mapping):
            yield from (f"{name}.{inner}" for inner in field_names(value))


def value_of(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The first value that isn't absent, null, empty text or NaN (an empty cell of pandas); else None."""
    for name in names:
        value = _lookup(record, name)
        if not is_empty(value):
            return value
    return None


def is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and value != value)


def _lookup(record: Mapping[str, Any], name: str) -> Any:
    """A field of that very name, else the nested one that `meta.text` means."""
    if name in record or "." not in name:
        return record.get(name)
    outer, _, inner = name.partition(".")
    within = record.get(outer)
    return _lookup(within, inner) if isinstance(within, Mapping) else None
