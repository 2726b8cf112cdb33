"""QwenImage21Editor against the diffusers pipeline, with tiny random weights on the CPU."""

from __future__ import annotations

import inspect
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_qwen_editor import check_in_bfloat16, check_time_of_encoding_ahead, decoded, latents_of, timesteps_of
from test_qwen_editor_profiles import quantized
from test_stream import assert_equal, both
from tiny_models import noise_image, request

from slurm_bench.bench.random_qwen_image_21 import random_qwen_image_21
from slurm_bench.checkpoints.folder import ModelFolder
from slurm_bench.checkpoints.safetensors_header import TensorInfo
from slurm_bench.editors.base import Edited
from slurm_bench.editors.qwen.fit import ways_to_fit
from slurm_bench.editors.qwen.flops import floor_seconds
from slurm_bench.editors.qwen.profiles import PROFILES
from slurm_bench.editors.qwen21 import QwenImage21Editor, denoise, transformer, warm_up
from slurm_bench.editors.qwen21.blocks import Segment
from slurm_bench.editors.qwen21.family import QWEN_IMAGE_21, TURBO_SIGMAS
from slurm_bench.editors.qwen21.flops import prefix_flops, step_flops
from slurm_bench.editors.qwen21.session import Session
from slurm_bench.editors.qwen21.transformer import _segments
from slurm_bench.errors import FinalError, SampleError, UserError
from slurm_bench.kernels.fp8 import Fp8Linear, OutlierLinear, WidenedLinear

HAS_PIPELINE = hasattr(diffusers, "QwenImage21Pipeline")
needs_pipeline = pytest.mark.skipif(not HAS_PIPELINE, reason="diffusers is older than 0.41")
torch.set_num_threads(1)  # more only get in each other's way at this size
SIDE = 96
ONE = (noise_image(60, 44),)
SEVERAL = (noise_image(60, 40), noise_image(30, 40, "RGBA", seed=1))


def tiny(pipeline: Any = None, **params: Any) -> QwenImage21Editor:
    """Two steps at 96² pixels."""
    defaults = {"dtype": "float32", "num_inference_steps": 2, "max_pixels": SIDE**2, "profile": "exact"}
    editor = QwenImage21Editor("tiny", **{**defaults, **params})
    editor.load(pipeline or random_qwen_image_21())
    return editor


def latents(*requests: Any, pipeline: Any = None, **params: Any) -> list[torch.Tensor]:
    return latents_of(tiny(pipeline, **params), *requests)


def alpha_image(width: int = 60, height: int = 44) -> Image.Image:
    return noise_image(width, height, "RGBA", seed=4)


@needs_pipeline
@pytest.mark.parametrize("images", [ONE, SEVERAL])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_stock_is_the_pipeline_bit_for_bit(images, scale):
    reference, pipeline = random_qwen_image_21(), random_qwen_image_21()
    guidance = {"negative_prompt": " ", "true_cfg_scale": scale} if scale > 1 else {}
    with decoded(reference) as expected:
        picture = reference(
            image=list(images),
            prompt="make it red",
            num_inference_steps=2,
            output_resolution=SIDE,
            generator=torch.Generator().manual_seed(7),
            **guidance,
        ).images[0]
    editor = tiny(pipeline, profile="stock", true_cfg_scale=scale)
    with decoded(pipeline) as found:
        (edited,) = editor.edit([request(images=images)])
    assert torch.equal(found[0], expected[0])
    assert edited.image.mode == picture.mode == "RGBA"
    assert np.array_equal(np.asarray(edited.image), np.asarray(picture))
    assert edited.info["forwards"] == (4 if scale > 1 else 2)


@needs_pipeline
@pytest.mark.parametrize("images", [ONE, SEVERAL, (alpha_image(),) * 3])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_exact_agrees_with_stock(images, scale):
    samples = [request(images=images), request("a much longer wish, in blue", images=images)]
    stock, exact = (latents(*samples, profile=profile, true_cfg_scale=scale) for profile in ("stock", "exact"))
    for one, other in zip(stock, exact, strict=True):
        assert (one - other).abs().max() < 1e-4
    assert (stock[0] - stock[1]).abs().max() > 1e-3, "the prompt hardly matters: agreement would prove nothing"


