"""LoRA files (https://arxiv.org/abs/2106.09685), checked by their headers against the model that they are for.

A LoRA adds scale · alpha / rank · up @ down to the weight of a linear layer. Trainers name the two factors, and say
alpha, in different ways. All are brought here to one form, and what has no place in it (DoRA's magnitudes, biases,
LoKr's and LoHa's factors, layers that the model doesn't have) is refused: loaders would leave it out without a word.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slurm_bench.checkpoints.folder import FLOATS, read_json
from slurm_bench.checkpoints.safetensors_header import Header, TensorInfo, read_header
from slurm_bench.errors import UserError

# The factors' names: peft's and diffusers', kohya's, and those of diffusers before peft; kohya's alpha is a tensor.
_DOWN, _UP = r"(?:lora_A(?:\.[^.]+)?|lora_down|lora\.down)\.weight", r"(?:lora_B(?:\.[^.]+)?|lora_up|lora\.up)\.weight"
_PART = re.compile(rf"(?P<module>.+?)\.(?:(?P<down>{_DOWN})|(?P<up>{_UP})|(?P<alpha>alpha))")
# What stands before the name that the model gives a layer, in any order.
_PREFIXES = ("base_model.model.", "transformer.", "unet.", "diffusion_model.", "model.")
_FLAT_PREFIXES = ("lora_unet_", "lora_transformer_")  # kohya's, with _ for the dots of the layer's name
_ALPHA_METADATA = ("lora_alpha", "alpha", "network_alpha", "ss_network_alpha")  # as trainers write it plainly
_PEFT = "base_model.model."
_OTHER_KINDS = {
    "lora_magnitude_vector": "DoRA",
    "dora_scale": "DoRA",
    "lokr_": "LoKr",
    "hada_": "LoHa",
    "oft_": "OFT",
    "lora_mid": "a Tucker decomposition",
    "lora_embedding_": "an embedding",
    ".diff": "full weights",
}


@dataclass(frozen=True)
class Lora:
    """One that the user asked for."""

    path: Path
    scale: float = 1.0


@dataclass(frozen=True)
class LoraLayer:
    """`module` is the layer's name, in the file until `fit_lora`, then in the model. `down` [rank, in] and `up`
    [out, rank] are names of tensors in the file."""

    module: str
    down: str
    up: str
    rank: int
    alpha: float


@dataclass(frozen=True)
class LoraFile:
    path: Path
    header: Header
    layers: tuple[LoraLayer, ...]

    def facts(self, scale: float) -> dict[str, Any]:
        """For a run's provenance; rank and alpha are lists where layers differ."""
        return {
            "path": str(self.path),
            "sha256": _sha256(self.path),
            "scale": scale,
            "rank": _one_or_all(layer.rank for layer in self.layers),
            "alpha": _one_or_all(layer.alpha for layer in self.layers),
            "layers": len(self.layers),
        }


def read_lora_params(given: Any, key: str) -> tuple[Lora, ...]:
    """The parameter `lora`: a path, {path, scale}, or a list of these. Raises UserError that names `key`."""
    entries = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
    return tuple(_read_entry(entry, key) for entry in entries)


def _read_entry(entry: Any, key: str) -> Lora:
    fields = {"path": entry} if isinstance(entry, str | Path) else entry
    if not isinstance(fields, Mapping) or not {"path"} <= set(fields) <= {"path", "scale"}:
        raise UserError(f"'{key}': {entry} is not {{path, scale}}")
    path, scale = fields["path"], fields.get("scale", 1.0)
    if not isinstance(path, str | Path):
        raise UserError(f"'{key}': the path {path!r} is no text")
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
        raise UserError(f"'{key}': the scale {scale!r} of {path} is no number")
    return Lora(Path(path).expanduser(), float(scale))


