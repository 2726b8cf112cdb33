"""A model's folder, held against what it says of itself: every component there, its weights whole, nothing foreign."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm_bench.checkpoints.safetensors_header import BITS, TensorInfo, read_header
from slurm_bench.errors import UserError
from slurm_bench.machine import DTYPE_BYTES

WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
LIBRARIES = {"diffusers", "transformers"}
FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}  # converted to the model's dtype while loading

Tensors = dict[str, TensorInfo]  # by name


@dataclass(frozen=True)
class ModelFolder:
    """A model on this machine, with the tensors of each component ("" where there is but one)."""

    path: Path
    class_name: str
    tensors: dict[str, Tensors]

    @property
    def commit(self) -> str | None:
        """The hub's commit, where the folder is a snapshot in its cache."""
        return self.path.name if self.path.parent.name == "snapshots" else None

    @property
    def parameters(self) -> dict[str, int]:
        """How many each component has."""
        return {name: count_parameters(tensors) for name, tensors in self.tensors.items()}

    def bytes_in(self, dtype: str) -> dict[str, int]:
        """Of each component once it is loaded: floating-point tensors take the `dtype`, others keep their own."""
        return {name: sum(bytes_of(t, dtype) for t in tensors.values()) for name, tensors in self.tensors.items()}


def bytes_of(tensor: TensorInfo, dtype: str) -> int:
    """Once it is loaded."""
    return (
        tensor.parameters * DTYPE_BYTES[dtype]
        if tensor.dtype in FLOATS
        else tensor.parameters * BITS[tensor.dtype] // 8
    )


def count_parameters(tensors: Tensors) -> int:
    return sum(tensor.parameters for tensor in tensors.values())


def check_pipeline_folder(folder: Path) -> ModelFolder:
    """A diffusers pipeline. Raises UserError unless every component is there, of a known library, its weights
    complete and not quantized."""
    index = read_json(folder / "model_index.json")
    class_name = index.get("_class_name")
    if not isinstance(class_name, str) or not class_name.isidentifier():
        raise UserError(f"{folder / 'model_index.json'}: no '_class_name'")
    components = {name: entry[0] for name, entry in index.items() if not name.startswith("_") and _is_component(entry)}
    if not components:
        raise UserError(f"{folder / 'model_index.json'}: names no component, like a transformer; download it again")
    tensors = {}
    for name, library in components.items():
        if library.split(".")[0] not in LIBRARIES and not _is_pipeline_module(library):
            raise UserError(f"{folder}: {name!r} needs the model's own code ({library!r}), which is never run")
        if not (folder / name).is_dir():
            raise UserError(f"{folder}: the folder {name!r} is missing; the download is incomplete")
        if not any((folder / name).glob("*config.json")):
            raise UserError(f"{folder}: the folder {name!r} has no configuration; the download is incomplete")
        if (folder / name / "config.json").is_file():
            tensors[name] = read_tensors(folder / name)
            refuse_quantized(folder / name, tensors[name])
    return ModelFolder(folder, class_name, tensors)


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
    return ModelFolder(folder, architectures[0], {"": read_tensors(folder)})


def read_tensors(component: Path) -> Tensors:
    """What a component's weights hold, by its files' headers. Raises UserError for a file that is missing or
    incomplete, for pickled weights and for a model with code of its own."""
    if read_json(component / "config.json").get("auto_map"):
        raise UserError(f"{component / 'config.json'}: 'auto_map' asks for the model's own code, which is never run")
    tensors: Tensors = {}
    for file in weight_files(component):
        tensors |= read_header(file).tensors
    for name, shard in _weight_map(component).items():
        # Of others an index may tell that are not stored, as they are tied to another: a head, an embedding.
        if name not in tensors and any(part.isdecimal() for part in name.split(".")):
            raise UserError(f"{component / shard}: lacks {name!r}, which the index names; download both again")
    return tensors


def weight_files(component: Path) -> list[Path]:
    """The safetensors files of a component: one, or the shards that its index names. Raises UserError."""
    if shards := _weight_map(component).values():
        return [component / name for name in sorted(set(shards))]
    files = [component / name for name in WEIGHTS if (component / name).exists()][:1]
    if files:
        return files
    pickled = [*component.glob("*.bin"), *component.glob("*.pt"), *component.glob("*.ckpt")]
    if pickled:
        raise UserError(f"{pickled[0]}: pickled weights are never loaded; convert them to safetensors")
    raise UserError(f"{component}: no {' or '.join(WEIGHTS)}; the download is incomplete")


def _weight_map(component: Path) -> dict[str, str]:
    """The file of each tensor, as the component's index tells; empty where it has none. Raises UserError."""
    index = next((path for n in WEIGHTS if (path := component / f"{n}.index.json").is_file()), None)
    if index is None:
        return {}
    weight_map = read_json(index).get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(name, str) for name in weight_map.values())
    ):
        raise UserError(f"{index}: no 'weight_map' of file names; download it again")
    if outside := next((name for name in weight_map.values() if Path(name).name != name), None):
        raise UserError(f"{index}: {outside!r} is no file beside it; download it again")
    return weight_map


def refuse_quantized(component: Path, tensors: Mapping[str, TensorInfo]) -> None:
    """Raises UserError for weights that mean something only together with their scales: loaded as they are, they
    would be other numbers. fp8 without scales is a plain (lossy) copy, and passes."""
    if read_json(component / "config.json").get("quantization_config"):
        _refuse_quantized(component, "its config.json has a quantization_config")
    scaled = next((name for name in tensors if "scale" in name.rpartition(".")[2] or "quant" in name), None)
    for name, tensor in tensors.items():
        if tensor.dtype in ("I8", "U8", "F4") and len(tensor.shape) > 1:
            _refuse_quantized(component, f"'{name}' is packed as {tensor.dtype}")
        if tensor.dtype.startswith("F8") and scaled:
            _refuse_quantized(component, f"'{name}' is {tensor.dtype}, with scales beside it like '{scaled}'")


def _refuse_quantized(component: Path, sign: str) -> None:
    raise UserError(f"{component}: quantized weights ({sign}) can't be edited with; take the checkpoint in bfloat16")


def read_json(path: Path) -> dict[str, Any]:
    """Raises UserError if it is missing or no JSON object."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object")
    return content
