"""Which of two edits is better: a judge asked in the words of GEditBench v2, or of files of the same form."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from slurm_bench.bundled import bundled, here_or_bundled
from slurm_bench.errors import UserError
from slurm_bench.parameters import fitted
from slurm_bench.scorers.judge.parse import Unreadable, read_object
from slurm_bench.scorers.judge.question import Asks, Picture
from slurm_bench.scorers.judge.yaml_file import read_yaml
from slurm_bench.scorers.protocols.ask import encoded
from slurm_bench.scorers.protocols.description import Images, read_images, within
from slurm_bench.scorers.protocols.judge import Exchange, by_answers, make_judge, says

FIRST, SECOND, TIE = "first", "second", "tie"
_WINNERS = {"image a": FIRST, "image b": SECOND, "tie": TIE}
_PLACE = re.compile(r"\{\{.*?\}\}")
_INSTRUCTION = re.compile(r"\{\{\s*instruction\s*\}\}")
_EDITED = {0: FIRST, 1: SECOND}


@dataclass(frozen=True)
class Dimension:
    """What is judged. `prompt` is a file of the checkout; `judge` is asked about it in place of the common one."""

    prompt: str
    judge: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Pairwise:
    """`prompts` is a checkout of the benchmark's repository, `judge` the scorer that is asked: {class_path, params}."""

    prompts: str
    judge: Mapping[str, Any]
    dimensions: Mapping[str, Any] = field(default_factory=dict)
    images: Any = field(default_factory=dict)
    max_tokens: int = 2048


@dataclass(frozen=True)
class Template:
    """`parts` are texts, and images as (None, name)."""

    system: str
    parts: tuple[tuple[str | None, str], ...]


@dataclass(frozen=True)
class Asker:
    """One dimension's question and its judge. `by` is a short hash of who judges, in which words, of which images."""

    judge: Asks
    template: Template
    images: Images
    max_tokens: int
    by: str

    def exchange(self, instruction: str, seed: int, images: Mapping[str, Sequence[Image.Image]]) -> Exchange[str]:
        """`images` are "source", of which a sample may have several, FIRST and SECOND. It finds which is better, or
        TIE."""
        return Exchange(tuple(self._parts(instruction, images)), seed, winner, self.template.system)

    def _parts(self, instruction: str, images: Mapping[str, Sequence[Image.Image]]) -> Iterator[str | Picture]:
        for text, image in self.template.parts:
            if text is None:
                yield from (encoded(one, self.images) for one in images[image])
            else:
                yield _INSTRUCTION.sub(lambda _: instruction, text)


def load_askers(file: Path) -> dict[str, Asker]:
    """By dimension, from a YAML file; what it doesn't say is GEditBench v2's. Raises UserError that names the file and
    the field."""
    said = _yaml(here_or_bundled(file), "--judge")
    given = _over(_yaml(bundled("protocols/gedit2.yaml"), "the bundled protocol"), said, file)
    plan = Pairwise(**fitted(Pairwise, given, given, str(file)))
    images = read_images(plan.images, f"{file}: images")
    within(plan.max_tokens, 1, None, f"{file}: max_tokens")
    places = [Path(plan.prompts), file.resolve().parent / plan.prompts]
    checkout = next((place for place in places if place.is_dir()), None)
    if checkout is None:
        raise UserError(f"{file}: 'prompts': no such folder: {plan.prompts}; name a checkout of the repository")
    askers = {}
    for name, row in plan.dimensions.items():
        dimension = Dimension(**fitted(Dimension, row, row, f"{file}: dimensions.{name}"))
        template = read_template(checkout / dimension.prompt)
        chosen = dimension.judge or plan.judge
        judge = make_judge(chosen, f"{file}: judge")
        facts = [by_answers(chosen, judge), says(judge), template.system, template.parts, repr(images), plan.max_tokens]
        by = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]
        askers[name] = Asker(judge, template, images, plan.max_tokens, by)
    if not askers:
        raise UserError(f"{file}: 'dimensions' is empty: nothing would be judged")
    return askers


def read_template(file: Path) -> Template:
    """`system_prompt`, and `user_prompt` as a list of texts and of images: `{image: {source: input_image}}`, and
    `edited_images` with an index. Raises UserError."""
    said = _yaml(file, "'prompts'")
    blocks = said.get("user_prompt")
    if not isinstance(blocks, list):
        raise UserError(f"{file}: 'user_prompt' is no list of texts and images")
    parts = tuple(_part(block, f"{file}: user_prompt[{n}]") for n, block in enumerate(blocks))
    shown = [image for text, image in parts if text is None]
    if shown.count(FIRST) != 1 or shown.count(SECOND) != 1 or shown.index(FIRST) > shown.index(SECOND):
        raise UserError(f"{file}: it doesn't show two edited images, each once and in their order")
    return Template(str(said.get("system_prompt") or "").strip(), parts)


def winner(text: str) -> str:
    """FIRST, SECOND or TIE. Raises Unreadable."""
    said = read_object(text, ["winner"])["winner"]
    found = _WINNERS.get(said.strip().casefold()) if isinstance(said, str) else None
    if found is None:
        raise Unreadable(f"winner is {str(said)[:40]!r}, not Image A, Image B or Tie")
    return found


def _over(base: Mapping[str, Any], said: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """What `said` says over `base`; of the dimensions each by itself, and one that is null is taken away. Raises
    UserError."""
    dimensions: dict[str, Any] = {**base["dimensions"]}
    more = said.get("dimensions") or {}
    if not isinstance(more, Mapping):
        raise UserError(f"{file}: 'dimensions' is {more!r}; it must be names with values, or null to take one away")
    for name, row in more.items():
        both = isinstance(row, Mapping) and isinstance(dimensions.get(name), Mapping)
        dimensions[name] = {**dimensions[name], **row} if both else row
    return {**base, **said, "dimensions": {name: row for name, row in dimensions.items() if row is not None}}


def _part(block: Any, where: str) -> tuple[str | None, str]:
    if isinstance(block, Mapping) and isinstance(block.get("text"), str):
        if unknown := [place for place in _PLACE.findall(block["text"]) if not _INSTRUCTION.fullmatch(place)]:
            raise UserError(f"{where}: {unknown[0]} stands for nothing that is known; only {{{{ instruction }}}} does")
        return block["text"], ""
    image = block.get("image") if isinstance(block, Mapping) else None
    if isinstance(image, Mapping) and image.get("source") == "input_image":
        return None, "source"
    if isinstance(image, Mapping) and image.get("source") == "edited_images" and image.get("index") in _EDITED:
        return None, _EDITED[image["index"]]
    raise UserError(f"{where}: neither a text nor an image of input_image or edited_images (index 0 or 1)")


def _yaml(file: Path, key: str) -> dict[str, Any]:
    said, _ = read_yaml(file, key)
    if not isinstance(said, dict) or not all(isinstance(name, str) for name in said):
        raise UserError(f"{key}: {file} is not a mapping with names as keys")
    return said