def read_lora(path: Path, key: str) -> LoraFile:
    """What a file holds, by its header. Raises UserError that names `key` if the file is missing, pickled or cut off,
    or holds anything but whole LoRA layers."""
    if path.suffix != ".safetensors":
        raise UserError(f"'{key}': {path} is no safetensors file; others are never loaded")
    if not path.is_file():
        raise UserError(f"'{key}': no file {path}")
    header = read_header(path)
    parts: dict[str, dict[str, str]] = {}  # by module: "down", "up" and "alpha", each the name of a tensor
    foreign = []
    for name in header.tensors:
        match = _PART.fullmatch(name)
        if match is None:
            foreign.append(name)
            continue
        part = next(part for part in ("down", "up", "alpha") if match[part])
        if part in parts.setdefault(match["module"], {}):
            raise UserError(f"'{key}': {path} holds two adapters of {match['module']}; take a file of one")
        parts[match["module"]][part] = name
    if foreign:
        _refuse_foreign(path, key, foreign[0], bool(parts))
    if not parts:
        raise UserError(f"'{key}': {path} holds no LoRA weights")
    alphas = _Alphas(path, header, key, peft_names=any(module.startswith(_PEFT) for module in parts))
    layers = tuple(_layer(path, key, header, module, names, alphas) for module, names in parts.items())
    return LoraFile(path, header, layers)


def _refuse_foreign(path: Path, key: str, name: str, has_lora: bool) -> None:
    kind = next((kind for sign, kind in _OTHER_KINDS.items() if sign in name), None)
    if kind is None and not has_lora:
        raise UserError(f"'{key}': {path} holds no LoRA weights ('{name}' is no part of one)")
    kind = kind or ("a bias" if name.endswith("bias") else "something else")
    raise UserError(f"'{key}': {path} is no plain LoRA: '{name}' is {kind}, and would be left out")


def _layer(path: Path, key: str, header: Header, module: str, names: Mapping[str, str], alphas: _Alphas) -> LoraLayer:
    if not {"down", "up"} <= set(names):
        missing = "lora_A (down)" if "down" not in names else "lora_B (up)"
        raise UserError(f"'{key}': {path} has no {missing} for {module}; the file is incomplete")
    down, up = header.tensors[names["down"]].shape, header.tensors[names["up"]].shape
    if len(down) < 2 or len(up) < 2 or down[0] != up[1] or not down[0]:
        raise UserError(f"'{key}': {path}: the factors of {module}, {list(up)} and {list(down)}, can't be multiplied")
    if narrow := {header.tensors[names[part]].dtype for part in ("down", "up")} - FLOATS:
        raise UserError(f"'{key}': {path}: the factors of {module} are {min(narrow)}, no floating-point numbers")
    rank = down[0]
    return LoraLayer(module, names["down"], names["up"], rank, alphas.of(module, rank, names.get("alpha")))


class _Alphas:
    """Where a file says alpha: a tensor of the layer's own, else the file's metadata, else peft's configuration beside
    it. Files that say none were made for alpha = rank, diffusers' convention."""

    def __init__(self, path: Path, header: Header, key: str, peft_names: bool) -> None:
        self.path, self.header, self.key = path, header, key
        self.config = _config_in(header.metadata, path, key)
        beside = path.with_name("adapter_config.json")
        if not self.config and peft_names:
            if not beside.is_file():
                raise UserError(
                    f"'{key}': {path} has peft's names, and peft keeps the alpha in {beside.name}; put it beside"
                )
            self.config = read_json(beside)
        if self.config.get("use_dora") or str(self.config.get("peft_type") or "LORA").upper() != "LORA":
            raise UserError(f"'{key}': {path} is no plain LoRA, by its configuration")

    def of(self, module: str, rank: int, tensor: str | None) -> float:
        if tensor is not None:
            alpha: Any = _read_scalar(self.path, self.header.tensors[tensor])
        else:
            alpha = self._pattern(module)
            alpha = self.config.get("lora_alpha", rank) if alpha is None else alpha
        try:
            alpha = float(alpha)
        except (TypeError, ValueError, OverflowError):
            alpha = math.nan
        if not math.isfinite(alpha):
            raise UserError(f"'{self.key}': {self.path}: the alpha of {module} is no number")
        # rsLoRA (https://arxiv.org/abs/2312.03732) divides by √rank instead of the rank.
        return alpha * math.sqrt(rank) if tensor is None and self.config.get("use_rslora") else alpha

    def _pattern(self, module: str) -> Any:
        """By peft's rule: a pattern matches the whole name of a layer, or the end of it behind a dot; with ^ the whole
        alone, as the model has it."""
        names = list(_names_of(module, {}))
        try:
            patterns = (self.config.get("alpha_pattern") or {}).items()
            matching = (alpha for end, alpha in patterns for name in names if re.match(rf"(.*\.)?({end})$", name))
            return next(matching, None)
        except (AttributeError, re.error):
            raise UserError(f"'{self.key}': {self.path}: its alpha_pattern can't be read") from None


