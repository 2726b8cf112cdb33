"""Dry checks of a model before any GPU is asked for: files are looked at, no weight is read, no code is run.

Only safetensors are accepted: a pickled checkpoint can run anything, and so can a model's own Python code.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm_bench.errors import UserError
from slurm_bench.logs import log

LFS_POINTER = b"version https://git-lfs"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
LIBRARIES = {"diffusers", "transformers"}


@dataclass(frozen=True)
class ModelFolder:
    """A model on this machine. `parameters` counts them by component ("" where there is but one)."""

    path: Path
    class_name: str
    parameters: dict[str, int]

    @property
    def commit(self) -> str | None:
        """The hub's commit, where the folder is a snapshot in its cache."""
        return self.path.name if self.path.parent.name == "snapshots" else None


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


def check_pipeline_folder(folder: Path) -> ModelFolder:
    """A diffusers pipeline: every component there, of a known library, its weights complete, or UserError."""
    index = read_json(folder / "model_index.json")
    class_name = index.get("_class_name")
    if not isinstance(class_name, str):
        raise UserError(f"{folder / 'model_index.json'}: no '_class_name'")
    components = {name: entry[0] for name, entry in index.items() if not name.startswith("_") and _is_component(entry)}
    if not components:
        raise UserError(f"{folder / 'model_index.json'}: names no component, like a transformer; download it again")
    parameters = {}
    for name, library in components.items():
        if library.split(".")[0] not in LIBRARIES and not _is_pipeline_module(library):
            raise UserError(f"{folder}: {name!r} needs the model's own code ({library!r}), which is never run")
        if not (folder / name).is_dir():
            raise UserError(f"{folder}: the folder {name!r} is missing; the download is incomplete")
        if not any((folder / name).glob("*config.json")):
            raise UserError(f"{folder}: the folder {name!r} has no configuration; the download is incomplete")
        if (folder / name / "config.json").is_file():
            parameters[name] = count_parameters(folder / name)
    return ModelFolder(folder, class_name, parameters)


def _is_component(entry: Any) -> bool:
    """A component is named as [library, class]; one that the pipeline does without, as [null, null]."""
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)


def _is_pipeline_module(library: str) -> bool:
    """Some pipelines name a part of diffusers.pipelines, such as `stable_diffusion`, for a component."""
    from importlib.util import find_spec

    spec = find_spec("diffusers")
    return spec is not None and any(
        Path(root, "pipelines", library).is_dir() for root in spec.submodule_search_locations or ()
    )


def check_transformers_folder(folder: Path) -> ModelFolder:
    """A single transformers model with its configuration and complete weights. Raises UserError."""
    config = read_json(folder / "config.json")
    architectures = config.get("architectures") or [None]
    if not isinstance(architectures[0], str):
        raise UserError(f"{folder / 'config.json'}: no 'architectures'")
    return ModelFolder(folder, architectures[0], {"": count_parameters(folder)})


def count_parameters(folder: Path) -> int:
    """How many parameters a component's weights hold, by its files' headers. Raises UserError for a file that
    is missing or incomplete, for pickled weights and for a model with code of its own."""
    if read_json(folder / "config.json").get("auto_map"):
        raise UserError(f"{folder / 'config.json'}: 'auto_map' asks for the model's own code, which is never run")
    index = next((folder / f"{n}.index.json" for n in WEIGHTS if (folder / f"{n}.index.json").is_file()), None)
    if index:
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise UserError(f"{index}: no 'weight_map' of file names; download it again")
        files = [folder / name for name in sorted(set(weight_map.values()))]
    else:
        files = [folder / name for name in WEIGHTS if (folder / name).exists()][:1]
    if not files:
        pickled = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.ckpt")]
        if pickled:
            raise UserError(f"{pickled[0]}: pickled weights are never loaded; convert them to safetensors")
        raise UserError(f"{folder}: no {' or '.join(WEIGHTS)}; the download is incomplete")
    return sum(_parameters_of(file) for file in files)


def _parameters_of(file: Path) -> int:
    header = read_safetensors_header(file)
    try:
        return sum(math.prod(tensor["shape"]) for tensor in header.values())
    except (KeyError, TypeError):
        raise UserError(f"{file}: no safetensors file; download it again") from None


def read_safetensors_header(file: Path) -> dict[str, Any]:
    """Name → {dtype, shape, data_offsets}. Raises UserError if the file is missing, foreign, or cut off."""
    try:
        with file.open("rb") as stream:
            start = stream.read(8)
            if start and LFS_POINTER.startswith(start):
                raise UserError(f"{file}: a git-lfs pointer, not the weights; run 'git lfs pull'")
            length = int.from_bytes(start, "little")
            size = os.fstat(stream.fileno()).st_size
            if len(start) < 8 or length > size:
                raise UserError(f"{file}: no safetensors file, or cut off; download it again")
            header: dict[str, Any] = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}; the download is incomplete") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{file}: no safetensors file; download it again") from None
    if size < 8 + length + end:
        raise UserError(f"{file}: cut off at {size} of {8 + length + end} bytes; download it again")
    return header


def read_json(path: Path) -> dict[str, Any]:
    """Raises UserError if it is missing or no JSON object."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object")
    return content
