"""`${…}` in a value: OmegaConf's references, to other settings and to the environment.

A reference is resolved once, when the configuration is read, and `\\${` stands for the text `${`. In the params of a
plug-in (and a reader's options) a reference to the environment stays as it was typed, in the run folder too, so that no
secret lies there: it is resolved where the plug-in is made.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from typing import Any

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from slurm_bench.config.schema import LITERAL, Config
from slurm_bench.errors import UserError
from slurm_bench.logs import keep_secret

# A resolver that doesn't exist, in the place of the one that reads the environment: who needs it fails.
_LATER = "oc.env_later"

_PARAMS = re.compile(r"((editor|rewriter|scorers\.[^.]+)\.params|data\.options)\.")


class FromEnvironment(str):
    """A parameter as it was typed, which refers to an environment variable."""


def escape_literal(layer: dict[str, Any]) -> dict[str, Any]:
    """A layer for OmegaConf, in which the settings that refer to nothing say what they say."""
    return _map_texts(layer, lambda key, text: _escape(text) if _is_literal(key) else text)


def resolve(merged: DictConfig) -> dict[str, Any]:
    """Every value, its references resolved. Raises UserError that names the setting."""
    without = OmegaConf.create(
        _map_texts(OmegaConf.to_container(merged), lambda _, text: text.replace("oc.env", _LATER))
    )
    return _values(merged, "", without)


def written(config: Config) -> dict[str, Any]:
    """The configuration as a file says it: `resolve` makes the same of it again."""
    return _map_texts(
        dataclasses.asdict(config),
        lambda key, text: str(text) if isinstance(text, FromEnvironment) or _is_literal(key) else _escape(text),
    )


def with_environment(config: Config, key: str) -> dict[str, Any]:
    """What stands under `key` (the params of a plug-in), with what the environment says. Raises UserError."""
    said = written(config)
    for variable in re.findall(r"oc\.env:\s*(\w+)", str(said)):
        keep_secret(os.environ.get(variable, ""), variable)
    tree = OmegaConf.create(escape_literal(said))
    return _values(OmegaConf.select(tree, key), key, None)


def _values(node: Any, key: str, without: Any) -> Any:
    """`without` is the same as `node`, but can't reach the environment; None where all may be resolved."""
    said: Any = OmegaConf.to_container(node, resolve=False)
    if isinstance(node, ListConfig):
        return [_value(node, n, text, f"{key}.{n}", without) for n, text in enumerate(said)]
    return {n: _value(node, n, text, f"{key}.{n!s}" if key else n, without) for n, text in said.items()}


def _value(node: Any, name: Any, said: Any, key: str, without: Any) -> Any:
    if said == MISSING:
        return said
    if without is not None and _PARAMS.match(key) and _asks_environment(without, name):
        return FromEnvironment(said)
    try:
        value = node[name]
    except OmegaConfBaseException as error:
        raise UserError(f"'{key}': {_problem(error, said)}") from None
    if not isinstance(value, (DictConfig, ListConfig)):
        return value
    return _values(value, key, None if without is None else without[name])


def _asks_environment(without: Any, name: Any) -> bool:
    """Whether this value depends on the environment, directly or by a setting that it refers to."""
    try:
        _ = without[name]
    except UnsupportedInterpolationType as error:
        return _LATER in str(error)
    except OmegaConfBaseException:
        pass
    return False


def _problem(error: OmegaConfBaseException, said: Any) -> str:
    if isinstance(error, InterpolationKeyError):
        return f"{said} refers to no setting; for the text itself, write {_escape(said)}"
    if isinstance(error, InterpolationResolutionError) and (found := re.search("variable '(.*?)' not", str(error))):
        return f"{said}: the environment variable {found[1]} is not set"
    return f"{said}: {str(error).splitlines()[0]}"


def _escape(text: str) -> str:
    """How OmegaConf is told this very text: a backslash before `${`, and those that stand there already doubled."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def _is_literal(key: str) -> bool:
    return key.startswith(tuple(f"{section}." for section in LITERAL))


def _map_texts(tree: Any, change: Callable[[str, str], str], key: str = "") -> Any:
    if isinstance(tree, dict):
        return {k: _map_texts(v, change, f"{key}.{k}" if key else str(k)) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_map_texts(v, change, f"{key}.{n}") for n, v in enumerate(tree)]
    return change(key, tree) if isinstance(tree, str) else tree
