"""The metrics that papers report: each as it is defined, or refused before anything starts."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import make_benchmark, make_config, rows, summary
from PIL import Image, ImageDraw, ImageFilter
from tiny_embedders import save_clip, save_dino

from slurm_bench.cli import main
from slurm_bench.errors import SampleError, UserError
from slurm_bench.scorers.base import Scored, ScoreRequest
from slurm_bench.scorers.metrics import ImageMetrics, lpips
from slurm_bench.stages.work import checked_scores

pytest.importorskip("torchmetrics")


def picture(seed: int, size: tuple[int, int] = (80, 64)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2))


def asked(edited: Image.Image, target: Image.Image | None = None, **more: Any) -> ScoreRequest:
    """`target` is the reference."""
    told = {"description": "", "mask": None, "source": picture(99), "instruction": "make it red"} | more
    said = ("a", "c", told["instruction"], (told["source"],), edited, target, told["description"], "", 0)
    return ScoreRequest(*said, mask=told["mask"])


def scored(scorer: ImageMetrics, *requests: ScoreRequest) -> list[dict[str, float]]:
    """Every score within the range that the scorer declares."""
    if scorer._on == "cpu" and scorer.device is None:
        scorer.device = "cpu"
        scorer.load()
    found = []
    for result in scorer.score(requests):
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, Scored)
        found.append(checked_scores(result.scores, scorer.scores))
    return found


def left_half(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle((0, 0, size[0] // 2 - 1, size[1]), fill=255)
    return mask.convert("RGB")


def test_psnr_and_ssim_equal_scikit_images() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    edited, target = picture(1), picture(1).filter(ImageFilter.GaussianBlur(1))
    (found,) = scored(ImageMetrics(), asked(edited, target))
    a, b = (np.asarray(image, dtype=np.float64) / 255 for image in (edited, target))
    assert found["psnr"] == pytest.approx(metrics.peak_signal_noise_ratio(b, a, data_range=1), abs=1e-3)
    _, full = metrics.structural_similarity(
        a, b, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert found["ssim"] == pytest.approx(full.mean(), abs=2e-3)
    assert found["identical"] == 0


def test_equal_images_have_no_psnr_and_are_counted() -> None:
    same, other = scored(ImageMetrics(), asked(picture(1), picture(1)), asked(picture(2), picture(1)))
    assert same == {"identical": 1.0, "ssim": pytest.approx(1.0)}
    assert math.isfinite(other["psnr"])
    assert ImageMetrics().scores["psnr"].worst == 0


def test_each_side_of_a_mask_has_scores_of_its_own() -> None:
    target = picture(1)
    edited = target.copy()
    edited.paste(Image.new("RGB", (20, 64), "red"), (0, 0))
    scorer = ImageMetrics(masked=True)
    (found,) = scored(scorer, asked(edited, target, mask=left_half(target.size)))
    a, b = (np.asarray(image, dtype=np.float64)[:, :40] / 255 for image in (edited, target))
    assert found["psnr_inside"] == pytest.approx(-10 * math.log10(((a - b) ** 2).mean()), abs=1e-3)
    assert found["identical_outside"] == 1
    assert "psnr_outside" not in found
    assert found["ssim_inside"] < found["ssim"] < found["ssim_outside"]
    assert set(found) < set(scorer.scores)
    clear = target.convert("RGBA")
    clear.paste((0, 0, 0, 0), (0, 0, 40, 64))  # transparent where the edit is wanted, as an inpainter's mask
    assert scored(scorer, asked(edited, target, mask=clear.resize((160, 128)))) == [found]
    opaque = left_half(target.size).convert("RGBA")  # an alpha channel that says nothing
    assert scored(scorer, asked(edited, target, mask=opaque)) == [found]
    assert set(scored(scorer, asked(edited, target))[0]) == {"identical", "psnr", "ssim"}, "this sample has no mask"
    (whole,) = scored(scorer, asked(edited, target, mask=Image.new("L", target.size, 255)))
    assert "ssim_inside" in whole
    assert not [name for name in whole if name.endswith("outside")], "there is no pixel"
    with pytest.raises(SampleError, match="mask is neither transparent"):
        scored(scorer, asked(edited, target, mask=picture(3)))


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SqueezeNet's file with random weights, in a cache of torch's of its own."""
    import torch
    import torchvision

    torch.manual_seed(0)
    file = tmp_path / "hub" / "checkpoints" / "squeezenet.pth"
    file.parent.mkdir(parents=True)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), file)
    named = file.with_name(f"squeezenet-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth")
    file.rename(named)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(lpips.BACKBONES, "squeeze", ("squeezenet1_1", named.name))
    return named


