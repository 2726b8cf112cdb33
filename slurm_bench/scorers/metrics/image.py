"""The image metrics that papers report, as many as are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal

from PIL import Image

from slurm_bench.config import nearest
from slurm_bench.errors import SampleError, UserError
from slurm_bench.machine import check_device, choose_device
from slurm_bench.scorers.base import Score, Scored, ScoreRequest
from slurm_bench.scorers.metrics import lpips
from slurm_bench.scorers.metrics.embedding import Clip, Dino, Embedder
from slurm_bench.scorers.metrics.reference import fitted, on_white
from slurm_bench.scorers.metrics.regions import SIDES, WINDOW, Pair, mask_of, measured

SCALES = {
    "psnr": Score(0, None),
    "ssim": Score(-1, 1),
    "lpips": Score(0, None, higher_is_better=False),
    "clip_i": Score(-1, 1),
    "clip_t": Score(-1, 1),
    "dino": Score(-1, 1),
}
_PIXELS = ("psnr", "ssim", "lpips")
_AT_ONCE = 8  # pairs of one size: SSIM holds some ten copies of each in float32


class ImageMetrics:
    """`metrics` are any of:

    - `psnr`, `ssim`, `lpips`: distances of pixels (see `regions.measured`); the edited image is fitted to the other by
      bicubic resizing. With `psnr` comes `identical`, 1 where all pixels are equal: such a pair has no PSNR.
    - `clip_i`, `dino`: cosine of the embeddings of both images
    - `clip_t`: cosine of the edited image's and a text's: the sample's `text`, its description or its instruction

    `against` is what the edited image is held against: the data's reference, or the first source. `masked` adds `psnr`,
    `ssim` and `lpips` inside and outside the sample's mask, as `psnr_inside`, where it has one. `clip` and `dino` name
    the models, folders or ids on the hub. A sample lacks the scores that it has no image or no text for.
    """

    def __init__(
        self,
        metrics: Sequence[str] = ("psnr", "ssim"),
        against: Literal["reference", "source"] = "reference",
        text: Literal["description", "instruction"] = "description",
        masked: bool = False,
        lpips_net: Literal["alex", "vgg", "squeeze"] = "alex",
        clip: str | None = None,
        clip_revision: str | None = None,
        dino: str | None = None,
        dino_revision: str | None = None,
        device: str | None = None,
    ) -> None:
        self.metrics = tuple(dict.fromkeys([metrics] if isinstance(metrics, str) else metrics))
        for name in self.metrics:
            if name not in SCALES:
                raise UserError(f"'params.metrics': no metric '{name}'; {nearest(name, SCALES)}")
        if not self.metrics:
            raise UserError(f"'params.metrics' is empty; it has some of {', '.join(SCALES)}")
        self.pixels = [name for name in self.metrics if name in _PIXELS]
        if masked and not self.pixels:
            raise UserError(f"'params.masked': only {', '.join(_PIXELS)} have a mask")
        self.against, self.text, self.masked, self.net, self.device = against, text, masked, lpips_net, device
        self.clip = _embedder(Clip, "clip", clip, clip_revision, {"clip_i", "clip_t"} & {*self.metrics})
        self.dino = _embedder(Dino, "dino", dino, dino_revision, {"dino"} & {*self.metrics})
        self._lpips: Any = None
        self._on = "cpu"

    @property
    def scores(self) -> Mapping[str, Score]:
        """Each metric's range, and after it those of its masked variants."""
        found: dict[str, Score] = {}
        for name in self.metrics:
            for ending in ("", *(f"_{side}" for side in SIDES if self.masked and name in _PIXELS)):
                found[f"{name}{ending}"] = SCALES[name]
        endings = [name.removeprefix("psnr") for name in found if name.startswith("psnr")]
        return found | {f"identical{ending}": Score(0, 1, higher_is_better=None) for ending in endings}

    def check(self) -> None:
        """The packages and weights are there, before anything starts."""
        check_device(self.device, "params.device")
        if self.pixels and find_spec("torchmetrics") is None:
            raise UserError(
                f"'params.metrics': {self.pixels[0]} needs torchmetrics: pip install 'slurm_bench[metrics]'"
            )
        if "lpips" in self.pixels and (why := lpips.missing(self.net)):
            raise UserError(f"'params.metrics': lpips: {why}")
        for embedder in self._embedders():
            embedder.check()

    def load(self) -> None:
        self._on = choose_device(self.device, "params.device")
        if "lpips" in self.pixels:
            self._lpips = lpips.load_lpips(self.net, self._on)
        for embedder in self._embedders():
            embedder.load(self._on)

    def provenance(self) -> dict[str, Any]:
        return {
            f"{embedder.key.removeprefix('params.')}_commit": embedder.found.commit if embedder.found else None
            for embedder in self._embedders()
        }

    def score(self, batch: Sequence[ScoreRequest]) -> list[Scored | Exception]:
        edited = [on_white(request.edited) for request in batch]
        targets = [self._target(request) for request in batch]
        found: list[Scored | Exception] = [Scored({}) for _ in batch]
        held = [n for n, target in enumerate(targets) if target is not None]
        self._score_pixels(batch, edited, targets, found)
        for name, embedder in (("clip_i", self.clip), ("dino", self.dino)):
            if name in self.metrics and embedder and held:
                both = embedder.images([edited[n] for n in held] + [targets[n] for n in held])
                _add(found, held, name, (both[: len(held)] * both[len(held) :]).sum(dim=-1))
        if "clip_t" in self.metrics and self.clip:
            self._score_texts(batch, edited, found)
        return [self._said(one, request) for one, request in zip(found, batch, strict=True)]

    def _score_pixels(
        self,
        batch: Sequence[ScoreRequest],
        edited: Sequence[Image.Image],
        targets: Sequence[Image.Image | None],
        found: list[Scored | Exception],
    ) -> None:
        """Pairs of one size at once."""
        sizes: dict[tuple[int, int], list[tuple[int, Pair]]] = {}
        for n, target in enumerate(targets):
            if target is None or not self.pixels:
                continue
            try:
                pair = Pair(fitted(edited[n], target.size), target, self._mask(batch[n], target.size))
                self._refuse_small(target)
                sizes.setdefault(target.size, []).append((n, pair))
            except SampleError as error:
                found[n] = error
        for pairs in sizes.values():
            for start in range(0, len(pairs), _AT_ONCE):
                places, some = zip(*pairs[start : start + _AT_ONCE], strict=True)
                for n, scores in zip(places, measured(some, self.pixels, self._lpips, self._on), strict=True):
                    found[n] = Scored(scores)

    def _score_texts(
        self, batch: Sequence[ScoreRequest], edited: Sequence[Image.Image], found: list[Scored | Exception]
    ) -> None:
        told = [n for n, request in enumerate(batch) if getattr(request, self.text).strip()]
        if not told or self.clip is None:
            return
        texts, cut = self.clip.texts([getattr(batch[n], self.text) for n in told])
        _add(found, told, "clip_t", (self.clip.images([edited[n] for n in told]) * texts).sum(dim=-1))
        for n, tokens in zip(told, cut, strict=True):
            one = found[n]
            if tokens and isinstance(one, Scored):
                found[n] = Scored(one.scores, info={"prompt_cut": tokens})

    def _target(self, request: ScoreRequest) -> Image.Image | None:
        image = request.source if self.against == "source" else request.reference
        return None if image is None else on_white(image)

    def _mask(self, request: ScoreRequest, size: tuple[int, int]) -> Any:
        return mask_of(request.mask, size) if self.masked and request.mask is not None else None

    def _refuse_small(self, target: Image.Image) -> None:
        for name, least in (("ssim", WINDOW), ("lpips", lpips.SMALLEST)):
            if name in self.pixels and min(target.size) < least:
                raise SampleError(
                    f"the {self.against} is {target.width}×{target.height}; {name} needs at least {least}×{least}"
                )

    def _said(self, one: Scored | Exception, request: ScoreRequest) -> Scored | Exception:
        if isinstance(one, Exception) or one.scores:
            return one
        lacking = [] if request.reference or self.against == "source" else ["reference ('params.against: source')"]
        if "clip_t" in self.metrics:
            lacking.append(f"{self.text} ('params.text')")
        return SampleError(
            f"there is nothing to hold the edited image against: the data have no {' and no '.join(lacking)}"
        )

    def _embedders(self) -> list[Embedder]:
        return [embedder for embedder in (self.clip, self.dino) if embedder is not None]


def _embedder(kind: Any, name: str, model: str | None, revision: str | None, wanted: set[str]) -> Any:
    """None where no metric needs it. Raises UserError where one does and the model isn't named."""
    if not wanted:
        return None
    if model is None:
        raise UserError(
            f"'params.{name}' is not set; {min(wanted)} needs a model: a folder, or an id on the hub with safetensors"
        )
    return kind(f"params.{name}", model, revision)


def _add(found: list[Scored | Exception], places: Sequence[int], name: str, cosines: Any) -> None:
    """Rounding takes a cosine beyond its range."""
    for n, cosine in zip(places, cosines.clamp(-1, 1).tolist(), strict=True):
        one = found[n]
        if isinstance(one, Scored):
            found[n] = Scored({**one.scores, name: cosine}, info=one.info)
