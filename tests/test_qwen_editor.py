"""QwenImageEditor against the diffusers pipeline, with tiny random weights on the CPU."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler
from PIL import Image
from tiny_models import SMALL, noise_image, request, save_tiny_qwen_edit, shrink_megapixel, tiny_editor

from slurm_bench.editors.base import Edited
from slurm_bench.editors.qwen import QwenImageEditor, denoise, loading
from slurm_bench.editors.qwen.images import CONDITION_PIXELS, MEGAPIXEL, Size, check_shown, target_size, to_rgb
from slurm_bench.editors.qwen.random_weights import random_pipeline
from slurm_bench.editors.qwen.text import patch_image_processor
from slurm_bench.errors import FinalError, SampleError, UserError

torch.set_num_threads(1)  # more only get in each other's way at this size


@pytest.fixture(autouse=True)
def _small(request, monkeypatch):
    if "full_size" not in request.fixturenames:
        shrink_megapixel(monkeypatch)


@pytest.fixture
def full_size():
    """The pipelines' own megapixel."""


def mended_reference(pipeline: Any, images: list[Any], **call: Any) -> np.ndarray:
    """`pipeline(...)` with the processor's own token types handed to the text encoder, by other means than ours."""
    processor_class, seen = type(pipeline.processor), {}

    class Remembering(processor_class):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            outputs = super().__call__(*args, **kwargs)
            seen["types"] = outputs["mm_token_type_ids"]
            return outputs

    pipeline.processor.__class__ = Remembering
    encode = pipeline.text_encoder.forward
    pipeline.text_encoder.forward = lambda **inputs: encode(**inputs, mm_token_type_ids=seen["types"])
    image = images if len(images) > 1 else images[0]
    return np.asarray(pipeline(image=image, width=128, height=64, **call).images[0])


@contextmanager
def decoded(pipeline: Any) -> Iterator[list[torch.Tensor]]:
    """Collects what the VAE's decoder gets: an image's 8 bits hide small differences."""
    decode, seen = pipeline.vae.decode, []
    pipeline.vae.decode = lambda z, **kwargs: seen.append(z.clone()) or decode(z, **kwargs)
    try:
        yield seen
    finally:
        pipeline.vae.decode = decode


def latents_of(editor: QwenImageEditor, *requests: Any) -> list[torch.Tensor]:
    with decoded(editor._session.pipeline) as latents:
        assert all(isinstance(result, Edited) for result in editor.edit(requests))
    return latents


@pytest.mark.parametrize("plus", [False, True])
def test_stock_is_the_mended_pipeline_bit_for_bit(plus):
    images = [noise_image(60, 40), noise_image(30, 20, seed=1)][: 1 + plus]
    reference, pipeline = random_pipeline(plus=plus), random_pipeline(plus=plus)
    with decoded(reference) as expected_latents:
        expected = mended_reference(
            reference,
            images,
            prompt="make it red",
            negative_prompt=" ",
            true_cfg_scale=4.0,
            num_inference_steps=2,
            generator=torch.Generator().manual_seed(7),
        )
    with decoded(pipeline) as latents:
        edited = tiny_editor(pipeline, profile="stock").edit([request(images=tuple(images))])[0]
    assert torch.equal(latents[0], expected_latents[0])
    assert np.array_equal(np.asarray(edited.image), expected)
    assert edited.info["forwards"] == 4


@pytest.mark.parametrize("plus", [False, True])
def test_token_types_reach_the_text_encoder(plus):
    image = noise_image(200, 120)
    bare, mended = random_pipeline(plus=plus), random_pipeline(plus=plus)
    tiny_editor(mended, profile="stock")
    embeddings = [
        pipeline.encode_prompt("make it red", image=[image] if plus else image)[0] for pipeline in (bare, mended)
    ]
    assert not torch.allclose(*embeddings, atol=1e-4)

    text = (bare.prompt_template_encode if not plus else "<|vision_start|><|image_pad|><|vision_end|>{}").format("x")
    inputs = bare.processor(text=[text], images=[image], return_tensors="pt")
    types = inputs.pop("mm_token_type_ids")
    assert types.any()
    encoded = [
        encoder(**inputs, **given, output_hidden_states=True).hidden_states[-1]
        for encoder, given in ((bare.text_encoder, {"mm_token_type_ids": types}), (mended.text_encoder, {}))
    ]
    assert torch.equal(*encoded)