def test_lpips_grows_with_the_distance_and_its_weights_are_read_from_disk(weights: Path) -> None:
    scorer = ImageMetrics(["lpips"], lpips_net="squeeze", masked=True, device="cpu")
    scorer.check()
    scorer.load()
    target = picture(1)
    near, far = target.filter(ImageFilter.GaussianBlur(1)), picture(5)
    mixed = far.copy()
    mixed.paste(target.crop((0, 0, 40, 64)), (0, 0))
    requests = [asked(image, target, mask=left_half(target.size)) for image in (target, near, far, mixed)]
    same, blurred, other, half = scored(scorer, *requests)
    assert same == pytest.approx({"lpips": 0, "lpips_inside": 0, "lpips_outside": 0}, abs=1e-6)
    assert 0 < blurred["lpips"] < other["lpips"]
    assert half["lpips_inside"] == pytest.approx(0, abs=1e-6)
    assert half["lpips_outside"] == pytest.approx(half["lpips"])
    assert scorer.scores["lpips"].worst is None, "it has no upper end"
    import torch

    (read,) = (v for k, v in scorer._lpips.net.state_dict().items() if k.endswith(".3.squeeze.weight"))
    assert torch.equal(read, torch.load(weights, weights_only=True)["features.3.squeeze.weight"])


@pytest.mark.parametrize("net", lpips.BACKBONES)
def test_the_backbones_are_torchvisions_own(net: Any) -> None:
    import torch
    import torchvision
    from torchmetrics.functional.image.lpips import _NoTrainLpips

    name, file = lpips.BACKBONES[net]
    assert torchvision.models.get_model_weights(name).DEFAULT.url.endswith(f"/{file}")
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a tensor without data takes none
        taken = _NoTrainLpips(net=net, pnet_rand=True).net.state_dict()
        whole = torchvision.models.get_model(name, weights=None).state_dict()
    assert {lpips.torchvision_key(key): value.shape for key, value in taken.items()}.items() <= {
        key: value.shape for key, value in whole.items()
    }.items()


def test_weights_that_are_missing_or_damaged_are_refused_before_anything_starts(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = ImageMetrics(["lpips"], lpips_net="squeeze")
    scorer.check()
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match="is damaged"):
        scorer.check()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"'params.metrics': lpips: its weights aren't in .*torchvision.models.squeeze"):
        scorer.check()
    with pytest.raises(UserError, match="its weights aren't in"):
        scorer.load()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {"clip": str(save_clip(folder / "clip")), "dino": str(save_dino(folder / "dino"))}


def test_clip_and_dino_are_cosines_of_the_models_own_features(models: dict[str, str]) -> None:
    import torch
    from transformers import AutoModel, AutoProcessor, AutoTokenizer

    scorer = ImageMetrics(["clip_i", "clip_t", "dino"], **models)
    scorer.check()
    edited, target = picture(1, (32, 32)), picture(2, (32, 32))
    (found,) = scored(scorer, asked(edited, target, description="red"))
    clip, dino = (AutoModel.from_pretrained(models[name]).eval() for name in ("clip", "dino"))
    images = [AutoProcessor.from_pretrained(models["clip"]), AutoProcessor.from_pretrained(models["dino"])]
    with torch.inference_mode():
        seen = clip.vision_model(**images[0](images=[edited, target], return_tensors="pt")).pooler_output
        seen = clip.visual_projection(seen)
        read = clip.text_model(**AutoTokenizer.from_pretrained(models["clip"])(["red"], return_tensors="pt"))
        read = clip.text_projection(read.pooler_output)
        first = dino(**images[1](images=[edited, target], return_tensors="pt")).last_hidden_state[:, 0]
    cosine = torch.nn.functional.cosine_similarity
    assert found["clip_i"] == pytest.approx(float(cosine(seen[0], seen[1], dim=0)), abs=1e-5)
    assert found["clip_t"] == pytest.approx(float(cosine(seen[0], read[0], dim=0)), abs=1e-5)
    assert found["dino"] == pytest.approx(float(cosine(first[0], first[1], dim=0)), abs=1e-5)
    (same,) = scored(scorer, asked(target, target))
    assert same == {"clip_i": pytest.approx(1.0, abs=1e-5), "dino": pytest.approx(1.0, abs=1e-5)}, "it has no text"


def test_a_text_that_clip_cannot_read_whole_is_named(models: dict[str, str]) -> None:
    scorer = ImageMetrics("clip_t", text="instruction", clip=models["clip"], device="cpu")
    scorer.load()
    short, long = scorer.score([asked(picture(1), instruction="red"), asked(picture(1), instruction="please " * 5)])
    assert isinstance(short, Scored)
    assert isinstance(long, Scored)
    assert short.info == {}
    assert long.info == {"prompt_cut": 5 * len("please") + 2 - 12}


