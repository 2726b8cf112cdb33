"""What a run is asked to be: a typed configuration, checked before anything starts.

Layers, later wins: the schema's defaults, a YAML file, `key=value` words. Every refusal is one line that names
where the value was said, the key, and the nearest right name.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from slurm_bench.bundled import CONFIGS, bundled
from slurm_bench.command import EXECUTORS
from slurm_bench.errors import UserError

# What a sample becomes hangs on these alone (law 4); the rest says where and how the work is done.
IDENTITY = ("seed", "data", "editor", "scorers")
PLANNED = ("seed", "data")


@dataclass
class DataConfig:
    reader: str = "demo"
    path: str | None = None
    categories: list[str] | None = None
    limit: int | None = None
    fields: dict[str, str] = field(default_factory=dict)
    image_root: str | None = None


@dataclass
class PluginConfig:
    class_path: str = MISSING
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class Config:
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    editor: PluginConfig = field(default_factory=PluginConfig)
    scorers: dict[str, PluginConfig] = field(default_factory=dict)
    headline: str | None = None
    executor: str | None = None
    gpus: int = 1
    score_gpus: int = 1
    batch_size: int = 1
    score_batch_size: int = 32
    retries: int = 2
    strict: bool = False
    load_concurrency: int = 1
    slurm: dict[str, Any] = field(default_factory=dict)
    score_slurm: dict[str, Any] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """YAML without base-60 numbers, so that `time: 12:00:00` stays a time, and without repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:int"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$"), list("-+0123456789")
)


def load_config(file: Path | None, overrides: Sequence[str] = ()) -> Config:
    """The configuration from a file and `key=value` words. Raises UserError."""
    layers: list[tuple[str, Any]] = []
    if file is not None:
        layers.append((str(file), read_yaml(file)))
    layers += [(f"'{word}'", parse_override(word)) for word in overrides]
    merged = OmegaConf.structured(Config)
    for where, layer in layers:
        if not isinstance(layer, Mapping):
            raise UserError(f"{where}: expected `key: value` lines, found {type(layer).__name__}")
        _refuse_unknown_keys(Config, layer, where)
        try:
            merged = OmegaConf.merge(merged, OmegaConf.create(dict(layer)))
        except OmegaConfBaseException as error:
            raise UserError(_say(error, where)) from None
    config = _finish(merged, layers[0][0] if layers else "the configuration")
    _check_values(config)
    return _with_absolute_paths(config, file)


def read_yaml(file: Path) -> Any:
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader) or {}
    except FileNotFoundError:
        raise UserError(f"{file}: no such configuration file; {_files_there(file)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not YAML: {' '.join(str(error).split())}") from None


def parse_override(word: str) -> dict[str, Any]:
    """`a.b=1` → {"a": {"b": 1}}. Slurm's options stay as typed (an account `0012` is no number)."""
    key, equals, text = word.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"'{word}': expected key=value, like editor.params.steps=28")
    try:
        value = yaml.load(text, Loader=_Loader) if text else ""
    except yaml.YAMLError:
        value = text
    if key.startswith(("slurm.", "score_slurm.")) and isinstance(value, (int, float)) and value is not True:
        value = text
    first, *rest = key.split(".")
    for part in reversed(rest):
        value = {part: value}
    return {first: value}


def dump(config: Config) -> str:
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def config_hash(config: Config) -> str:
    """A name for what decides the results; `gpus` and the like don't enter."""
    identity = {key: value for key, value in dataclasses.asdict(config).items() if key in IDENTITY}
    return hashlib.sha256(OmegaConf.to_yaml(OmegaConf.create(identity), sort_keys=True).encode()).hexdigest()[:16]


def differences(old: Config, new: Config, keys: Iterable[str] = IDENTITY) -> list[str]:
    """Lines `key: old → new` over what decides the results (law 10)."""
    keys = tuple(keys)
    was, now = (_flat({k: v for k, v in dataclasses.asdict(c).items() if k in keys}) for c in (old, new))
    return [
        f"{key}: {was.get(key, '(not set)')!r} → {now.get(key, '(not set)')!r}"
        for key in sorted(was.keys() | now.keys())
        if was.get(key, "(not set)") != now.get(key, "(not set)")
    ]


def nearest(word: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?` or the list of names, to close an error line."""
    names = [str(name) for name in names]
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(sorted(names))}" if names else "none is known"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _refuse_unknown_keys(schema: type, layer: Mapping[str, Any], where: str, prefix: str = "") -> None:
    fields = {f.name: f for f in dataclasses.fields(schema)}
    for key, value in layer.items():
        if key not in fields:
            raise UserError(f"{where}: unknown key '{prefix}{key}'; {nearest(str(key), fields)}")
        nested = {"data": DataConfig, "editor": PluginConfig}.get(key) if schema is Config else None
        if nested and isinstance(value, Mapping):
            _refuse_unknown_keys(nested, value, where, f"{prefix}{key}.")
        if schema is Config and key == "scorers" and isinstance(value, Mapping):
            for name, scorer in value.items():
                if isinstance(scorer, Mapping):
                    _refuse_unknown_keys(PluginConfig, scorer, where, f"scorers.{name}.")


def _finish(merged: DictConfig, where: str) -> Config:
    missing = OmegaConf.missing_keys(merged)
    if missing:
        raise UserError(f"{where}: '{min(missing)}' is not set")
    try:
        OmegaConf.resolve(merged)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(_say(error, where)) from None
    assert isinstance(config, Config)
    return config


def _check_values(config: Config) -> None:
    least = {
        "gpus": 1,
        "score_gpus": 1,
        "batch_size": 1,
        "score_batch_size": 1,
        "load_concurrency": 1,
        "retries": 0,
    }
    for key, bound in least.items():
        if getattr(config, key) < bound:
            raise UserError(f"'{key}' is {getattr(config, key)}; it must be at least {bound}")
    if config.data.limit is not None and config.data.limit < 1:
        raise UserError(f"'data.limit' is {config.data.limit}; it must be at least 1, or null for all")
    if config.executor not in (None, *EXECUTORS):
        raise UserError(f"'executor' is '{config.executor}'; {nearest(config.executor, EXECUTORS)}")
    if not config.scorers:
        raise UserError(f"'scorers' is empty; name at least one, see {bundled('demo.yaml')}")
    for name in config.scorers:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", name):
            raise UserError(f"'scorers.{name}': a scorer's name is 1 to 40 letters, digits, '_' or '-'")


def _with_absolute_paths(config: Config, file: Path | None) -> Config:
    """Jobs run elsewhere: what was said relative to here, or to the file that says it, becomes absolute."""
    for key in ("path", "image_root"):
        said = getattr(config.data, key)
        if said is None:
            continue
        places = [Path.cwd()] + ([file.resolve().parent] if file else [])
        found = next((place / said for place in places if (place / said).exists()), None)
        if found is None:
            raise UserError(f"'data.{key}': no such file or folder: {said} (looked in {places[0]})")
        setattr(config.data, key, str(found.resolve()))
    return config


def _say(error: OmegaConfBaseException, where: str) -> str:
    message = str(error).splitlines()[0]
    key = getattr(error, "full_key", None)
    return f"{where}: '{key}': {message}" if key else f"{where}: {message}"


def _files_there(file: Path) -> str:
    names = sorted(p.name for p in file.parent.glob("*.yaml")) if file.parent.is_dir() else []
    return nearest(file.name, names) if names else f"bundled ones are in {CONFIGS}"
