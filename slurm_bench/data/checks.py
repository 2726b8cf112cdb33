"""What every reader's items go through: ids that can be told apart, text that can be written, images that open."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slurm_bench.config import nearest
from slurm_bench.data.categories import UNCATEGORISED
from slurm_bench.data.facts import as_facts
from slurm_bench.data.item import Item
from slurm_bench.data.text import BROKEN, as_text, joined, quoted
from slurm_bench.errors import UserError

_NAMES = tuple(field.name for field in dataclasses.fields(Item))
_TEXTS = ("category", "instruction", "description", "rationale")
_OTHERS = ("reference", "mask")  # images that a sample may have beside its sources


def identifier(value: Any, where: str, found: Iterable[str]) -> str:
    """The id as text: any that isn't empty will do, for none is used as a path. Raises UserError."""
    try:
        text = as_text(value)
    except TypeError as error:
        raise UserError(f"{where}: the id {error}; fields there: {joined(found)}") from None
    if not text.strip():
        raise UserError(
            f"{where}: no id; give each item one, or name its field with data.fields.id; fields there: {joined(found)}"
        )
    return text


def as_item(value: Any, where: str) -> Item:
    """What a reader yielded, an Item or a dict with its names, as an Item. Raises UserError."""
    if isinstance(value, Item):
        return value
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: the reader gave a {type(value).__name__}, not an Item or a dict")
    unknown = [str(name) for name in value if name not in _NAMES]
    if unknown:
        raise UserError(f"{where}: an Item has no '{unknown[0]}'; {nearest(unknown[0], _NAMES)}")
    needed = {"category": "all", "instruction": "", "source": None}
    return Item(**{**needed, **value, "id": identifier(value.get("id"), where, value)})


def checked(item: Item, where: str) -> Item:
    """The item with clean text and, where it can't be edited, the first reason in `problem`: what lies in the text
    before what lies on storage."""
    sources = [_as_source(source) for source in _several(item.source)]
    others = {name: _as_source(getattr(item, name)) for name in _OTHERS if getattr(item, name) not in (None, "")}
    texts, problem = {}, item.problem
    follows = identifier(item.follows, where, _NAMES) if item.follows not in (None, "") else ""
    if follows and sources:
        problem, sources = problem or f"it follows {quoted(follows)} and has a source image of its own", []
    for name in _TEXTS:
        try:
            texts[name] = as_text(getattr(item, name))
        except TypeError as error:
            texts[name] = ""
            problem = problem or f"the {name} {error}"
    try:
        facts = as_facts(item.facts)
    except TypeError as error:
        facts = {}
        problem = problem or f"the facts {error}"
    identity = identifier(item.id, where, _NAMES)
    problem = problem or _text_problem({"id": identity, **texts}) or _image_problem(sources, others, bytes, follows)
    on_storage = item.on_storage if item.problem else not problem
    problem = problem or _image_problem(sources, others, Path, follows)
    images = [image for image in sources if isinstance(image, (Path, bytes))]
    return Item(
        id=identity,
        source=tuple(images) if len(images) > 1 else images[0] if images else None,
        reference=_image(others.get("reference")),
        mask=_image(others.get("mask")),
        problem=" ".join(as_text(problem).split()),
        on_storage=bool(problem) and on_storage,
        facts=facts,
        follows=follows,
        **{**texts, "category": texts["category"].strip() or UNCATEGORISED},
    )


def _several(source: Any) -> list[Any]:
    if isinstance(source, (list, tuple)):
        return list(source)
    return [] if source in (None, "") else [source]


def _as_source(source: Any) -> Any:
    if isinstance(source, (bytearray, memoryview)):
        return bytes(source)
    return Path(as_text(source)) if isinstance(source, str) else source


def _image(image: Any) -> Path | bytes | None:
    return image if isinstance(image, (Path, bytes)) else None


def _text_problem(texts: Mapping[str, str]) -> str:
    for name, text in texts.items():
        if BROKEN in text:
            return f"the {name} has broken UTF-8: {quoted(text)} (is the file in another encoding? say data.encoding)"
    return "" if texts["instruction"].strip() else "the instruction is empty"


def _image_problem(sources: list[Any], others: Mapping[str, Any], kind: type, follows: str) -> str:
    """What is wrong with the images of `kind`: bytes are part of the data, a Path is a file beside it."""
    from slurm_bench.data.images import check_image

    if not sources and not follows:
        return "there is no source image"
    for name, image in [*(("source", source) for source in sources), *others.items()]:
        if not isinstance(image, (Path, bytes)):
            what = "list" if isinstance(image, tuple) else type(image).__name__
            return f"the {name} image is a {what}, not a file's path or bytes"
        if isinstance(image, kind) and (problem := check_image(image)):
            return f"{name}: {problem}"
    return ""