def test_neighbours_leave_no_trace(models: dict[str, str]) -> None:
    scorer = ImageMetrics(["psnr", "ssim", "clip_i", "clip_t", "dino"], masked=True, text="instruction", **models)
    sizes = [(80, 64), (40, 48), (80, 64), (120, 20), (80, 64)]
    requests = [
        asked(picture(n, size), picture(n + 50, size), mask=left_half(size) if n % 2 else None)
        for n, size in enumerate(sizes)
    ]
    together = scored(scorer, *requests)
    for alone, beside in zip(requests, together, strict=True):
        assert scored(scorer, alone)[0] == pytest.approx(beside, abs=1e-5)


def test_what_a_sample_has_nothing_for_is_absent_and_nothing_at_all_is_its_error() -> None:
    lacking = asked(picture(1), None)
    results = ImageMetrics().score(
        [lacking, asked(picture(1), picture(2)), asked(picture(1, (8, 8)), picture(2, (8, 8)))]
    )
    assert isinstance(results[0], SampleError)
    assert "no reference ('params.against: source')" in str(results[0])
    assert isinstance(results[1], Scored)
    assert "8×8; ssim needs at least 11×11" in str(results[2])
    assert "psnr" in scored(ImageMetrics(against="source"), lacking)[0]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"metrics": ["psnr", "sim"]}, "no metric 'sim'; did you mean 'ssim'?"),
        ({"metrics": []}, "'params.metrics' is empty"),
        ({"metrics": ["clip_t", "clip_i"]}, "'params.clip' is not set; clip_i needs a model"),
        ({"metrics": ["dino"], "dino": "/no/such"}, "'params.dino': no folder /no/such"),
        ({"metrics": ["clip_i"], "clip": "{dino}"}, "is of the kind 'vit', not clip"),
        ({"metrics": ["dino"], "dino": "{dino}", "masked": True}, "'params.masked': only psnr, ssim, lpips"),
    ],
)
def test_what_cannot_work_is_one_line(params: dict[str, Any], said: str, models: dict[str, str]) -> None:
    params = {k: v.format(**models) if isinstance(v, str) else v for k, v in params.items()}
    with pytest.raises(UserError) as caught:
        ImageMetrics(**params).check()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_refused(models: dict[str, str], tmp_path: Path) -> None:
    folder = save_dino(tmp_path / "dino")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights are never loaded"):
        ImageMetrics("dino", dino=str(folder)).check()


def test_what_a_job_downloads_is_checked_like_what_was_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_dino(tmp_path / "dino")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "own.Model"}}))
    monkeypatch.setattr("slurm_bench.scorers.metrics.embedding.locate", lambda *_, **__: None)
    monkeypatch.setattr("slurm_bench.scorers.metrics.embedding.download_model", lambda *_: folder)
    scorer = ImageMetrics("dino", dino="owner/dino", device="cpu")
    scorer.check()
    assert scorer.provenance() == {"dino_commit": None}
    with pytest.raises(UserError, match="model's own code"):
        scorer.load()


def test_without_torchmetrics_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slurm_bench.scorers.metrics.image.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"psnr needs torchmetrics: pip install 'slurm_bench\[metrics\]'"):
        ImageMetrics().check()


def test_a_run_with_masks_has_a_column_for_each_side_beside_another_scorers(tmp_path: Path) -> None:
    data = make_benchmark(tmp_path / "bench", 4)
    left_half((48, 32)).save(tmp_path / "bench" / "mask.png")
    lines = [json.loads(line) | {"where": "mask.png"} for line in data.read_text().splitlines()]
    del lines[3]["where"]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = {
        "class_path": "slurm_bench.scorers.metrics.ImageMetrics",
        "params": {"masked": True, "against": "source"},
    }
    scorers = {"judge": {"class_path": "tests.plugins.Brightness"}, "image": metrics}
    config = make_config(tmp_path / "c.yaml", data, scorers=scorers)
    words = ("data.fields.mask=where", "--executor", "debug", "--run-dir", tmp_path / "run")
    assert main(["--config", str(config), *map(str, words)]) == 0
    table = rows(tmp_path / "run")
    assert all(float(row["image.psnr_inside"]) > 0 for row in table[:3])
    assert [row["image.psnr_outside"] for row in table[3:]] == [""], "this one has no mask"
    assert all(row["judge.brightness"] and row["image.ssim"] for row in table)
    assert summary(tmp_path / "run")["scales"]["image.ssim_outside"] == {"low": -1, "high": 1, "higher_is_better": True}