@needs_pipeline
def test_the_picture_is_the_pipelines_own_to_the_last_shade():
    editor = tiny()
    image_processor = editor._session.pipeline.image_processor
    postprocess, pictures = image_processor.postprocess, []

    def kept(decoded, **kwargs):
        pictures.append(postprocess(decoded)[0])
        return postprocess(decoded, **kwargs)

    image_processor.postprocess = kept
    (edited,) = editor.edit([request()])
    assert np.array_equal(np.asarray(edited.image), np.asarray(pictures[0]))


@needs_pipeline
def test_what_is_kept_of_text_and_sources_does_not_depend_on_the_step():
    """The pipeline without its cache computes all tokens anew in each step."""
    reference = random_qwen_image_21()
    with decoded(reference) as expected:
        reference(
            image=list(SEVERAL),
            prompt="make it red",
            num_inference_steps=3,
            output_resolution=SIDE,
            generator=torch.Generator().manual_seed(7),
            use_kv_cache=False,
        )
    (found,) = latents(request(images=SEVERAL), num_inference_steps=3)
    assert (found - expected[0]).abs().max() < 1e-4


@needs_pipeline
def test_timesteps_are_rounded_as_in_the_pipeline():
    """Ours come with that of tokens that are no noise, 0, behind them."""
    stock, exact = (
        timesteps_of(
            tiny(random_qwen_image_21(dtype="bfloat16"), dtype="bfloat16", profile=profile, num_inference_steps=10),
            request(),
        )
        for profile in ("stock", "exact")
    )
    assert stock.dtype == exact.dtype
    assert torch.equal(stock[stock > 0], exact[:-1])


@needs_pipeline
def test_exact_agrees_with_stock_in_bfloat16():
    check_in_bfloat16(
        *(tiny(random_qwen_image_21(dtype="bfloat16"), dtype="bfloat16", profile=each) for each in ("stock", "exact"))
    )


@needs_pipeline
@pytest.mark.parametrize(("one", "other"), [("norm_q", "norm_k"), ("to_k", "to_v")])
def test_parts_taken_for_each_other_would_be_seen(one, other):
    right, swapped = random_qwen_image_21(), random_qwen_image_21()
    for block in swapped.transformer.transformer_blocks:
        weights = getattr(block.attn, one).weight, getattr(block.attn, other).weight
        for weight, value in zip(weights, [weights[1].clone(), weights[0].clone()], strict=True):
            weight.copy_(value)
    found = [latents(request(), pipeline=pipeline)[0] for pipeline in (right, swapped)]
    assert (found[0] - found[1]).abs().max() > 1e-3


@needs_pipeline
@pytest.mark.parametrize("profile", ["stock", "exact"])
def test_token_types_reach_the_text_encoder(profile):
    pipeline = random_qwen_image_21()
    editor, seen = tiny(pipeline, profile=profile), []
    pipeline.text_encoder.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((kwargs["input_ids"], kwargs["mm_token_type_ids"])), with_kwargs=True
    )
    editor.edit([request(images=SEVERAL)])
    ((ids, types),) = seen
    assert torch.equal(types.bool(), ids == pipeline.text_encoder.config.image_token_id)
    assert types.any()


@needs_pipeline
def test_an_image_depends_on_its_own_request_alone():
    requests = [request(id="a"), request("paint it blue", 8, SEVERAL, id="b")]
    together = latents(*requests)
    alone = [latents(each)[0] for each in requests]
    assert all(torch.equal(one, other) for one, other in zip(together, alone, strict=True))
    assert not torch.equal(latents(request(seed=1))[0], latents(request(seed=2))[0])


@needs_pipeline
def test_a_blank_source_is_not_taken_for_one_that_was_turned():
    """Their patches are the same; where these stand isn't."""
    wide, tall = (request(images=(Image.new("RGB", size, "white"),)) for size in ((80, 40), (40, 80)))
    after, alone = latents(wide, tall)[1], latents(tall)[0]
    assert torch.equal(after, alone)


