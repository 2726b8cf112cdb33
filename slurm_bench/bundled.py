"""The files that come with the package: configurations and the judge's rubrics."""

from __future__ import annotations

from pathlib import Path

# In a checkout a link to the configs/ beside the package; in an installed package a copy of it.
CONFIGS = (Path(__file__).parent / "configs").resolve()


def bundled(name: str) -> Path:
    return CONFIGS / name


def here_or_bundled(file: Path) -> Path:
    """`file` as it was typed, or the bundled one where only a name was typed and no such file is here."""
    own = CONFIGS / file.name
    return own if file == Path(file.name) and not file.exists() and own.is_file() else file
