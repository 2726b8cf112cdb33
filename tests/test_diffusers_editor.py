"""DiffusersEditor over tiny pipelines made in code: what it adds to a pipeline's own call, and what it refuses."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import weakref
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from helpers import REPO
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from tiny_models import noise_image, request, save_tiny_instruct_pix2pix
from tiny_pipelines import TINY, save_tiny

from slurm_bench.editors.base import Edited
from slurm_bench.editors.diffusers_pipeline import DiffusersEditor
from slurm_bench.editors.diffusers_pipeline.call import prompt_of, seeded, size_like
from slurm_bench.editors.diffusers_pipeline.families import family
from slurm_bench.editors.diffusers_pipeline.output import edited_image
from slurm_bench.errors import SampleError, UserError

NAME = "StableDiffusionInstructPix2PixPipeline"
CALL = {"num_inference_steps": 2, "image_guidance_scale": 1.5}
KONTEXT = "FluxKontextPipeline"
# Kontext would see even a tiny source at a megapixel.
KONTEXT_CALL = {"num_inference_steps": 1, "_auto_resize": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_instruct_pix2pix(tmp_path_factory.mktemp("pix2pix"))


@pytest.fixture(scope="module")
def kontext(tmp_path_factory):
    return save_tiny(KONTEXT, tmp_path_factory.mktemp("kontext"))


def editor_of(folder, **params):
    params = {"pipeline": NAME, "model_name": str(folder), "dtype": "float32", "call": CALL, **params}
    return DiffusersEditor(**params)


def loaded(folder, **params):
    editor = editor_of(folder, **params)
    editor.check()
    editor.load()
    return editor


def pixels(edited):
    assert isinstance(edited, Edited), edited
    return np.asarray(edited.image)


@pytest.fixture(scope="module")
def editor(folder):
    return loaded(folder)


def test_it_is_the_pipelines_own_call(editor):
    sample = request(images=(noise_image(64, 48, "RGBA"),), seed=3)
    edited = editor.edit([sample])[0]
    clear = noise_image(64, 48, "RGBA")
    source = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    expected = editor._pipeline(
        image=source, prompt=sample.instruction, generator=torch.Generator().manual_seed(3), **CALL
    ).images[0]
    assert np.array_equal(pixels(edited), np.asarray(expected))


def test_a_closed_one_leaves_its_memory(folder):
    editor = loaded(folder)
    add_hook_to_module(editor._pipeline.unet, ModelHook())  # as offloading does
    unet = weakref.ref(editor._pipeline.unet)
    editor.close()
    assert unet() is None


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
        assert np.array_equal(pixels(one), pixels(other))
    assert not np.array_equal(pixels(together[0]), pixels(together[1]))


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"pipeline": 3}, r"editor\.params\.pipeline'"),
        ({"pipeline": "StableDiffusionInstructPixPipeline"}, NAME),
        ({"model_name": 5}, r"editor\.params\.model_name'"),
        ({"revision": 1.5}, r"editor\.params\.revision'"),
        ({"dtype": "int8"}, r"editor\.params\.dtype'"),
        ({"dtype": 16}, r"editor\.params\.dtype'"),
        ({"call": [1]}, r"editor\.params\.call'"),
        ({"call": {"num_inference_step": 2}}, "num_inference_steps"),
        ({"call": {"callback_kwargs": 2}}, "no argument 'callback_kwargs'"),  # **kwargs would swallow it
        ({"call": {"num_inference_steps": 2.5}}, r"editor\.params\.call\.num_inference_steps'"),
        ({"call": {"num_inference_steps": "50"}}, r"editor\.params\.call\.num_inference_steps'"),
        ({"call": {"num_inference_steps": True}}, r"editor\.params\.call\.num_inference_steps'"),
        ({"call": {"num_inference_steps": 0}}, r"editor\.params\.call\.num_inference_steps'"),
        ({"call": {"guidance_scale": "high"}}, r"editor\.params\.call\.guidance_scale'"),
        ({"call": {"guidance_scale": float("nan")}}, r"editor\.params\.call\.guidance_scale'"),
        ({"call": {"negative_prompt": 7}}, r"editor\.params\.call\.negative_prompt'"),
        ({"call": {"prompt": "x"}}, "'prompt' comes from the editor"),
        ({"call": {"prompt_2": "x"}}, "'prompt_2' comes from the editor"),
        ({"call": {"num_images_per_prompt": 2}}, "comes from the editor"),
        ({"call": {"output_type": "latent"}}, "comes from the editor"),
        ({"image_arg": "picture"}, r"editor\.params\.image_arg'"),
        ({"prompt_arg": None}, r"editor\.params\.prompt_arg'"),
        ({"prompt_template": "please"}, r"editor\.params\.prompt_template'"),
        ({"prompt_template": "{images} {instruction}"}, r"editor\.params\.prompt_template'"),
        ({"size": "big"}, r"editor\.params\.size'"),
        ({"size": 512}, r"editor\.params\.size'"),
        ({"max_pixels": "half"}, r"editor\.params\.max_pixels'"),
        ({"max_pixels": 0}, r"editor\.params\.max_pixels'"),
        ({"max_pixels": 10**8}, r"editor\.params\.max_pixels'"),
        ({"min_pixels": 9, "max_pixels": 4}, r"editor\.params\.min_pixels'"),
        ({"multiple": 16.5}, r"editor\.params\.multiple'"),
        ({"lora": 3}, r"editor\.params\.lora'"),
        ({"lora": "none.safetensors"}, r"editor\.params\.lora'.*no file"),
        ({"scheduler": 4}, r"editor\.params\.scheduler'"),
        ({"scheduler": "EulerDiscreteSheduler"}, r"editor\.params\.scheduler'.*EulerDiscreteScheduler"),
        ({"scheduler": {"class": 1}}, r"editor\.params\.scheduler\.class'"),
        ({"scheduler": {"beta_shedule": "linear"}}, "beta_schedule"),
        ({"scheduler": {"beta_start": "low"}}, r"editor\.params\.scheduler\.beta_start'"),
        ({"scheduler": "FlowMatchEulerDiscreteScheduler"}, "flow matching"),
        ({"offload": "disk"}, r"editor\.params\.offload'"),
        ({"offload": "model", "device": "cpu"}, r"editor\.params\.offload'"),
        (
            {"pipeline": "ZImageOmniPipeline", "dtype": "bfloat16", "call": {}, "offload": "group"},
            r"offload'.*offload=model",
        ),
        ({"pipeline": "ZImageOmniPipeline", "call": {}}, r"editor\.params\.dtype'"),
        ({"device": "cdua"}, r"editor\.params\.device'"),
        ({"pipeline": "StableDiffusionImg2ImgPipeline", "call": {}}, r"editor\.params\.pipeline'.*holds a"),
        ({"pipeline": "ChronoEditPipeline", "call": {}}, r"editor\.params\.pipeline'"),
    ],
)
def test_what_is_refused_before_anything_starts(folder, params, said):
    with pytest.raises(UserError, match=said) as refusal:
        editor_of(folder, **params).check()
    assert "\n" not in str(refusal.value)


# diffusers 0.40 hasn't the one, and the other fails there for two sources, which it says that it takes.
SINCE_041 = ("QwenImage21Pipeline", "BriaFiboEditPipeline")


def skip_before_its_release(pipeline):
    if pipeline in SINCE_041 and not hasattr(diffusers, "QwenImage21Pipeline"):
        pytest.skip("diffusers 0.41 has it")


@pytest.mark.parametrize(
    ("pipeline", "call", "said"),
    [
        (KONTEXT, {"true_cfg_scale": 4.0}, "negative_prompt=' '"),
        (KONTEXT, {"negative_prompt": "blurry"}, "true_cfg_scale is 1.0"),
        ("QwenImageEditPipeline", {}, r"4\.0 \(its default\)"),
        ("QwenImage21Pipeline", {"true_cfg_scale": 4}, "negative prompt"),
        (NAME, {"image_guidance_scale": 0.9}, "off"),
        (NAME, {"guidance_scale": 1.0, "image_guidance_scale": 1.5}, "without effect"),
        (NAME, {"guidance_scale": 1, "negative_prompt": "blurry"}, "without effect"),
        ("StableDiffusionXLInstructPix2PixPipeline", {"image_guidance_scale": 0.5}, "off"),
        ("ZImageOmniPipeline", {"guidance_scale": 0, "negative_prompt": "blurry"}, "without effect"),
        ("DreamLiteMobilePipeline", {"guidance_scale": 3.5}, "ignores"),
    ],
)
def test_guidance_that_would_be_off_is_refused(monkeypatch, pipeline, call, said):
    skip_before_its_release(pipeline)
    monkeypatch.setattr(DiffusersEditor, "_find", lambda self: None)
    with pytest.raises(UserError, match=said) as refusal:
        DiffusersEditor(pipeline, "owner/name", call=call).check()
    assert str(refusal.value).startswith("'editor.params.call.")


@pytest.mark.parametrize(
    ("pipeline", "call"),
    [
        (KONTEXT, {"true_cfg_scale": 4.0, "negative_prompt": " "}),
        (KONTEXT, {"guidance_scale": 2.5}),
        ("QwenImageEditPlusPipeline", {"true_cfg_scale": 1}),
        ("ZImageOmniPipeline", {"guidance_scale": 0.5, "negative_prompt": "blurry"}),
        (NAME, {}),
    ],
)
def test_guidance_that_runs_is_not_refused(monkeypatch, pipeline, call):
    monkeypatch.setattr(DiffusersEditor, "_find", lambda self: None)
    DiffusersEditor(pipeline, "owner/name", call=call).check()


def test_guidance_that_the_model_ignores_is_refused(tmp_path_factory, kontext):
    schnell = save_tiny(KONTEXT, tmp_path_factory.mktemp("undistilled"), guidance_embeds=False)
    call = {**KONTEXT_CALL, "guidance_scale": 2.5}
    with pytest.raises(UserError, match="guidance_embeds"):
        editor_of(schnell, pipeline=KONTEXT, call=call).check()
    editor_of(kontext, pipeline=KONTEXT, call=call).check()
    klein = save_tiny("Flux2KleinPipeline", tmp_path_factory.mktemp("klein"), is_distilled=True)
    with pytest.raises(UserError, match="distilled"):
        editor_of(klein, pipeline="Flux2KleinPipeline", call={"guidance_scale": 4}).check()


def test_the_login_node_needs_neither_torch_nor_diffusers(folder):
    code = (
        "import sys; from slurm_bench.editors.diffusers_pipeline import DiffusersEditor;"
        f"DiffusersEditor({NAME!r}, {str(folder)!r}).check();"
        "print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_code_of_the_models_own_is_refused(tmp_path):
    folder = save_tiny_instruct_pix2pix(tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    index["unet"] = ["my_unet", "MyUNet"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="own code"):
        editor_of(folder).check()


def test_the_folders_class_is_held_against_the_pipeline(kontext):
    for pipeline in ("FluxPipeline", "QwenImageEditPipeline"):
        other = editor_of(kontext, pipeline=pipeline, image_arg="prompt_2", call={"true_cfg_scale": 1})
        with pytest.raises(UserError, match=rf"holds a {KONTEXT}|has no argument"):
            other.check()
    with pytest.raises(UserError, match=rf"take editor\.params\.pipeline={KONTEXT}"):
        editor_of(kontext, pipeline=NAME).load()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_pixels_that_are_no_numbers_are_an_error(folder, bad):
    editor = loaded(folder)
    good = request(images=(noise_image(64, 48),))
    bias = editor._pipeline.vae.decoder.conv_out.bias
    before = bias.data.clone()
    bias.data[0] = bad
    assert isinstance(editor.edit([good])[0], SampleError)
    bias.data.copy_(before)
    assert isinstance(editor.edit([good])[0], Edited)


def test_a_prompt_that_is_cut_is_said(editor, kontext):
    short, long = request("red"), request("make it red " * 20)
    assert "prompt_cut" not in editor.edit([short])[0].info
    assert editor.edit([long])[0].info["prompt_cut"] == "tokenizer kept 77 of 182 tokens"
    assert "prompt_cut" not in editor.edit([short])[0].info
    # Kontext's second encoder reads on to 512, and both are told; the negative prompt is no sample's
    call = {**KONTEXT_CALL, "true_cfg_scale": 2, "negative_prompt": "blurry " * 40}
    two = loaded(kontext, pipeline=KONTEXT, call=call, max_pixels=32 * 32)
    assert "prompt_cut" not in two.edit([short])[0].info
    assert two.edit([long])[0].info["prompt_cut"].startswith("tokenizer kept 77 of 182 tokens; tokenizer_2 kept")


def test_kontext_keeps_the_aspect(kontext):
    editor = loaded(kontext, pipeline=KONTEXT, call=KONTEXT_CALL, max_pixels=128 * 64)
    wide, tall = (editor.edit([request(images=(noise_image(*size),))])[0].image for size in ((256, 128), (60, 120)))
    assert (wide.size, tall.size) == ((128, 64), (64, 128))
    explicit = loaded(kontext, pipeline=KONTEXT, call={**KONTEXT_CALL, "width": 64, "height": 64, "max_area": 64 * 64})
    assert explicit.edit([request(images=(noise_image(64, 32),))])[0].image.size == (64, 64)


def test_instruct_pix2pix_sees_a_smaller_source(folder):
    editor = loaded(folder, max_pixels=64 * 32)
    assert editor.edit([request(images=(noise_image(128, 64),))])[0].image.size == (64, 32)


@given(
    st.integers(1, 20_000),
    st.integers(1, 20_000),
    st.integers(0, 2**22),
    st.integers(2**12, 2**22),
    st.sampled_from([1, 8, 16, 32]),
)
def test_size_like(width, height, least, most, multiple):
    sides = size_like(width, height, least, most, multiple)
    assert all(side > 0 and side % multiple == 0 for side in sides)
    assert sides[0] * sides[1] <= most or multiple in sides
    if min(sides) >= 8 * multiple:
        assert sides[0] / sides[1] == pytest.approx(width / height, rel=0.13)
    if multiple == 1 and least <= width * height <= most:
        assert sides == (width, height)


def test_the_size_asked_for_twice_is_refused(kontext):
    for params in ({"size": "source"}, {"max_pixels": 4096}):
        with pytest.raises(UserError, match=r"editor\.params\.size'"):
            editor_of(kontext, pipeline=KONTEXT, call={"width": 64, "height": 64}, **params)
    with pytest.raises(UserError, match="width needs the other side"):
        editor_of(kontext, pipeline=KONTEXT, call={"width": 64})
    with pytest.raises(UserError, match=r"editor\.params\.size'.*LongCat"):
        DiffusersEditor("LongCatImageEditPipeline", str(kontext), size="source").check()


def test_several_images_only_where_one_sample_may_have_them(editor, tmp_path):
    two = request(images=(noise_image(64, 64), noise_image(64, 64, seed=1)))
    refused = editor.edit([two])[0]
    assert isinstance(refused, SampleError)
    assert NAME in str(refused)
    assert "2" in str(refused)
    name = "Flux2KleinPipeline"
    call = {"num_inference_steps": 1, "text_encoder_out_layers": [1, 2, 3]}
    klein = loaded(save_tiny(name, tmp_path), pipeline=name, call=call)
    one = request(images=two.images[:1])
    assert not np.array_equal(*(pixels(edited) for edited in klein.edit([one, two])))


def test_prompts():
    omnigen, fibo = family("OmniGenPipeline"), family("BriaFiboEditPipeline")
    assert prompt_of("{images} red", 2, omnigen.template, omnigen) == (
        "<img><|image_1|></img><img><|image_2|></img>{images} red"
    )
    assert json.loads(prompt_of('say "{json}"', 1, fibo.template, fibo)) == {"edit_instruction": 'say "{json}"'}


def test_prompt_template(folder, editor):
    templated = loaded(folder, prompt_template="Edit: {instruction}!")
    one, other = templated.edit([request("red")])[0], editor.edit([request("Edit: red!")])[0]
    assert np.array_equal(pixels(one), pixels(other))


def test_chance_goes_on_where_it_was():
    def drawn():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = drawn()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    with seeded(3, "cpu"):
        drawn()
    assert drawn() == expected


def test_chance_comes_from_the_seed_alone(folder, kontext):
    """A stochastic scheduler draws from the pipeline's generator in the one, from torch's own in the other."""
    pix2pix = loaded(folder, scheduler="EulerAncestralDiscreteScheduler")
    flux = loaded(
        kontext,
        pipeline=KONTEXT,
        call={**KONTEXT_CALL, "num_inference_steps": 3},
        scheduler={"stochastic_sampling": True},
        max_pixels=32 * 32,
    )
    for editor in (pix2pix, flux):
        torch.manual_seed(1)
        first = pixels(editor.edit([request(seed=5)])[0])
        state = torch.random.get_rng_state()
        torch.manual_seed(2)
        again = pixels(editor.edit([request(seed=5)])[0])
        assert np.array_equal(first, again)
        assert not np.array_equal(first, pixels(editor.edit([request(seed=6)])[0]))
        torch.manual_seed(1)
        assert torch.equal(state, torch.random.get_rng_state()), "nobody else's chance is touched"
    assert type(pix2pix._pipeline.scheduler).__name__ == "EulerAncestralDiscreteScheduler"
    assert flux._pipeline.scheduler.config.stochastic_sampling


def lora_file(path, modules, rank=2, scale=1.0):
    """By diffusers' names, over (name, out, in) of the layers."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, out, width in modules:
        tensors[f"{name}.lora_A.weight"] = torch.randn(rank, width, generator=generator)
        tensors[f"{name}.lora_B.weight"] = scale * torch.randn(out, rank, generator=generator)
    save_file(tensors, path)
    return str(path)