@needs_pipeline
def test_a_prompt_beyond_the_positions_of_the_model_is_that_samples_error(monkeypatch):
    exact = tiny()._session.runner.transformer
    monkeypatch.setattr(transformer, "NEGATIVE", len(exact.source.pos_embed.freqs[0]) - 30)
    config = exact.source.config
    sources, modulation = torch.zeros(1, 16, config.in_channels), exact.modulation(torch.ones(1))

    def prefix(words):
        """An image takes as many positions as its longer side is long."""
        embeds = torch.zeros(words, config.context_in_dim)
        return exact.prefix(embeds, (3, words - 3), sources, [(1, 2, 8), (1, 8, 4)], modulation)

    with pytest.raises(SampleError, match="31 positions; the model has 30"):
        prefix(15)
    prefix(14)


@needs_pipeline
@pytest.mark.parametrize(("scale", "forwards"), [(1.0, 2), (3.0, 4)])
def test_forwards_are_counted(scale, forwards):
    assert tiny(true_cfg_scale=scale).edit([request()])[0].info["forwards"] == forwards


@needs_pipeline
def test_alpha_is_kept_or_laid_on_white_as_asked():
    clear = Image.new("RGBA", (60, 44), (200, 30, 30, 0))
    white = Image.new("RGB", (60, 44), "white")
    kept, of_white = (tiny().edit([request(images=(image,))])[0].image for image in (clear, white))
    assert kept.mode == "RGBA"
    assert not np.array_equal(np.asarray(kept), np.asarray(of_white)), "the VAE sees the source's alpha"
    flat, flat_of_white = (
        tiny(transparency="flatten").edit([request(images=(image,))])[0].image for image in (clear, white)
    )
    assert flat.mode == "RGB"
    assert np.array_equal(np.asarray(flat), np.asarray(flat_of_white))


@needs_pipeline
@pytest.mark.parametrize("profile", ["stock", "exact"])
def test_the_models_own_schedule_is_followed(profile):
    own = [1.0, 0.8, 0.3]
    pipeline = random_qwen_image_21(sample_sigmas=own)
    (edited,) = tiny(pipeline, profile=profile, num_inference_steps=None).edit([request()])
    assert edited.info["steps"] == edited.info["forwards"] == 3
    reference = random_qwen_image_21(sample_sigmas=own)
    picture = reference(
        image=list(request().images),
        prompt="make it red",
        output_resolution=SIDE,
        generator=torch.Generator().manual_seed(7),
    ).images[0]
    assert np.abs(np.asarray(picture, dtype=int) - np.asarray(edited.image)).max() <= 1
    with pytest.raises(UserError, match="3 steps"):
        tiny(random_qwen_image_21(sample_sigmas=own), profile=profile, num_inference_steps=4)
    even = tiny(random_qwen_image_21(sample_sigmas=own), profile=profile, scheduler="even").edit([request()])[0]
    assert even.info["steps"] == even.info["forwards"] == 2


@needs_pipeline
@pytest.mark.parametrize("profile", ["stock", "exact"])
def test_turbo_runs_its_own_sigmas_unshifted(profile):
    editor = tiny(num_inference_steps=None, scheduler="turbo", profile=profile)
    (edited,) = editor.edit([request()])
    assert edited.info["steps"] == edited.info["forwards"] == 8
    timesteps = editor._session.pipeline.scheduler.timesteps
    assert timesteps.tolist() == pytest.approx([1000 * sigma for sigma in TURBO_SIGMAS], rel=1e-6)


@needs_pipeline
def test_40_steps_without_guidance_where_nobody_says_otherwise():
    settings = QwenImage21Editor("x").settings
    sampling = settings.sampling_with(None)
    assert (sampling.steps, sampling.guidance) == (40, False)
    assert sampling.sigmas == tuple(np.linspace(1.0, 1 / 40, 40))