@pytest.mark.parametrize(
    ("plus", "zero_cond_t", "scale"),
    [(False, False, 4.0), (False, False, 1.0), (True, False, 4.0), (True, True, 4.0), (True, True, 1.0)],
)
def test_exact_agrees_with_stock(plus, zero_cond_t, scale):
    images = (noise_image(60, 40), noise_image(30, 40, seed=1))[: 1 + plus]
    samples = [request("make it red", images=images), request("a much longer wish, in blue", images=images)]
    results = {
        profile: latents_of(
            tiny_editor(random_pipeline(plus=plus, zero_cond_t=zero_cond_t), profile=profile, true_cfg_scale=scale),
            *samples,
        )
        for profile in ("stock", "exact")
    }
    for stock, exact in zip(results["stock"], results["exact"], strict=True):
        assert (stock - exact).abs().max() < 1e-4
    first, second = results["stock"]
    assert (first - second).abs().max() > 1e-3, "the prompt hardly matters: agreement would prove nothing"


def test_exact_agrees_with_stock_by_another_scheduler():
    latents = []
    for profile in ("stock", "exact"):
        pipeline = random_pipeline()
        pipeline.scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, use_dynamic_shifting=True
        )
        latents += latents_of(tiny_editor(pipeline, profile=profile, num_inference_steps=4), request())
    assert (latents[0] - latents[1]).abs().max() < 1e-4


def timesteps_of(editor: QwenImageEditor, sample: Any) -> torch.Tensor:
    """As the model's embedding gets them; 10 steps, of which bfloat16 rounds most."""
    embedder, seen = editor._session.pipeline.transformer.time_text_embed, []
    embedder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    assert isinstance(editor.edit([sample])[0], Edited)
    return torch.cat(seen)


def test_timesteps_are_rounded_as_in_the_pipeline():
    stock, exact = (
        timesteps_of(
            tiny_editor(
                random_pipeline(dtype="bfloat16"),
                dtype="bfloat16",
                profile=profile,
                true_cfg_scale=1,
                num_inference_steps=10,
            ),
            request(),
        )
        for profile in ("stock", "exact")
    )
    assert stock.dtype == exact.dtype
    assert torch.equal(stock, exact)


def check_in_bfloat16(stock: QwenImageEditor, exact: QwenImageEditor) -> None:
    """Noise is drawn in it, and what the VAE gets of the same latents is the same to the last bit."""
    pipeline, packed = stock._session.pipeline, []
    unpack = pipeline._unpack_latents
    pipeline._unpack_latents = lambda latents, *args: packed.append(latents) or unpack(latents, *args)
    (expected,), (near,) = (latents_of(editor, request()) for editor in (stock, exact))
    assert (near.float() - expected.float()).norm() < 0.03 * expected.float().norm()
    with decoded(exact._session.pipeline) as found, torch.no_grad():
        exact._session.runner._decode(packed[-1], target_size(SMALL, request().images[0]))
    assert torch.equal(found[0], expected)


def test_exact_agrees_with_stock_in_bfloat16():
    check_in_bfloat16(
        *(
            tiny_editor(random_pipeline(dtype="bfloat16"), dtype="bfloat16", profile=profile, true_cfg_scale=1)
            for profile in ("stock", "exact")
        )
    )


@pytest.mark.parametrize(
    ("one", "other"), [("norm_q", "norm_k"), ("norm_added_q", "norm_added_k"), ("norm_q", "norm_added_q")]
)
def test_norms_taken_for_each_other_would_be_seen(one, other):
    """Agreement of exact and stock proves something only if the tiny model's norms differ."""
    right, swapped = random_pipeline(), random_pipeline()
    for block in swapped.transformer.transformer_blocks:
        weights = getattr(block.attn, one).weight, getattr(block.attn, other).weight
        for weight, value in zip(weights, [weights[1].clone(), weights[0].clone()], strict=True):
            weight.copy_(value)
    latents = [latents_of(tiny_editor(pipeline, true_cfg_scale=1), request())[0] for pipeline in (right, swapped)]
    assert (latents[0] - latents[1]).abs().max() > 1e-3


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_no_norm_or_bias_of_the_tiny_model_is_trivial(part):
    for name, weight in getattr(random_pipeline(), part).named_parameters():
        assert len(weight.unique()) > 1 or weight.numel() == 1, name


