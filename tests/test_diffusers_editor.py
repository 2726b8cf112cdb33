"""DiffusersEditor over a tiny InstructPix2Pix made in code."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import noise_image, request, save_tiny_instruct_pix2pix

from slurm_bench.editors.base import Edited
from slurm_bench.editors.diffusers_pipeline import DiffusersEditor
from slurm_bench.errors import UserError

NAME = "StableDiffusionInstructPix2PixPipeline"
CALL = {"num_inference_steps": 2, "image_guidance_scale": 1.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_instruct_pix2pix(tmp_path_factory.mktemp("pix2pix"))


def editor_of(folder, **params):
    params = {"pipeline": NAME, "model_name": str(folder), "dtype": "float32", "call": CALL, **params}
    return DiffusersEditor(**params)


@pytest.fixture(scope="module")
def editor(folder):
    editor = editor_of(folder)
    editor.check()
    editor.load()
    return editor


def test_it_is_the_pipelines_own_call(editor):
    sample = request(images=(noise_image(64, 48, "RGBA"),), seed=3)
    edited = editor.edit([sample])[0]
    clear = noise_image(64, 48, "RGBA")
    source = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    expected = editor._pipeline(
        image=source, prompt=sample.instruction, generator=torch.Generator().manual_seed(3), **CALL
    ).images[0]
    assert np.array_equal(np.asarray(edited.image), np.asarray(expected))


def test_record(editor):
    info = editor.edit([request(images=(noise_image(64, 48),))])[0].info
    assert (info["width"], info["height"], info["forwards"], info["guidance"]) == (64, 48, 2, True)
    assert {"text", "denoise", "decode"} <= set(info["seconds"])
    assert editor.provenance()["class"] == NAME


def test_alone_or_in_a_batch(editor):
    requests = [request(seed=1, id="a"), request("blue", seed=2, id="b")]
    together = editor.edit(requests)
    alone = [editor.edit([r])[0] for r in reversed(requests)][::-1]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Edited)
        assert np.array_equal(np.asarray(one.image), np.asarray(other.image))
    assert not np.array_equal(np.asarray(together[0].image), np.asarray(together[1].image))


def test_unknown_pipeline_names_the_nearest(folder):
    with pytest.raises(UserError, match=NAME):
        editor_of(folder, pipeline="StableDiffusionInstructPixPipeline").check()


def test_wrong_call_arguments_are_found_early(folder):
    with pytest.raises(UserError, match="num_inference_steps"):
        editor_of(folder, call={"num_inference_step": 2}).check()
    with pytest.raises(UserError, match="prompt"):
        editor_of(folder, call={"prompt": "x"})
    with pytest.raises(UserError, match="dtype"):
        editor_of(folder, dtype="int8")


def test_code_of_the_models_own_is_refused(tmp_path):
    folder = save_tiny_instruct_pix2pix(tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    index["unet"] = ["my_unet", "MyUNet"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="own code"):
        editor_of(folder).check()