def tiny_lora(path: Path) -> str:
    generator, weights = torch.Generator().manual_seed(1), {}
    for name, module in random_qwen_image_21().transformer.named_modules():
        if name.endswith(("attn.to_k", "attn.to_out.0", "img_mlp.gate_layer", "img_in", "modulation.1")):
            down, up = (4, module.in_features), (module.out_features, 4)
            weights[f"diffusion_model.{name}.lora_A.weight"] = 0.5 * torch.randn(down, generator=generator)
            weights[f"diffusion_model.{name}.lora_B.weight"] = 0.5 * torch.randn(up, generator=generator)
    save_file(weights, path)
    return str(path)


@needs_pipeline
def test_lora_fused_is_lora_beside(tmp_path):
    lora = tiny_lora(tmp_path / "turbo.safetensors")
    stock, exact = (latents(request(), profile=profile, lora=lora)[0] for profile in ("stock", "exact"))
    assert (stock - exact).abs().max() < 1e-4
    assert (exact - latents(request())[0]).abs().max() > 1e-3


def session(profile: str, **params: Any) -> Session:
    """fp8 by the formulas in which a CPU can compute it."""
    made = QwenImage21Editor("x", **{"num_inference_steps": 4, "max_pixels": SIDE**2, **params}).settings
    return Session(random_qwen_image_21(), PROFILES[profile], made, "cpu", None)


@needs_pipeline
def test_weights_alone_in_8_bits_are_near_exact():
    exact, narrow = session("exact"), session("w8a16")
    with decoded(exact.pipeline) as expected, decoded(narrow.pipeline) as found:
        exact.edit(request())
        narrow.edit(request())
    assert 1e-4 < (found[0] - expected[0]).abs().max() < 1
    modules = [type(module) for module in narrow.pipeline.transformer.modules()]
    assert modules.count(WidenedLinear) == 2 * 7


@needs_pipeline
@pytest.mark.parametrize("keep", [[], ["img_mlp.out"], ["attn.to_v", "proj"]])
def test_8_bits_are_near_exact_whatever_stays_in_bf16(keep):
    exact, fp8 = session("exact"), session("fp8", keep_bf16=keep)
    with decoded(exact.pipeline) as expected:
        exact.edit(request())
    with decoded(fp8.pipeline) as found:
        fp8.edit(request("another", seed=3, images=SEVERAL))
        fp8.edit(request())
    alone = session("fp8", keep_bf16=keep)
    with decoded(alone.pipeline) as fresh:
        alone.edit(request())
    assert torch.equal(found[1], fresh[0]), "outliers of the sample before"
    distance = (found[1] - expected[0]).abs()
    assert 1e-4 < distance.max() < 1
    modules = [type(module) for module in fp8.pipeline.transformer.modules()]
    assert modules.count(OutlierLinear) == (0 if keep == ["img_mlp.out"] else 2)
    kept = {0: 0, 1: 1, 2: 5}[len(keep)]  # query, key and value go together, and so do gate and value of the MLP
    assert modules.count(Fp8Linear) == 2 * (7 - kept)


@needs_pipeline
def test_nothing_is_brought_into_8_bits_twice_or_for_nobody(monkeypatch):
    """Three times in a block: what attention, its output and the MLP read. In the last, of text and sources only
    keys and values."""
    prefix, step = 3 + 1, 3 + 3
    assert quantized(session("fp8", num_inference_steps=2), monkeypatch) == prefix + 2 * step


@needs_pipeline
def test_what_is_shared_or_steers_stays_in_bf16():
    names = [n for n, m in random_qwen_image_21().transformer.named_modules() if isinstance(m, torch.nn.Linear)]
    narrow = [name for name in names if QWEN_IMAGE_21.narrowable.has(name)]
    assert len(narrow) == 2 * 7
    assert all(name.startswith("transformer_blocks.") for name in narrow)
    assert {"img_in", "proj_out", "modulation.1", "norm_out.linear"} <= set(names) - set(narrow)


