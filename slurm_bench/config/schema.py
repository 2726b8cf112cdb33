"""What a run can be asked to be: every setting, its type and its default."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

# What a sample becomes depends on these alone (law 4); the rest says where and how the work is done.
IDENTITY = ("seed", "repeats", "data", "editor", "rewriter", "scorers")
PLANNED = ("seed", "repeats", "data")

# Plug-ins that a run may do without: null takes them out.
OPTIONAL = ("rewriter",)

# In these a `${HOME}` is the batch script's, or part of a name: it refers to nothing of ours.
LITERAL = ("slurm", "score_slurm", "data.fields")


class Option:
    """The type of a Slurm option: the text that sbatch takes, `true` or `false` for a flag, or null."""


@dataclass
class DataConfig:
    reader: str = "demo"
    path: str | None = None
    categories: list[str] | None = None
    limit: int | None = None
    fields: dict[str, str] = field(default_factory=dict)
    image_root: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class PluginConfig:
    class_path: str = MISSING
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class ReportConfig:
    by: list[str] = field(default_factory=list)


@dataclass
class Config:
    seed: int = 0
    repeats: int = 1
    data: DataConfig = field(default_factory=DataConfig)
    editor: PluginConfig = field(default_factory=PluginConfig)
    rewriter: PluginConfig | None = None
    scorers: dict[str, PluginConfig] = field(default_factory=dict)
    headline: str | None = None
    report: ReportConfig = field(default_factory=ReportConfig)
    executor: str | None = None
    gpus: int = 1
    score_gpus: int = 1
    slices: int | None = None
    parallel: int | None = None
    pack: int = 1
    batch_size: int = 1
    score_batch_size: int = 32
    takeover: str = "auto"
    retries: int = 2
    strict: bool = False
    load_concurrency: int = 1
    slurm: dict[str, Any] = field(default_factory=dict)
    score_slurm: dict[str, Any] = field(default_factory=dict)


def plugins_of(config: Config) -> dict[str, PluginConfig]:
    """The configured plug-ins by their keys: `editor`, `rewriter` where there is one, `scorers.<name>`."""
    found = {"editor": config.editor} | ({} if config.rewriter is None else {"rewriter": config.rewriter})
    return found | {f"scorers.{name}": scorer for name, scorer in config.scorers.items()}


def tasks_of(config: Config, stage: str) -> int:
    """How many tasks a stage is cut into."""
    return config.score_gpus if stage == "score" else config.slices or config.gpus


def at_once(config: Config, stage: str) -> int:
    """How many of them may be at work at the same time, each on one GPU."""
    gpus = config.score_gpus if stage == "score" else config.gpus
    return min(gpus, tasks_of(config, stage), config.parallel or gpus)


def fields_of(schema: type) -> dict[str, Any]:
    """The type of each field by its name."""
    types = typing.get_type_hints(schema)
    options = {name: dict[str, Option] for name in LITERAL if schema is Config and name in types}
    return {f.name: types[f.name] for f in dataclasses.fields(schema)} | options


def split_optional(hint: Any) -> tuple[Any, bool]:
    """`str | None` → str, True."""
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    optional = type(None) in typing.get_args(hint)
    return (parts[0] if optional else hint), optional
