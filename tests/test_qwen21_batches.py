"""Several samples of Qwen-Image-2.1 denoised as one batch: each comes out as it does alone, but for rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_qwen21_editor import needs_pipeline, tiny
from test_qwen_editor import decoded, latents_of
from tiny_models import noise_image, request

from slurm_bench.editors.base import Edited
from slurm_bench.editors.qwen21 import QwenImage21Editor, transformer
from slurm_bench.errors import SampleError, UserError

torch.set_num_threads(1)  # more only get in each other's way at this size
WISHES = [
    request(id="a"),
    request("a much longer wish, in blue, with more words", 8, (noise_image(seed=3),), id="b"),
    request("x", 9, (noise_image(30, 40, "RGBA", seed=1), noise_image(seed=2)), id="c"),
]


@needs_pipeline
@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("profile", ["exact", "w8a16"])
def test_each_comes_out_as_alone(profile: str, scale: float) -> None:
    """Prompts and sources of different lengths, in float32 to 1e-4, where another seed or prompt is far away. Of three
    steps, since a schedule of two doesn't hang on the size of what is denoised."""
    params: dict[str, Any] = {"profile": profile, "true_cfg_scale": scale, "num_inference_steps": 3}
    alone = latents_of(tiny(**params), *WISHES)
    editor = tiny(**params, batched=True)
    with decoded(editor._session.pipeline) as found:
        results = editor.edit(WISHES)
    for one, other in zip(found, alone, strict=True):
        assert (one - other).abs().max() < 1e-4
    assert (alone[0] - alone[1]).abs().max() > 1e-1
    assert [edited.info["batch"] for edited in results if isinstance(edited, Edited)] == [3, 3, 3]
    assert [edited.info["forwards"] for edited in results if isinstance(edited, Edited)] == [6 if scale > 1 else 3] * 3


@needs_pipeline
def test_only_those_of_one_size_go_together_and_each_finds_its_place() -> None:
    editor, high = tiny(batched=True), request("x", 4, (noise_image(30, 60),), id="high")
    results = editor.edit([WISHES[0], high, WISHES[1]])
    assert [edited.info.get("batch") for edited in results] == [2, None, 2]
    alone = [tiny().edit([wish])[0] for wish in (WISHES[0], high, WISHES[1])]
    for one, other in zip(results, alone, strict=True):
        assert np.abs(np.asarray(one.image, dtype=int) - np.asarray(other.image, dtype=int)).max() <= 1


@needs_pipeline
def test_a_sample_that_fails_costs_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    editor = tiny(batched=True)
    known = len(editor._session.pipeline.transformer.pos_embed.freqs[0])
    monkeypatch.setattr(transformer, "NEGATIVE", known - 100)
    long, sliver = request("word " * 50, id="long"), request(images=(noise_image(900, 2),), id="sliver")
    results = editor.edit([WISHES[0], long, sliver, WISHES[1]])
    assert [isinstance(result, SampleError) for result in results] == [False, True, True, False]


@needs_pipeline
def test_prompts_encoded_first_are_batched_too() -> None:
    first, plain = tiny(batched=True, text_first=True), tiny(batched=True)
    first.prepare(iter(WISHES[:2]))
    for one, other in zip(first.edit(WISHES), plain.edit(WISHES), strict=True):
        assert np.array_equal(np.asarray(one.image), np.asarray(other.image))
    assert not first._session._encoded


def test_it_is_off_unless_asked_for_and_refused_where_samples_would_share_more() -> None:
    assert not QwenImage21Editor("x").settings.batched
    for profile in ("stock", "fp8"):
        with pytest.raises(UserError, match=r"editor\.params\.batched.*exact"):
            QwenImage21Editor("x", batched=True, profile=profile)
    with pytest.raises(UserError, match=r"editor\.params\.batched"):
        QwenImage21Editor("x", batched="yes")
