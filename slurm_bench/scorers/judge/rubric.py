"""What the judge is told to look for: one rubric a category, from a YAML file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slurm_bench.bundled import bundled
from slurm_bench.data.categories import DEFAULT_RUBRIC, canonical
from slurm_bench.errors import UserError
from slurm_bench.scorers.judge.yaml_file import read_yaml

BUNDLED = bundled("rubrics.yaml")


@dataclass(frozen=True)
class Rubric:
    """What a category asks of an edit, and what speaks for and against one."""

    asks: str
    counts_for: tuple[str, ...]
    counts_against: tuple[str, ...]


@dataclass(frozen=True)
class Scale:
    """What the lowest, the middle and the highest score mean, in words."""

    lowest: str
    middle: str
    highest: str


@dataclass(frozen=True)
class Rubrics:
    scale: Scale
    aspects: Mapping[str, str]
    categories: Mapping[str, Rubric]
    sha256: str

    def of(self, category: str) -> Rubric:
        return self.categories.get(canonical(category), self.categories[DEFAULT_RUBRIC])

    def as_data(self) -> dict[str, Any]:
        """What a rubrics file has, for `rubrics_of`."""
        return {"scale": asdict(self.scale), "aspects": dict(self.aspects)} | {
            "categories": {name: asdict(rubric) for name, rubric in self.categories.items()}
        }

    def require(self, aspects: Sequence[str]) -> None:
        """UserError unless each of `aspects`, at least one, has its question here."""
        unknown = [aspect for aspect in aspects if aspect not in self.aspects]
        if unknown or not aspects or len(set(aspects)) != len(aspects):
            known = ", ".join(self.aspects)
            raise UserError(f"'params.aspects' is {list(aspects)}: name one or more of {known}, each once")


def load_rubrics(path: str | Path | None = None) -> Rubrics:
    """The rubrics in `path`, or the bundled ones. UserError names the file and the field."""
    file = BUNDLED if path is None else Path(path)
    parsed, data = read_yaml(file, "'params.rubrics'")
    return _Reader(file).rubrics(parsed, hashlib.sha256(data).hexdigest())


def rubrics_of(data: Any, where: Path) -> Rubrics:
    """From what `as_data` gave, read back from the file `where`. Raises UserError."""
    return _Reader(where).rubrics(data, "")


@dataclass(frozen=True)
class _Reader:
    """Field by field, so that a fault is told by its place in the file."""

    file: Path

    def rubrics(self, data: Any, sha256: str) -> Rubrics:
        top = self._mapping(data, "the top level", {"scale", "aspects", "categories"})
        scale = self._mapping(top["scale"], "scale", {"lowest", "middle", "highest"})
        aspects = self._mapping(top["aspects"], "aspects")
        categories = self._mapping(top["categories"], "categories")
        if DEFAULT_RUBRIC not in categories:
            raise UserError(f"{self.file}: categories has no '{DEFAULT_RUBRIC}', for every category not named")
        return Rubrics(
            scale=Scale(**{key: self._text(value, f"scale.{key}") for key, value in scale.items()}),
            aspects={key: self._text(value, f"aspects.{key}") for key, value in aspects.items()},
            categories=self._rubrics(categories),
            sha256=sha256,
        )

    def _rubrics(self, categories: dict[str, Any]) -> dict[str, Rubric]:
        found: dict[str, Rubric] = {}
        for key, value in categories.items():
            if canonical(key) in found:
                raise UserError(f"{self.file}: categories has '{canonical(key)}' twice, once as '{key}'")
            found[canonical(key)] = self._rubric(value, f"categories.{key}")
        return found

    def _rubric(self, data: Any, at: str) -> Rubric:
        fields = self._mapping(data, at, {"asks", "counts_for", "counts_against"})
        return Rubric(
            self._text(fields["asks"], f"{at}.asks"),
            self._texts(fields["counts_for"], f"{at}.counts_for"),
            self._texts(fields["counts_against"], f"{at}.counts_against"),
        )

    def _mapping(self, data: Any, at: str, keys: set[str] | None = None) -> dict[str, Any]:
        if not isinstance(data, dict) or not data or not all(isinstance(key, str) for key in data):
            raise UserError(f"{self.file}: {at} is not a mapping with names as keys")
        if keys is not None and set(data) != keys:
            raise UserError(f"{self.file}: {at} has {sorted(data)}; it takes {sorted(keys)}")
        return data

    def _texts(self, data: Any, at: str) -> tuple[str, ...]:
        if not isinstance(data, list | tuple) or not data:
            raise UserError(f"{self.file}: {at} is not a list of texts")
        return tuple(self._text(value, f"{at}[{index}]") for index, value in enumerate(data))

    def _text(self, data: Any, at: str) -> str:
        if not isinstance(data, str) or not data.strip():
            raise UserError(f"{self.file}: {at} is not a text")
        return " ".join(data.split())
