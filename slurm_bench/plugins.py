"""`class_path` and `params` → an object. Any importable module will do, the current folder's too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm_bench.config import Config, PluginConfig, find, plugins_of, with_environment
from slurm_bench.errors import UserError
from slurm_bench.importing import blame, import_name
from slurm_bench.parameters import fitted, paths_of
from slurm_bench.scorers.base import Score, as_rows, declared_scores

Said = Mapping[str, Mapping[str, Any]]  # what each plug-in said of itself when the run was begun, by its key


def make(config: Config, key: str, method: str, before: Said | None = None) -> Any:
    """The object of the plug-in `key`, light: its weights come with `load`. Raises UserError, also where a file that a
    parameter names isn't what it was when the plug-ins said `before`."""
    plugin = plugins_of(config)[key]
    cls = import_name(plugin.class_path, f"{key}.class_path")
    if not callable(getattr(cls, method, None)):
        raise UserError(f"'{key}.class_path': {plugin.class_path} has no method '{method}'")
    params = with_environment(config, f"{key}.params")
    with speaking_for(key, plugin.class_path):
        made = cls(**fitted(cls, params, plugin.params, f"{key}.params"))
        _refuse_changed_files(key, made, plugin, (before or {}).get(key, {}))
    return made


def make_editor(config: Config, before: Said | None = None) -> Any:
    return make(config, "editor", "edit", before)


def make_rewriter(config: Config, before: Said | None = None) -> Any:
    """None where the configuration has none."""
    return None if config.rewriter is None else make(config, "rewriter", "rewrite", before)


def make_scorer(config: Config, name: str, before: Said | None = None) -> Any:
    return make(config, f"scorers.{name}", "score", before)


def with_absolute_paths(config: Config, file: Path | None) -> Config:
    """Jobs run elsewhere: of each parameter that its plug-in annotates as a path, what was said relative to here, or to
    the file that says it, becomes absolute. What isn't there stays as it was said: the plug-in tells whether it has
    to be. Raises UserError."""
    for key, plugin in plugins_of(config).items():
        for name in paths_of(import_name(plugin.class_path, f"{key}.class_path")):
            said = plugin.params.get(name)
            if type(said) is str and said and not Path(said).is_absolute() and (found := find(said, file)) is not None:
                plugin.params[name] = str(found)
    return config


def _refuse_changed_files(key: str, plugin: Any, said: PluginConfig, before: Mapping[str, Any]) -> None:
    """What a plug-in made by another rubric, say, would pass for what it makes by this one."""
    files = [name for name in said.params if before.get(f"{name}_sha256") is not None]
    now = plugin.provenance() if files else {}
    for name in files:
        old, new = before[f"{name}_sha256"], now.get(f"{name}_sha256")
        if new != old:
            raise UserError(
                f"'{key}.params.{name}': {said.params[name]} was changed since the run was planned (sha256 "
                f"{str(old)[:12]} → {str(new)[:12]}): put it back, or go on with what it says now, by --force"
            )


@dataclass(frozen=True)
class CheckedPlugins:
    """What the plug-ins said when they were asked whether they could work. `models` is what each says of its model
    (revisions, classes), by its key; `scores` is what each scorer declares that it gives, None for one that doesn't
    say; `rubrics` the categories that a judge has a rubric for."""

    models: dict[str, Any]
    scores: dict[str, Mapping[str, Score] | None]
    rubrics: dict[str, tuple[str, ...]]

    @property
    def said(self) -> dict[str, Any]:
        """For the run's provenance: the models, and what each scorer declares of its scores."""
        rows = {f"scorers.{name}": as_rows(scores) for name, scores in self.scores.items() if scores is not None}
        return self.models | {key: {**self.models.get(key, {}), "scores": scores} for key, scores in rows.items()}


def check_plugins(config: Config) -> CheckedPlugins:
    """Import, make and ask each plug-in whether it could work, before any GPU is asked for. Raises UserError."""
    scorers = {name: make_scorer(config, name) for name in config.scorers}
    plugins = {"editor": make_editor(config), "rewriter": make_rewriter(config)}
    plugins |= {f"scorers.{name}": scorer for name, scorer in scorers.items()}
    models, scores, rubrics = {}, {}, {}
    for key, said in plugins_of(config).items():
        plugin = plugins[key]
        with speaking_for(key, said.class_path):
            if hasattr(plugin, "check"):
                plugin.check()
            if hasattr(plugin, "provenance"):
                models[key] = plugin.provenance()
                if not isinstance(models[key], Mapping):
                    raise UserError(
                        f"'{key}': provenance() of {said.class_path} gave {models[key]!r}, not {{name: value}}"
                    )
    for name, scorer in scorers.items():
        with speaking_for(f"scorers.{name}", config.scorers[name].class_path):
            scores[name] = declared_scores(scorer)
            if hasattr(scorer, "rubric_names"):
                rubrics[name] = tuple(scorer.rubric_names)
    return CheckedPlugins(models, scores, rubrics)


@contextmanager
def speaking_for(key: str, name: str) -> Iterator[None]:
    """Whatever goes wrong in a plug-in's own code becomes one line, which names the plug-in, the place, and where
    the traceback is. A plug-in doesn't know how it is called: its `'params.x'` becomes `'scorers.judge.params.x'`."""
    try:
        yield
    except UserError as error:
        line = " ".join(str(error).splitlines())
        said = re.sub(r"'(editor\.|rewriter\.|scorers\.[\w-]+\.)?params\.", f"'{key}.params.", line)
        raise UserError(said) from None
    except (Exception, SystemExit) as error:
        raise UserError(f"'{key}': {name}: {blame(error, name)}") from None
