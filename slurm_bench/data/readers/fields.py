"""Our names for a record's parts, and the names that they have in the user's file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from slurm_bench.config import nearest
from slurm_bench.data.text import listed
from slurm_bench.errors import UserError


def data_file(data: Any) -> Path:
    """The file that `data.path` names. Raises UserError."""
    if not data.path:
        raise UserError(f"'data.path' is not set; the reader '{data.reader}' needs a file")
    path = Path(data.path)
    if not path.is_file():
        raise UserError(f"'data.path': {path}: {'not a file' if path.exists() else 'no such file'}")
    return path


def image_folder(data: Any) -> Path:
    """What relative image paths start from."""
    return Path(data.image_root) if data.image_root else Path(data.path).parent


def mapped_names(defaults: Mapping[str, Sequence[str]], mapped: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Our name → its names in the file, the first that isn't empty counts. Raises UserError."""
    for name in mapped:
        if name not in defaults:
            raise UserError(f"'data.fields.{name}': not one of {listed(defaults)}; {nearest(name, defaults)}")
    return {name: (mapped[name],) if name in mapped else tuple(names) for name, names in defaults.items()}


def refuse_absent(wanted: Mapping[str, str], found: Collection[str], file: Path) -> None:
    """A field that no record has is a mistake in the map, never an empty text (`wanted`: our name → the file's)."""
    for ours, theirs in wanted.items():
        if theirs not in found:
            raise UserError(
                f"{file}: no field '{theirs}' for '{ours}'; {nearest(theirs, found)}; "
                f"set data.fields.{ours}; fields there: {listed(found)}"
            )


def value_of(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The first value that isn't absent, null or empty text; else None."""
    for name in names:
        value = record.get(name)
        if value is not None and not (isinstance(value, str) and not value.strip()):
            return value
    return None