def test_lora(folder, editor, tmp_path):
    attention = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    weight = editor._pipeline.unet.get_parameter(f"{attention}.weight")
    file = lora_file(tmp_path / "fits.safetensors", [(f"unet.{attention}", *weight.shape)], scale=3.0)
    changed = loaded(folder, lora={"path": file, "scale": 0.5})
    sample = request("blue")
    assert not np.array_equal(*(pixels(e.edit([sample])[0]) for e in (changed, editor)))
    assert changed.provenance()["lora"][0]["scale"] == 0.5
    for name, modules in {
        "absent": [("unet.no.such.layer", 4, 4)],
        "in part": [(f"unet.{attention}", *weight.shape), ("unet.no.such.layer", 4, 4)],
        "another shape": [(f"unet.{attention}", 3, 5)],
    }.items():
        with pytest.raises(UserError, match=r"editor\.params\.lora"):
            editor_of(folder, lora=lora_file(tmp_path / f"{name}.safetensors", modules)).check()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_pipeline_moves_to_a_gpu_that_is_not_there(folder, monkeypatch):
    with pytest.raises(UserError, match=r"editor\.params\.offload"):
        editor_of(folder, offload="model").load()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"editor\.params\.device"):
        editor_of(folder, device="cuda").check()


def test_outputs():
    """Images, frames of which the last is the edit, tuples; Pillow, arrays and tensors."""
    picture = noise_image(6, 4)
    array = np.asarray(picture) / 255
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    black = np.zeros_like(array)
    for output in (
        SimpleNamespace(images=[picture]),
        SimpleNamespace(images=array[None]),
        SimpleNamespace(images=tensor[None]),
        SimpleNamespace(frames=[[Image.new("RGB", (6, 4)), picture]]),
        SimpleNamespace(frames=np.stack([black, array])[None]),
        ([picture],),
        (tensor[None],),
        picture,
    ):
        assert np.array_equal(np.asarray(edited_image(output)), np.asarray(picture))
    for output in (
        SimpleNamespace(images=[picture, picture]),
        SimpleNamespace(images=array[None] * np.nan),
        SimpleNamespace(images=[picture], nsfw_content_detected=[True]),
        SimpleNamespace(images=torch.zeros(1, 16, 8, 8)),  # latents
        SimpleNamespace(text="no"),
    ):
        with pytest.raises(SampleError):
            edited_image(output)


