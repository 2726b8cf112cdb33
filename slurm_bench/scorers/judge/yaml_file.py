"""A YAML file that says what a judge is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from slurm_bench.config.text import NOT_YAML
from slurm_bench.errors import UserError


def read_yaml(file: Path, key: str) -> tuple[Any, bytes]:
    """What the file says, and its bytes. Raises UserError that names `key`, the setting that names the file."""
    try:
        data = file.read_bytes()
        return yaml.safe_load(data), data
    except OSError as error:
        raise UserError(f"{key}: cannot read {file} ({error.strerror})") from None
    except NOT_YAML as error:
        said = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
        raise UserError(f"{key}: {file} is not YAML: {said}") from None
