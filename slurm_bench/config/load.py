"""Layers → the configuration. Every refusal is one line that names where the value was said and its key."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from slurm_bench.bundled import bundled
from slurm_bench.command import EXECUTORS
from slurm_bench.config.nearest import nearest
from slurm_bench.config.references import escape_literal, resolve, written
from slurm_bench.config.schema import (
    IDENTITY,
    OPTIONAL,
    Config,
    DataConfig,
    PluginConfig,
    ReportConfig,
    at_once,
    plugins_of,
    tasks_of,
)
from slurm_bench.config.text import quoted, read_file, read_text, read_word
from slurm_bench.errors import UserError

LEAST = {
    "repeats": 1,
    "gpus": 1,
    "score_gpus": 1,
    "slices": 1,
    "parallel": 1,
    "pack": 1,
    "batch_size": 1,
    "score_batch_size": 1,
    "load_concurrency": 1,
    "retries": 0,
}

# Whether a task that is done takes samples of others: from those on the same kind of GPU, from all, from none.
TAKEOVER = ("auto", "always", "never")

# A parameter whose text would lie in the run folder for all to read; `api_key_env` and `max_tokens` are none.
_SECRET = re.compile(r"(?i)(^|[_-])(api[_-]?key|access[_-]?key|secret|password|auth|authorization|bearer|token)$")


def load_config(file: Path | None, overrides: Sequence[str] = ()) -> Config:
    """The configuration from a file and `key=value` words, later ones win. Raises UserError."""
    layers = [(str(file), read_file(file))] if file is not None else []
    layers += [(quoted(word), read_word(word)) for word in overrides]
    return _with_absolute_paths(_of_layers(layers), file)


def with_identity(config: Config, text: str, where: str) -> Config:
    """`config`, but for what decides the results, which is as the `text` from `identity` says it. Raises UserError."""
    rest = {key: value for key, value in written(config).items() if key not in IDENTITY}
    return _of_layers([(where, rest), (where, read_text(text, where))])


def _of_layers(layers: Sequence[tuple[str, dict[str, Any]]]) -> Config:
    merged = OmegaConf.structured(Config)
    for where, layer in layers:
        try:
            kept = _take_away(merged, escape_literal(layer), where)
            merged = OmegaConf.merge(merged, OmegaConf.create(kept))
        except OmegaConfBaseException as error:
            raise UserError(_say(error, where)) from None
        except RecursionError:
            raise UserError(f"{where}: nested too deeply") from None
    values = resolve(merged)
    _refuse_nameless(values, layers)
    config = _typed(values)
    _check_values(config)
    return config


def _take_away(merged: DictConfig, layer: dict[str, Any], where: str, key: str = "") -> dict[str, Any]:
    """What a layer adds, once its nulls have taken away: a scorer, or what was said of a section before."""
    kept = {}
    for name, value in layer.items():
        path = f"{key}.{name}" if key else name
        before = merged.get(name)
        if value is None and key == "scorers":
            if before is None:
                raise UserError(f"{where}: no scorer '{name}' to take out; {nearest(name, merged)}")
            del merged[name]
        elif value is None and not key and name in OPTIONAL:
            merged[name] = None
        elif value is None and isinstance(before, DictConfig):
            merged[name] = (
                {} if OmegaConf.get_type(before) is dict else OmegaConf.structured(OmegaConf.get_type(before))
            )
        elif isinstance(value, dict) and isinstance(before, DictConfig) and name != "params":
            kept[name] = _take_away(before, value, where, path)
        else:
            kept[name] = value
    return kept


def _refuse_nameless(values: dict[str, Any], layers: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """A plug-in whose class nobody named; a scorer's own name may be mistyped."""
    plugins = {"editor": values["editor"], **{f"scorers.{name}": s for name, s in values["scorers"].items()}}
    plugins |= {"rewriter": values["rewriter"]} if values["rewriter"] is not None else {}
    whole = [key for key, plugin in plugins.items() if plugin["class_path"] != MISSING]
    for key in plugins.keys() - whole:
        section, _, name = key.partition(".")
        said = [where for where, layer in layers if (name in (layer.get(section) or {}) if name else section in layer)]
        where = next(iter([*said, *(where for where, _ in layers)]), "nothing")
        hint = f"; {nearest(key, whole)}" if name else ""
        raise UserError(f"{where}: '{key}.class_path' is not set{hint}")