def _config_in(metadata: Mapping[str, Any], path: Path, key: str) -> dict[str, Any]:
    """Of LoraConfig's fields those that the metadata tell: as diffusers saves them, or plainly. A component's name
    may stand before a field, as in `transformer.lora_alpha`."""
    try:
        saved = json.loads(metadata["lora_adapter_metadata"]) if "lora_adapter_metadata" in metadata else {}
        fields = {
            name.rpartition(".")[2]: value for name, value in saved.items() if not name.startswith("text_encoder")
        }
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"'{key}': {path}: its lora_adapter_metadata can't be read") from None
    plain = next((metadata[name] for name in _ALPHA_METADATA if name in metadata), None)
    return fields if fields or plain is None else {"lora_alpha": plain}


def _read_scalar(path: Path, tensor: TensorInfo) -> float:
    """The value of a tensor of one element; NaN for any other."""
    formats = {"F64": "<d", "F32": "<f", "F16": "<e", "BF16": "<f", "I64": "<q", "I32": "<i"}
    if tensor.parameters != 1 or tensor.dtype not in formats:
        return math.nan
    padding = b"\0\0" if tensor.dtype == "BF16" else b""
    layout = formats[tensor.dtype]
    with path.open("rb") as stream:
        stream.seek(tensor.start)
        return float(struct.unpack(layout, padding + stream.read(struct.calcsize(layout) - len(padding)))[0])


def fit_lora(lora: LoraFile, tensors: Mapping[str, TensorInfo], key: str) -> LoraFile:
    """The same with the model's names of its layers; `tensors` are the model's, by name. Raises UserError that names
    `key` where a layer isn't in the model, or has another shape."""
    modules = {name.removesuffix(".weight") for name in tensors if name.endswith(".weight")}
    flat = {module.replace(".", "_"): module for module in modules}
    layers = []
    for layer in lora.layers:
        module = next((name for name in _names_of(layer.module, flat) if name in modules), None)
        if module is None:
            raise UserError(f"'{key}': {lora.path} does not fit this model, which has no layer {layer.module}")
        weight = without_ones(tensors[f"{module}.weight"].shape)
        down, up = (without_ones(lora.header.tensors[name].shape) for name in (layer.down, layer.up))
        if (up[0], *down[1:]) != weight or len(up) > 2:
            raise UserError(
                f"'{key}': {lora.path} does not fit this model: {module} is {list(weight)}, "
                f"its factors are {list(up)} and {list(down)}"
            )
        layers.append(replace(layer, module=module))
    module, times = Counter(layer.module for layer in layers).most_common(1)[0]
    if times > 1:
        raise UserError(f"'{key}': {lora.path} holds {times} adapters of {module}; take a file of one")
    return replace(lora, layers=tuple(layers))


def _names_of(module: str, flat: Mapping[str, str]) -> Iterable[str]:
    """What the model may call a layer of the file."""
    yield module
    for prefix in _FLAT_PREFIXES:
        if module.startswith(prefix) and (named := flat.get(module.removeprefix(prefix))):
            yield named
    stripped = module
    while prefix := next((prefix for prefix in _PREFIXES if stripped.startswith(prefix)), ""):
        stripped = stripped.removeprefix(prefix)
        yield stripped


def peft_config(layers: Iterable[LoraLayer]) -> dict[str, Any]:
    """The arguments of peft's LoraConfig for these layers, every rank and alpha said: nothing is left to be guessed."""
    layers = list(layers)
    rank, alpha = layers[0].rank, layers[0].alpha
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {f"^{re.escape(layer.module)}": layer.rank for layer in layers if layer.rank != rank},
        "alpha_pattern": {f"^{re.escape(layer.module)}": layer.alpha for layer in layers if layer.alpha != alpha},
        "target_modules": [layer.module for layer in layers],
    }


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A factor of a convolution of one pixel may be written with or without the pixel's dimensions."""
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _one_or_all(values: Iterable[float]) -> Any:
    distinct = sorted(set(values))
    return distinct[0] if len(distinct) == 1 else distinct


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(2**24):
            digest.update(chunk)
    return digest.hexdigest()
