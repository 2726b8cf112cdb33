"""Image metrics: equal to scikit-image's, bounded, and told from what they lack."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from slurm_bench.errors import SampleError, UserError
from slurm_bench.scorers.base import Score, ScoreRequest, declared_score, declared_scores
from slurm_bench.scorers.metrics import ReferenceMetrics


def picture(seed: int, size: tuple[int, int] = (70, 45)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2))


def score(
    source: Image.Image, edited: Image.Image, reference: Image.Image | None = None, **params: int
) -> dict[str, float]:
    request = ScoreRequest("a", "c", "edit", (source,), edited, reference, "", "", 0)
    (result,) = ReferenceMetrics(**params).score([request])
    if isinstance(result, Exception):
        raise result
    return result


@pytest.mark.parametrize("size", [(70, 45), (11, 11), (300, 12)])
def test_they_equal_scikit_image(size: tuple[int, int]) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    edited, reference = picture(1, size), picture(2, size)
    planes = [np.asarray(image.convert("L"), dtype=np.float64) for image in (edited, reference)]
    ssim = metrics.structural_similarity(
        *planes, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    result = score(edited, edited, reference)
    assert result["similarity"] == pytest.approx(max(0.0, ssim), abs=1e-9)
    psnr = metrics.peak_signal_noise_ratio(np.asarray(reference), np.asarray(edited), data_range=255)
    assert result["psnr"] == pytest.approx(psnr, abs=1e-9)


def test_similarity_of_near_images_equals_scikit_image_too() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    reference = picture(1)
    edited = reference.filter(ImageFilter.GaussianBlur(1))
    planes = [np.asarray(image.convert("L"), dtype=np.float64) for image in (edited, reference)]
    ssim = metrics.structural_similarity(
        *planes, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert 0.3 < ssim < 0.999
    assert score(edited, edited, reference)["similarity"] == pytest.approx(ssim, abs=1e-9)


def test_equal_images_get_the_best_of_each() -> None:
    result = score(picture(1), picture(2), picture(2))
    assert result.pop("changed") > 0.5
    assert result == {"similarity": pytest.approx(1.0), "psnr": 100.0, "l1": 0.0}


def test_opposite_images_get_the_worst() -> None:
    black, white = Image.new("RGB", (32, 32)), Image.new("RGB", (32, 32), "white")
    result = score(black, white, black)
    assert result["l1"] == 1.0
    assert result["psnr"] == 0.0
    assert result["changed"] == 1.0
    assert 0 <= result["similarity"] < 0.01


def test_similarity_never_falls_below_zero() -> None:
    checks = np.indices((32, 32)).sum(axis=0) % 2 * 255
    image = Image.fromarray(checks.astype(np.uint8)).convert("RGB")
    inverted = image.point(lambda level: 255 - level)
    assert score(image, inverted, image)["similarity"] == 0.0


def test_without_a_reference_only_what_changed_is_told() -> None:
    assert score(picture(1), picture(1)) == {"changed": 0.0}


def test_changed_counts_pixels_beyond_the_threshold() -> None:
    source = Image.new("RGB", (40, 10), (100, 100, 100))
    edited = source.copy()
    edited.paste((100, 116, 100), (0, 0, 10, 10))
    edited.paste((100, 100, 117), (10, 0, 20, 10))
    assert score(source, edited) == {"changed": 0.25}
    assert score(source, edited, threshold=10) == {"changed": 0.5}


def test_another_size_is_fitted_to_the_reference() -> None:
    reference = picture(1, (64, 64)).filter(ImageFilter.GaussianBlur(3))
    result = score(reference, reference.resize((128, 128), Image.Resampling.BICUBIC), reference)
    assert result["similarity"] > 0.98
    assert result["changed"] == 0.0


def test_what_is_transparent_counts_as_white() -> None:
    clear = Image.new("RGBA", (32, 32), (9, 9, 9, 0))
    white = Image.new("RGB", (32, 32), "white")
    assert score(white, clear, white)["l1"] == 0.0


def test_a_reference_too_small_for_the_window_is_this_samples_error() -> None:
    small = Image.new("RGB", (10, 50))
    good = ScoreRequest("a", "c", "edit", (picture(1),), picture(1), picture(1), "", "", 0)
    bad = ScoreRequest("b", "c", "edit", (small,), small, small, "", "", 0)
    first, second = ReferenceMetrics().score([bad, good])
    assert isinstance(first, SampleError)
    assert second["psnr"] == 100.0


def test_a_threshold_out_of_range_is_refused() -> None:
    for threshold in (-1, 255):
        with pytest.raises(UserError, match="threshold"):
            ReferenceMetrics(threshold)


def test_each_score_has_its_own_range_and_direction() -> None:
    declared = declared_scores(ReferenceMetrics())
    assert declared is not None
    image = picture(1)
    assert set(declared) == set(score(image, image, image))
    assert {name: one.worst for name, one in declared.items()} == {
        "similarity": 0,
        "psnr": 0,
        "l1": 1,
        "changed": None,
    }
    assert declared["similarity"].excludes(1.1)
    assert not declared["psnr"].excludes(99)


def test_a_scorer_of_one_s_own_may_say_less() -> None:
    class Own:
        pass

    own = Own()
    assert declared_scores(own) is None
    assert declared_score(declared_scores(own), "any") is None
    own.score_range = (1, 5)
    assert declared_score(declared_scores(own), "any") == Score(1, 5)
    own.scores = {"distance": Score(0, None, higher_is_better=False)}
    assert declared_score(declared_scores(own), "any") is None
    assert declared_scores(own)["distance"].worst is None
    assert not declared_scores(own)["distance"].excludes(1e9)


@pytest.mark.parametrize(
    "said",
    [
        {"scores": {"q": (0, 10)}},
        {"scores": ["q"]},
        {"score_range": 10},
        {"score_range": (10, 0)},
        {"score_range": ("0", "10")},
        {"scores": {"q": Score(5, 5)}},
    ],
)
def test_a_declaration_of_another_shape_is_refused(said: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(said))):
        declared_scores(type("Own", (), said)())
