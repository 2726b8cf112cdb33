"""Where a model is: a folder on disk, a snapshot in the hub's local cache, or still on the hub."""

from __future__ import annotations

import os
from pathlib import Path

from slurm_bench.errors import UserError
from slurm_bench.logs import log


def locate(model_name: str, revision: str | None, key: str, index: str = "model_index.json") -> Path | None:
    """The folder of a model: a folder on disk, or a snapshot in the hub's local cache. None: the hub has it and
    it will be downloaded. Raises UserError, naming the configuration's `key`, if it can't be had."""
    folder = Path(model_name).expanduser()
    if folder.is_dir():
        return folder
    if model_name.startswith((".", "/", "~")) or model_name.count("/") != 1:
        raise UserError(f"'{key}': no folder {model_name}, and that is no hub id (owner/name)")
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model_name, index, revision=revision)
    if isinstance(cached, str):
        return Path(cached).parent
    named = f"{model_name}{f' at {revision}' if revision else ''}"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise UserError(
            f"'{key}': {named} is not in the local cache and HF_HUB_OFFLINE is set; "
            f"download it first (hf download {model_name})"
        )
    _ask_hub(model_name, revision, key, index)
    log.warning("%s is not in the local cache; the first job will download it", named)
    return None


def _ask_hub(model_name: str, revision: str | None, key: str, index: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        files = HfApi().model_info(model_name, revision=revision, timeout=10).siblings or []
    except HfHubHTTPError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"'{key}': the hub refuses {model_name}: {reason}") from None
    except Exception as error:
        raise UserError(
            f"'{key}': {model_name} is not in the local cache and the hub can't be reached "
            f"({type(error).__name__}); download it where there is a network, or give a folder"
        ) from None
    if index not in {file.rfilename for file in files}:
        raise UserError(f"'{key}': {model_name} has no {index}: it is not that kind of model")


def download_pipeline(model_name: str, revision: str | None) -> Path:
    """What a diffusers pipeline needs, from the hub into its cache on this machine."""
    from diffusers import DiffusionPipeline

    return Path(DiffusionPipeline.download(model_name, revision=revision, use_safetensors=True))


def download_model(model_name: str, revision: str | None) -> Path:
    """A transformers model and its processor, likewise."""
    from huggingface_hub import snapshot_download

    files = ["*.safetensors", "*.json", "*.txt", "*.jinja"]
    return Path(snapshot_download(model_name, revision=revision, allow_patterns=files))