def test_the_picture_is_the_pipelines_own_to_the_last_shade():
    editor = tiny_editor()
    image_processor = editor._session.pipeline.image_processor
    postprocess, pictures = image_processor.postprocess, []

    def kept(decoded, **kwargs):
        pictures.append(postprocess(decoded)[0])
        return postprocess(decoded, **kwargs)

    image_processor.postprocess = kept
    (edited,) = editor.edit([request()])
    assert np.array_equal(np.asarray(edited.image), np.asarray(pictures[0]))
    assert np.unique(pictures[0]).size > 20


def test_guidance_is_on_where_asked():
    guided, unguided = (tiny_editor(true_cfg_scale=scale).edit([request()])[0] for scale in (4.0, 1.0))
    assert (guided.info["guidance"], guided.info["forwards"]) == (True, 4)
    assert (unguided.info["guidance"], unguided.info["forwards"]) == (False, 2)
    assert not np.array_equal(np.asarray(guided.image), np.asarray(unguided.image))


@pytest.mark.parametrize("profile", ["stock", "exact"])
def test_the_parts_of_an_edit_take_no_longer_than_the_whole(profile):
    editor = tiny_editor(profile=profile)
    start = time.perf_counter()
    (edited,) = editor.edit([request()])
    took, parts = time.perf_counter() - start, [edited.info["seconds"][part] for part in ("text", "denoise", "decode")]
    assert min(parts) > 0
    assert sum(parts) < took + 0.001, "each part is rounded"


def test_guidance_silently_off_is_an_error():
    with pytest.raises(UserError, match="negative_prompt"):
        QwenImageEditor("x", negative_prompt=None)
    QwenImageEditor("x", negative_prompt=None, true_cfg_scale=1)


def test_an_image_does_not_depend_on_its_batch():
    """Nor does the schedule, which hangs on the size of the picture: of two steps it would not, of three it does."""
    requests = [request(id="a"), request("paint it blue", 8, (noise_image(30, 60, seed=3),), id="b")]
    together = latents_of(tiny_editor(num_inference_steps=3), *requests)
    alone = [latents_of(tiny_editor(num_inference_steps=3), each)[0] for each in requests]
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(("width", "height"), [(60, 44), (200, 330), (29, 500)])
def test_the_text_encoder_sees_the_pipelines_own_pixels(device, width, height):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("a GPU's pixels against the CPU's")
    image, plain, lean = noise_image(width, height), *(random_pipeline().processor.image_processor for _ in range(2))
    expected = plain([image], return_tensors="pt")
    patch_image_processor(lean, torch.device(device))
    for _ in range(2):
        found = lean([image], return_tensors="pt")
        assert torch.equal(found["image_grid_thw"].cpu(), expected["image_grid_thw"])
        assert (found["pixel_values"].cpu() - expected["pixel_values"]).abs().max() < 1e-5