@needs_pipeline
def test_numbers_that_overflow_and_impossible_sources_fail_alone(monkeypatch):
    pipeline = random_qwen_image_21()
    editor = tiny(pipeline)
    monkeypatch.setattr(transformer, "NEGATIVE", len(pipeline.transformer.pos_embed.freqs[0]) - 100)
    sliver = request(images=(noise_image(900, 2),))
    long = request("word " * 50)
    place = request("make <|image_pad|> red")
    results = editor.edit([sliver, long, place, request(images=(noise_image(1, 1),))])
    assert [type(result) for result in results] == [FinalError, FinalError, FinalError, Edited]
    assert "positions" in str(results[1])
    pipeline.transformer.proj_out.weight.fill_(float("nan"))
    assert isinstance(editor.edit([request()])[0], SampleError)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    random_qwen_image_21(sample_sigmas=[1.0, 0.5]).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "model"))


def edit_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def problem(folder: Path, **params: Any) -> str:
    with pytest.raises(UserError) as caught:
        QwenImage21Editor(str(folder), **{"profile": "exact", **params}).check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@needs_pipeline
@pytest.mark.parametrize("text_first", [False, True])
def test_a_folder_is_edited_with_as_the_pipeline_that_was_saved(folder, text_first):
    params: dict[str, Any] = {"num_inference_steps": None, "text_first": text_first, "device": "cpu"}
    editor = QwenImage21Editor(str(folder), dtype="float32", max_pixels=SIDE**2, profile="exact", **params)
    editor.check()
    editor.load()
    known, late = request(id="a", images=SEVERAL), request("unseen before", id="late")
    editor.prepare(iter([known]))
    assert (editor._session.pipeline.text_encoder is None) == text_first
    expected = latents(known, late, pipeline=random_qwen_image_21(sample_sigmas=[1.0, 0.5]), num_inference_steps=None)
    for one, other in zip(latents_of(editor, known, late), expected, strict=True):
        assert torch.equal(one, other)
    assert editor.provenance()["class"] == "QwenImage21Pipeline"


@needs_pipeline
def test_what_encoding_ahead_took_is_in_its_samples_record(monkeypatch):
    check_time_of_encoding_ahead(tiny(text_first=True), monkeypatch)


@needs_pipeline
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("part", "name"), [("transformer", "QwenImage21Transformer2DModel"), ("vae", None)])
def test_what_is_streamed_is_what_the_library_loads(saved, part, name, dtype):
    assert_equal(*both(saved / part, getattr(diffusers, name or "AutoencoderKLQwenImage21"), dtype, "cpu"))


@needs_pipeline
def test_a_sound_folder_passes_without_torch(folder):
    code = (
        "import sys; from slurm_bench.editors.qwen21 import QwenImage21Editor as E\n"
        f"E({str(folder)!r}, profile='exact').check()\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


@needs_pipeline
def test_a_forecast_is_of_the_models_own_schedule(folder):
    assert QwenImage21Editor(str(folder)).planned_steps() == 2
    assert QwenImage21Editor(str(folder), scheduler="turbo").planned_steps() == len(TURBO_SIGMAS)
    edit_json(folder / "model_index.json", sample_sigmas=None)
    assert QwenImage21Editor(str(folder)).planned_steps() == 40
    shutil.rmtree(folder)
    assert QwenImage21Editor(str(folder)).planned_steps() is None, "nobody knows"
    assert QwenImage21Editor(str(folder), num_inference_steps=5).planned_steps() == 5


@needs_pipeline
def test_what_does_not_go_with_the_editor_is_one_line(folder):
    assert "2 steps" in problem(folder, num_inference_steps=5)
    assert "no LoRA" in problem(folder, lora=str(folder / "vae" / "diffusion_pytorch_model.safetensors"))
    edit_json(folder / "transformer" / "config.json", causal_condition=False)
    assert "profile=stock" in problem(folder)
    QwenImage21Editor(str(folder), profile="stock").check()
    edit_json(folder / "transformer" / "config.json", causal_condition=True)
    for sigmas in ([], [0.5, 1.0], ["a", "b", "c"], [1.0, 0.0], 3, [float("nan")], [2.0, 1.0]):
        edit_json(folder / "model_index.json", sample_sigmas=sigmas)
        assert "sample_sigmas" in problem(folder)
    edit_json(folder / "model_index.json", _class_name="QwenImageEditPipeline", sample_sigmas=None)
    assert "not a QwenImage21Pipeline" in problem(folder)
    assert "class_path=slurm_bench.editors.qwen.QwenImageEditor" in problem(folder)


def test_an_older_diffusers_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("slurm_bench.editors.qwen.base_editor.version", lambda name: "0.40.0")
    said = problem(tmp_path)
    assert "diffusers 0.41" in said
    assert "0.40.0" in said
    with pytest.raises(UserError, match=r"0\.41"):
        QwenImage21Editor(str(tmp_path)).load()


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_inference_steps": 4, "scheduler": "turbo"}, "num_inference_steps"),
        ({"scheduler": "lightning"}, "turbo"),
        ({"transparency": "drop"}, "transparency"),
        ({"profile": "fast"}, "profile"),
        ({"profile": "stock", "text_first": True}, "text_first"),
        ({"true_cfg_scale": 4, "negative_prompt": None}, "negative_prompt"),
        ({"dtype": "float32", "profile": "fp8"}, "dtype"),
        ({"keep_bf16": ["img_mlp.net.2"]}, "img_mlp.out"),
        ({"max_pixels": 1}, "max_pixels"),
        ({"max_pixels": 10**8}, "max_pixels"),
    ],
)
def test_wrong_parameters_name_themselves(params, named):
    with pytest.raises(UserError, match=named):
        QwenImage21Editor("x", **params)