def _typed(values: dict[str, Any]) -> Config:
    return Config(
        **values
        | {
            "data": DataConfig(**values["data"]),
            "editor": PluginConfig(**values["editor"]),
            "rewriter": PluginConfig(**values["rewriter"]) if values["rewriter"] is not None else None,
            "scorers": {name: PluginConfig(**scorer) for name, scorer in values["scorers"].items()},
            "report": ReportConfig(**values["report"]),
        }
    )


def _check_values(config: Config) -> None:
    for key, bound in LEAST.items():
        value = getattr(config, key)
        if value is not None and value < bound:
            raise UserError(f"'{key}' is {value}; it must be at least {bound}")
    for stage, key in (("edit", "gpus"), ("score", "score_gpus")):
        together, bound = min(config.pack, tasks_of(config, stage)), at_once(config, stage)
        if bound < together:
            key = key if getattr(config, key) == bound else "parallel"
            raise UserError(
                f"'{key}' is {bound}, but by 'pack' {together} tasks of a job work at once; "
                f"make '{key}' at least {together}, or 'pack' at most {bound}"
            )
    if config.data.limit is not None and config.data.limit < 1:
        raise UserError(f"'data.limit' is {config.data.limit}; it must be at least 1, or null for all")
    if config.executor not in (None, *EXECUTORS):
        raise UserError(f"'executor' is '{config.executor}'; {nearest(config.executor, EXECUTORS)}")
    if config.takeover not in TAKEOVER:
        raise UserError(f"'takeover' is '{config.takeover}'; {nearest(config.takeover, TAKEOVER)}")
    if not config.scorers:
        raise UserError(f"'scorers' is empty; name at least one, see {bundled('demo.yaml')}")
    for name in config.scorers:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", name):
            raise UserError(f"'scorers.{name}': a scorer's name is 1 to 40 letters, digits, '_' or '-'")
    for key, plugin in plugins_of(config).items():
        _refuse_secrets(plugin.params, f"{key}.params")
    _refuse_secrets(config.data.options, "data.options")


def _refuse_secrets(params: dict[str, Any], key: str) -> None:
    for name, value in params.items():
        if isinstance(value, dict):
            _refuse_secrets(value, f"{key}.{name}")
        elif isinstance(value, list):
            inside = {str(n): part for n, part in enumerate(value) if isinstance(part, dict | list)}
            _refuse_secrets(inside, f"{key}.{name}")
        elif type(value) is str and value and _SECRET.search(str(name)):
            raise UserError(
                f"'{key}.{name}': this secret would lie in the run folder for all to read; put it into an environment "
                f"variable and type '{key}.{name}=${{oc.env:VARIABLE}}', in single quotes"
            )


def _with_absolute_paths(config: Config, file: Path | None) -> Config:
    """Jobs run elsewhere: what was said relative to here, or to the file that says it, becomes absolute. An absolute
    path stays as it is: a run that has its plan goes on without it, and who needs it says so if it isn't there."""
    for key in ("path", "image_root"):
        said = getattr(config.data, key)
        if said is None or Path(said).is_absolute():
            continue
        found = find(said, file)
        if found is None:
            raise UserError(f"'data.{key}': no such file or folder: {said} (looked in {Path.cwd()})")
        setattr(config.data, key, str(found))
    return config


def find(said: str, file: Path | None) -> Path | None:
    """What a path means that a configuration says: relative to here, or else to the file that says it. None where
    nothing is there."""
    places = [Path.cwd()] + ([file.resolve().parent] if file else [])
    said = os.path.expanduser(said)  # no shell has done it in `data.path=~/bench.json`
    return next(((place / said).resolve() for place in places if (place / said).exists()), None)


def _say(error: OmegaConfBaseException, where: str) -> str:
    if isinstance(error, GrammarParseError):
        message = "a '${' that begins no reference; for the text itself, write \\${"
    else:
        message = str(error).splitlines()[0]
    key = getattr(error, "full_key", None)
    return f"{where}: '{key}': {message}" if key else f"{where}: {message}"