def test_the_seed_decides():
    editor = tiny_editor()
    one, same, other = latents_of(editor, request(seed=1), request(seed=1), request(seed=2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("scale", "further"), [(4.0, {}), (4.0, {"stream_blocks": 2}), (1.0, {})])
def test_text_first_gives_the_same_and_never_has_both_there(tmp_path, monkeypatch, scale, further):
    """Nor for prompts that come late: another task's, or those of a chain's later turns."""
    folder = save_tiny_qwen_edit(tmp_path / "model")
    params = {"dtype": "float32", "num_inference_steps": 2, "max_pixels": SMALL, "profile": "exact"}
    params["true_cfg_scale"] = scale
    inline = QwenImageEditor(str(folder), **params)
    first = QwenImageEditor(str(folder), **params, **further, text_first=True)
    inline.load()
    first.load()
    pipeline = first._session.pipeline
    assert pipeline.transformer is None
    large, loaded = [weakref.ref(pipeline.text_encoder)], []
    load = loading.load_component

    def watched(source, name):
        assert not any(ref() for ref in large)
        component = load(source, name)
        large.append(weakref.ref(component))
        loaded.append(name)
        return component

    monkeypatch.setattr(loading, "load_component", watched)
    first.prepare(iter([request(id="a")]))
    assert pipeline.text_encoder is None
    large.append(weakref.ref(first._session.runner.transformer))
    requests = [request(id="a"), request("unseen before", id="late"), request("likewise", id="later")]
    for one, other in zip(inline.edit(requests), first.edit(requests), strict=True):
        assert np.array_equal(np.asarray(one.image), np.asarray(other.image))
    assert loaded == ["transformer", "text_encoder", "transformer"]
    assert not first._session._encoded, "no prompt is kept once its sample is done"


def check_time_of_encoding_ahead(editor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = editor._session.encode
    monkeypatch.setattr(editor._session, "encode", lambda *given: time.sleep(0.5) or encode(*given))
    editor.prepare(iter([request()]))
    (edited,) = editor.edit([request()])
    assert edited.info["seconds"]["text"] > 0.5


def test_what_encoding_ahead_took_is_in_its_samples_record(monkeypatch):
    check_time_of_encoding_ahead(tiny_editor(text_first=True), monkeypatch)


def test_a_prompt_that_cannot_be_encoded_hurts_itself_alone(tmp_path, monkeypatch):
    """With text_first its error waits until its turn, and the text encoder never comes back beside the transformer."""
    folder = save_tiny_qwen_edit(tmp_path / "model")
    editor = QwenImageEditor(
        str(folder), dtype="float32", num_inference_steps=2, max_pixels=SMALL, profile="exact", text_first=True
    )
    editor.load()
    session, encode = editor._session, denoise.encode_prompts

    def refuse_cursed(pipeline, images, instruction, *args):
        if "cursed" in instruction:
            raise ValueError("can't encode this")
        return encode(pipeline, images, instruction, *args)

    monkeypatch.setattr(denoise, "encode_prompts", refuse_cursed)
    samples = [request(id="a"), request("cursed", id="b"), request("another", id="c")]
    editor.prepare(iter(samples))
    for _ in range(2):
        with pytest.raises(ValueError, match="can't encode this"):
            editor.edit([samples[1]])
    assert isinstance(editor.edit([samples[0]])[0], Edited)
    assert isinstance(editor.edit([samples[2]])[0], Edited)
    assert session.pipeline.text_encoder is None


def test_a_prompt_that_met_a_full_gpu_is_encoded_when_it_is_tried_again(tmp_path, monkeypatch):
    folder = save_tiny_qwen_edit(tmp_path / "model")
    editor = QwenImageEditor(
        str(folder), dtype="float32", num_inference_steps=2, max_pixels=SMALL, profile="exact", text_first=True
    )
    editor.load()
    encode, room = denoise.encode_prompts, []

    def full_at_first(*asked):
        if not room:
            raise torch.OutOfMemoryError
        return encode(*asked)

    monkeypatch.setattr(denoise, "encode_prompts", full_at_first)
    editor.prepare(iter([request(id="a")]))
    with pytest.raises(torch.OutOfMemoryError):
        editor.edit([request(id="a")])
    room.append("some")
    assert isinstance(editor.edit([request(id="a")])[0], Edited)


def test_a_prompt_beyond_the_positions_of_the_model_is_that_samples_error():
    editor = tiny_editor(true_cfg_scale=1)
    results = editor.edit([request("word " * 5000), request()])
    assert isinstance(results[0], FinalError)
    assert "tokens long" in str(results[0])
    assert isinstance(results[1], Edited)


@pytest.mark.parametrize("plus", [False, True])
def test_exact_sizes_are_the_pipelines_own(plus, full_size):
    stock, exact = (
        latents_of(tiny_editor(random_pipeline(plus=plus), profile=profile, true_cfg_scale=1), request())[0]
        for profile in ("stock", "exact")
    )
    assert (stock - exact).abs().max() < 1e-4


def test_one_step_of_a_stretched_schedule_is_refused():
    with pytest.raises(UserError, match="num_inference_steps"):
        tiny_editor(num_inference_steps=1)
    tiny_editor(num_inference_steps=1, scheduler="lightning")


@pytest.mark.parametrize("profile", ["stock", "exact"])
def test_numbers_that_overflow_are_an_error_not_an_image(profile):
    pipeline = random_pipeline()
    pipeline.transformer.proj_out.bias.fill_(float("nan"))
    assert isinstance(tiny_editor(pipeline, profile=profile).edit([request()])[0], SampleError)


def test_offloaded_modulation_agrees():
    plain = latents_of(tiny_editor(), request())[0]
    offloaded = latents_of(tiny_editor(offload_modulation=True), request())[0]
    assert torch.equal(plain, offloaded)


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "CMYK"])
def test_sources_of_any_mode(mode):
    source = noise_image(60, 40, "RGBA" if mode == "RGBA" else "RGB")
    result = tiny_editor().edit([request(images=(source.convert(mode),))])[0]
    assert result.image.mode == "RGB"
    assert result.image.size == (result.info["width"], result.info["height"])


