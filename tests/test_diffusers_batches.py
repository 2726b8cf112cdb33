"""Several samples in one call of a pipeline: each comes out as it does alone, but for rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_diffusers_editor import CALL, KONTEXT, KONTEXT_CALL, NAME, loaded
from tiny_models import noise_image, request
from tiny_pipelines import save_tiny

from slurm_bench.editors.base import Edited
from slurm_bench.editors.diffusers_pipeline import DiffusersEditor
from slurm_bench.editors.diffusers_pipeline.families import FAMILIES
from slurm_bench.errors import SampleError, UserError

CALLS: dict[str, dict[str, Any]] = {
    NAME: CALL,
    "StableDiffusionXLInstructPix2PixPipeline": CALL,
    KONTEXT: KONTEXT_CALL,
}


@pytest.fixture(autouse=True)
def _one_thread():
    """Several only get in each other's way at this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(NAME, tmp_path_factory.mktemp("pix2pix"))


def samples(width: int = 64, height: int = 48) -> list[Any]:
    wishes = ("make it red", "a much longer wish, in blue, " + "with words " * 8, "x")
    return [
        request(wish, seed, (noise_image(width, height, seed=seed),), id=str(seed)) for seed, wish in enumerate(wishes)
    ]


def pixels(edited: Any) -> np.ndarray:
    assert isinstance(edited, Edited), edited
    return np.asarray(edited.image, dtype=int)


def test_every_pipeline_that_batches_is_tried_here() -> None:
    assert {name for name, family in FAMILIES.items() if family.batches} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_each_comes_out_as_alone(name: str, tmp_path: Path) -> None:
    """Within one shade of 256, where another seed or prompt is tens of shades away."""
    sizes: dict[str, Any] = {"min_pixels": 0, "max_pixels": 64 * 64} if name == KONTEXT else {}
    params = {"pipeline": name, "call": CALLS[name], **sizes}
    folder = save_tiny(name, tmp_path)
    one_by_one, batched = loaded(folder, **params), loaded(folder, **params, batched=True)
    requests = samples()
    alone, together = ([pixels(edited) for edited in each.edit(requests)] for each in (one_by_one, batched))
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one - other).max() <= 1
    assert np.abs(alone[0] - alone[1]).max() > 10
    said = [edited.info for edited in batched.edit(requests)]
    assert [info["batch"] for info in said] == [3, 3, 3]
    assert ["prompt_cut" in info for info in said] == ["prompt_cut" in e.info for e in one_by_one.edit(requests)]
    assert [info["forwards"] for info in said] == [CALLS[name]["num_inference_steps"]] * 3


def test_only_those_of_one_size_go_together_and_each_finds_its_place(folder: Path) -> None:
    editor = loaded(folder, batched=True)
    wide, high = samples(), samples(48, 64)
    several = request(images=(noise_image(), noise_image()))
    results = editor.edit([wide[0], high[0], several, wide[1]])
    assert isinstance(results[2], SampleError)
    found = [results[place] for place in (0, 1, 3)]
    assert [edited.info.get("batch") for edited in found] == [2, None, 2]
    for edited, sample in zip(found, (wide[0], high[0], wide[1]), strict=True):
        assert edited.image.size == sample.image.size
        assert np.abs(pixels(edited) - pixels(editor.edit([sample])[0])).max() <= 1


def test_a_sample_that_fails_costs_itself_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = loaded(folder, batched=True)
    encode = editor._pipeline._encode_prompt

    def refuse_cursed(prompt: Any, *args: Any, **words: Any) -> Any:
        if "cursed" in str(prompt):
            raise SampleError("the model gave infinite or undefined values")
        return encode(prompt, *args, **words)

    monkeypatch.setattr(editor._pipeline, "_encode_prompt", refuse_cursed)
    one, other = samples()[0], request("cursed", images=(noise_image(64, 48),))
    failed = [isinstance(result, SampleError) for result in editor.edit([one, other, one])]
    assert failed == [False, True, False]


def test_samples_that_would_share_a_generator_are_edited_one_by_one(folder: Path) -> None:
    """Such as by a scheduler that draws its noise from torch's own."""
    editors = [loaded(folder, batched=batched) for batched in (False, True)]
    for editor in editors:
        step = editor._pipeline.scheduler.step

        def noisy(velocity: torch.Tensor, *args: Any, step: Any = step, **words: Any) -> Any:
            return step(velocity + 0.1 * torch.randn_like(velocity), *args, **words)

        editor._pipeline.scheduler.step = noisy
    alone, together = (editor.edit(samples()) for editor in editors)
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(pixels(one), pixels(other))
        assert "batch" not in other.info
    assert not editors[1]._batched, "each later batch would be edited twice"


def test_it_is_off_unless_asked_for_and_refused_where_it_is_not_known_to_hold(folder: Path) -> None:
    assert "batch" not in loaded(folder).edit(samples())[0].info
    with pytest.raises(UserError, match=r"editor\.params\.batched.*InstructPix2Pix"):
        DiffusersEditor("QwenImageEditPipeline", "x", batched=True)
    with pytest.raises(UserError, match=r"editor\.params\.batched"):
        DiffusersEditor(NAME, "x", batched="yes")  # type: ignore[arg-type]