def token_types_seen(editor):
    """What reaches the layer that places the tokens."""
    seen = []
    placed = editor._pipeline.text_encoder.model
    placed.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs.get("mm_token_type_ids")), with_kwargs=True
    )
    return seen


@pytest.mark.parametrize("name", ["LongCatImageEditPipeline", "QwenImageEditPipeline"])
def test_image_tokens_keep_their_place(name, tmp_path):
    guidance = "true_cfg_scale" if "Qwen" in name else "guidance_scale"
    call = {"num_inference_steps": 2, guidance: 1}
    folder = save_tiny(name, tmp_path)
    editor = loaded(folder, pipeline=name, call=call)
    seen = token_types_seen(editor)
    assert isinstance(editor.edit([request()])[0], Edited)
    assert len(seen) == 1
    assert set(seen[0].unique().tolist()) == {0, 1}
    if "Qwen" in name:  # its schedule is stretched to a last value, which one step can't be
        with pytest.raises(UserError, match="num_inference_steps"):
            editor_of(folder, pipeline=name, call={**call, "num_inference_steps": 1}).check()


# The others take longer, at a megapixel each: SLURM_BENCH_TEST_PIPELINES=1 runs them too.
QUICK = (
    *("StableDiffusionXLInstructPix2PixPipeline", "Flux2Pipeline", "Flux2KleinKVPipeline", "OmniGenPipeline"),
    *("BriaFiboEditPipeline", "DreamLitePipeline", "DreamLiteMobilePipeline", "ZImageOmniPipeline"),
)
OPTIONS = {
    "QwenImageEditPipeline": {"call": {"negative_prompt": " "}},
    "QwenImageEditPlusPipeline": {"call": {"negative_prompt": " "}},
    "QwenImage21Pipeline": {"call": {"true_cfg_scale": 4.0, "negative_prompt": " "}},
    KONTEXT: {"call": {"_auto_resize": False}, "max_pixels": 96 * 64},
    **{
        name: {"call": {"text_encoder_out_layers": [1, 2, 3]}}
        for name in ("Flux2Pipeline", "Flux2KleinPipeline", "Flux2KleinKVPipeline")
    },
    "ZImageOmniPipeline": {"dtype": "bfloat16"},
}


@pytest.mark.parametrize("name", QUICK if "SLURM_BENCH_TEST_PIPELINES" not in os.environ else TINY)
def test_pipelines_that_edit_by_instruction(name, tmp_path):
    skip_before_its_release(name)
    if name == "ChronoEditPipeline":
        pytest.importorskip("ftfy")
    options = {"dtype": "float32", **OPTIONS.get(name, {})}
    options["call"] = {**options.get("call", {}), "num_inference_steps": 2}
    editor = DiffusersEditor(name, str(save_tiny(name, tmp_path)), **options)
    editor.check()
    editor.load()
    sources = tuple(noise_image(96, 64, seed=seed) for seed in range(2 if family(name).several else 1))
    first, other = (pixels(editor.edit([request(seed=seed, images=sources)])[0]) for seed in (1, 2))
    assert first.shape[1] / first.shape[0] == pytest.approx(1.5, abs=0.2), "the source's aspect"
    assert not np.array_equal(first, other), "the seed is felt"