def test_the_editor_tells_the_types_of_its_parameters():
    parameters = inspect.signature(QwenImage21Editor).parameters
    assert parameters["num_inference_steps"].annotation == int | None
    assert parameters["transparency"].annotation is str
    assert not any(isinstance(p.annotation, str) for p in parameters.values())


def test_memory_needed_at_full_size():
    sizes = {"transformer": 7_115_000_000, "text_encoder": 8_767_000_000, "vae": 338_000_000}
    folder = ModelFolder(Path("x"), "", {n: {"w": TensorInfo("BF16", (size,))} for n, size in sizes.items()})
    settings = QwenImage21Editor("x").settings
    asked, first, *_ = (way.needed for way in ways_to_fit(folder, settings, PROFILES["exact"]))
    assert 41 * 2**30 < asked < 48e9
    assert asked - first == 2 * sizes["text_encoder"]
    assert first > 25 * 2**30, "the transformer and its room to work"


@pytest.mark.parametrize(
    ("seen", "slots", "texts"),
    [("ttiitit", [2, 1], (2, 1, 1)), ("tiiii", [2, 2], (1, 0, 0)), ("ttt", [], (3,))],
)
def test_text_is_counted_between_sources_also_where_two_touch(seen, slots, texts):
    assert denoise.text_lengths([mark == "i" for mark in seen], slots) == texts


def test_a_sequence_is_text_and_images_in_turn():
    assert _segments((2, 0, 1), (4, 4, 8)) == [
        Segment(0, 2, True),
        Segment(2, 6, False),
        Segment(6, 10, False),
        Segment(10, 11, True),
        Segment(11, 19, False),
    ]


@pytest.mark.parametrize("fp8", [False, True])
def test_the_warm_up_runs_what_the_blocks_run(monkeypatch, fp8):
    for name, size in (("CHANNELS", 64), ("HEADS", 4), ("MIDDLE", 128)):
        monkeypatch.setattr(warm_up, name, size)
    warm_up.run_once("cpu", fp8, tokens=32, dtype="float32")


def test_floor_of_40_steps():
    """A step at a source of a megapixel is 57 TFLOP of linears and 18 of attention: 3.7 s at 805 TFLOP/s."""
    prefix, step = prefix_flops(40, [4096]), step_flops(4096 + 40, 4096)
    assert (step.linears, step.attention) == pytest.approx((57e12, 18e12), rel=0.02)
    floor = floor_seconds(prefix, {"bf16": 805e12}, False) + 40 * floor_seconds(step, {"bf16": 805e12}, False)
    assert floor == pytest.approx(3.8, abs=0.05)
    assert prefix.blocks == pytest.approx(step.blocks, rel=0.02)


def test_the_area_is_the_pipelines_own():
    sampling = QwenImage21Editor("x").settings.sampling_with(None)
    assert sampling.resolution == 1024
    assert sampling.pixels == math.prod((1024, 1024))
