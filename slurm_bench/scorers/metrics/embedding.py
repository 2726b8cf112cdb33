"""Embeddings of images and texts by a model on disk: CLIP for both, DINO for images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from slurm_bench.checkpoints.folder import ModelFolder, check_transformers_folder, read_json
from slurm_bench.checkpoints.hub import download_model, locate
from slurm_bench.errors import UserError

if TYPE_CHECKING:
    import torch
    from PIL import Image


@dataclass
class Embedder(ABC):
    """`key` is the parameter that names the model, for messages; `revision` is a commit or branch of the hub."""

    key: str
    model_name: str
    revision: str | None = None
    kinds: ClassVar[tuple[str, ...]] = ()
    files: ClassVar[tuple[tuple[str, ...], ...]] = (("preprocessor_config.json", "processor_config.json"),)
    found: ModelFolder | None = field(default=None, init=False)
    _model: Any = field(default=None, init=False)
    _processor: Any = field(default=None, init=False)

    def check(self) -> None:
        """Without torch. Raises UserError where the model can't be had, is incomplete, pickled, or of another kind."""
        folder = self._locate()
        if folder is not None:
            self._check(folder)

    def load(self, device: str) -> None:
        folder = self._locate() or download_model(self.model_name, self.revision)
        self._check(folder)
        self._load(folder, device)

    def images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Unit vectors, (images, width). The model's own preprocessing: most scale the shorter side and crop the
        middle, so what lies at the ends of a long picture isn't looked at."""
        import torch

        inputs = self._processor(images=list(images), return_tensors="pt").to(self._model.device)
        with torch.inference_mode():
            return torch.nn.functional.normalize(self._features(inputs), dim=-1)

    def _locate(self) -> Path | None:
        return locate(self.model_name, self.revision, self.key, index="config.json")

    def _check(self, folder: Path) -> None:
        kind = read_json(folder / "config.json").get("model_type")
        if kind not in self.kinds:
            raise UserError(f"'{self.key}': {self.model_name} is of the kind {kind!r}, not {' or '.join(self.kinds)}")
        for names in self.files:
            if not any((folder / name).is_file() for name in names):
                raise UserError(f"'{self.key}': {folder} has no {' or '.join(names)}; the download is incomplete")
        self.found = check_transformers_folder(folder)

    def _load(self, folder: Path, device: str) -> None:
        from transformers import AutoImageProcessor, AutoModel

        self._processor = AutoImageProcessor.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder, use_safetensors=True).eval().to(device)

    @abstractmethod
    def _features(self, inputs: Any) -> torch.Tensor:
        """The embeddings, [N, E], of what the processor made of N images."""


class Dino(Embedder):
    """The first token of the last layer, as DINO's authors compare images by."""

    kinds = ("vit", "dinov2", "dinov2_with_registers", "dinov3_vit")

    def _features(self, inputs: Any) -> torch.Tensor:
        return self._model(**inputs).last_hidden_state[:, 0]


class Clip(Embedder):
    kinds = ("clip",)
    files = (*Embedder.files, ("tokenizer.json", "vocab.json"))

    def texts(self, texts: Sequence[str]) -> tuple[torch.Tensor, list[int]]:
        """Unit vectors, (texts, width), and how many tokens of each were cut, for CLIP reads 77 at most."""
        import torch

        most = self._model.config.text_config.max_position_embeddings
        whole = [len(ids) for ids in self._tokenizer(list(texts))["input_ids"]]
        inputs = self._tokenizer(list(texts), padding=True, truncation=True, max_length=most, return_tensors="pt")
        with torch.inference_mode():
            features = self._model.get_text_features(**inputs.to(self._model.device)).pooler_output
        return torch.nn.functional.normalize(features, dim=-1), [max(0, length - most) for length in whole]

    def _load(self, folder: Path, device: str) -> None:
        from transformers import AutoTokenizer

        super()._load(folder, device)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    def _features(self, inputs: Any) -> torch.Tensor:
        return self._model.get_image_features(**inputs).pooler_output