def test_what_is_transparent_becomes_white():
    clear = Image.new("RGBA", (2, 1), (200, 30, 30, 0))
    clear.putpixel((1, 0), (200, 30, 30, 255))
    palette, plain = clear.convert("RGB").convert("P"), clear.convert("RGB")
    palette.putpixel((0, 0), 255)
    palette.info["transparency"] = 255
    plain.putpixel((0, 0), (1, 2, 3))
    plain.info["transparency"] = (1, 2, 3)
    for image in (clear, palette, plain):
        found = to_rgb(image)
        assert (found.mode, found.getpixel((0, 0))) == ("RGB", (255, 255, 255))
        assert found.getpixel((1, 0))[0] > 190


def test_impossible_sources_fail_alone():
    editor = tiny_editor(true_cfg_scale=1)
    sliver = request(images=(noise_image(900, 2),))
    two = request(images=(noise_image(), noise_image()))
    results = editor.edit([sliver, two, request(images=(noise_image(1, 1),))])
    assert [type(result) for result in results] == [FinalError, FinalError, Edited]


def test_a_source_is_too_long_and_thin_where_the_pipelines_refuse_it():
    """Their image processor takes 200:1, and sees the source smaller than the edited image is."""
    check_shown(6400 * 32, noise_image(6400, 32))
    with pytest.raises(FinalError, match="too long and thin"):
        check_shown(6432 * 32, noise_image(6432, 32))
    check_shown(CONDITION_PIXELS, noise_image(3800, 20))
    assert target_size(MEGAPIXEL, noise_image(3800, 20)) == Size(14112, 64)


@pytest.mark.parametrize("profile", ["exact", "stock"])
def test_a_place_for_an_image_within_an_instruction_fails_alone_and_for_good(profile):
    editor = tiny_editor(profile=profile, true_cfg_scale=1)
    results = editor.edit([request("make <|image_pad|> red"), request("<|video_pad|>"), request("<|im_end|>")])
    assert [type(result) for result in results] == [FinalError, FinalError, Edited]
    assert "<|image_pad|>" in str(results[0])


def test_record_and_provenance(tmp_path):
    editor = QwenImageEditor(
        str(save_tiny_qwen_edit(tmp_path / "m", plus=True)),
        dtype="float32",
        num_inference_steps=2,
        max_pixels=SMALL,
        profile="stock",
    )
    editor.check()
    editor.load()
    first, second = (editor.edit([request()])[0].info for _ in range(2))
    assert {"text", "denoise", "decode", "load"} == set(first["seconds"])
    assert "load" not in second["seconds"]
    assert first["profile"] == "stock"
    assert first["attention"] == "diffusers"
    assert first["steps"] == 2
    assert editor.provenance()["class"] == "QwenImageEditPlusPipeline"
    editor.close()
