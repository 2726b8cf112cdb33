"""What a run is asked to be: a typed configuration, checked before anything starts.

Layers, later wins: the schema's defaults (`schema`), a YAML file, `key=value` words (`text`). What they say together
(`load`), with its references resolved (`references`), is the configuration; `compare` tells two apart.
"""

from slurm_bench.config.compare import config_hash, differences, identity
from slurm_bench.config.load import find, load_config, with_identity
from slurm_bench.config.nearest import nearest
from slurm_bench.config.references import with_environment, written
from slurm_bench.config.schema import (
    IDENTITY,
    PLANNED,
    Config,
    DataConfig,
    PluginConfig,
    ReportConfig,
    at_once,
    plugins_of,
    tasks_of,
)
from slurm_bench.config.text import to_yaml, utf8_text

__all__ = [
    "IDENTITY",
    "PLANNED",
    "Config",
    "DataConfig",
    "PluginConfig",
    "ReportConfig",
    "at_once",
    "config_hash",
    "differences",
    "dump",
    "find",
    "identity",
    "load_config",
    "nearest",
    "plugins_of",
    "tasks_of",
    "utf8_text",
    "with_environment",
    "with_identity",
]


def dump(config: Config) -> str:
    """The configuration as a YAML file that `load_config` reads as the same."""
    return to_yaml(written(config))
