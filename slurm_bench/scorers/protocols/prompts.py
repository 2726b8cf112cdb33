"""A benchmark's own prompts, read by their names from the user's checkout of it. Nothing of the checkout is run."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from slurm_bench.config import nearest
from slurm_bench.errors import UserError

LARGEST = 4 * 1024 * 1024

KEY = "params.prompts"


def read_prompts(checkout: Path, file: str) -> dict[str, str]:
    """The texts in `file` of a checkout by their names: a JSON object's values, or a Python file's constants.
    `checkout` may be any folder on the way to the file, or the file. Raises UserError."""
    found = _find(Path(checkout), PurePosixPath(file))
    try:
        if found.stat().st_size > LARGEST:
            raise UserError(f"'{KEY}': {found} has more than {LARGEST} bytes: no file of prompts")
        text = found.read_text("utf-8")
        texts = _of_json(text) if found.suffix == ".json" else _of_python(text)
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise UserError(f"'{KEY}': {found} can't be read: {' '.join(str(error).split())[:200]}") from None
    if not texts:
        raise UserError(f"'{KEY}': {found} has no text with a name")
    return texts


def named(texts: Mapping[str, str], name: str, checkout: Path) -> str:
    if name not in texts:
        raise UserError(f"'{KEY}': {checkout} has no prompt '{name}'; {nearest(name, texts)}")
    return texts[name]


def _find(checkout: Path, file: PurePosixPath) -> Path:
    if checkout.is_file():
        return checkout
    places = [checkout.joinpath(*file.parts[depth:]) for depth in range(len(file.parts))]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        what = "no such folder" if not checkout.exists() else f"there is no {file} in it"
        raise UserError(f"'{KEY}': {checkout}: {what}; name a checkout of the benchmark's repository")
    return found


def _of_json(text: str) -> dict[str, str]:
    parsed = json.loads(text)
    if not isinstance(parsed, dict):
        raise ValueError("it is no object of names and texts")
    return {name: value for name, value in parsed.items() if isinstance(value, str)}


def _of_python(text: str) -> dict[str, str]:
    """Top-level `NAME = "a text"`, the last of a name. What is computed is none."""
    found: dict[str, str] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found |= {target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)}
    return found
