"""What a profile may touch, few-step LoRAs, skipped steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_qwen_editor import decoded, latents_of
from tiny_models import SMALL, noise_image, request, save_tiny_qwen_edit, shrink_megapixel, tiny_editor

from slurm_bench.editors.qwen import QwenImageEditor, base_editor
from slurm_bench.editors.qwen.family import QWEN_IMAGE_EDIT
from slurm_bench.editors.qwen.fit import ways_to_fit
from slurm_bench.editors.qwen.narrow import bring
from slurm_bench.editors.qwen.profiles import (
    CACHE_DEFAULTS,
    PROFILES,
    check_capability,
    check_fp8,
    profile_named,
)
from slurm_bench.editors.qwen.random_weights import random_pipeline
from slurm_bench.editors.qwen.schedule import even_sigmas, set_timesteps
from slurm_bench.editors.qwen.session import Session
from slurm_bench.editors.qwen.transformer import MAX_TABLES, ExactTransformer
from slurm_bench.editors.qwen.waiting import Waiting
from slurm_bench.errors import UserError
from slurm_bench.kernels import ops
from slurm_bench.kernels.fp8 import Fp8Linear, OutlierLinear, WidenedLinear
from slurm_bench.kernels.fp8_support import FP8_CAPABILITY
from slurm_bench.machine import Gpu

torch.set_num_threads(1)  # more only get in each other's way at this size
HAS_FP8 = torch.cuda.is_available() and torch.cuda.get_device_capability() >= FP8_CAPABILITY


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    shrink_megapixel(monkeypatch)


def test_fp8_keeps_what_steers_in_bf16():
    in_fp8 = QWEN_IMAGE_EDIT.narrowable.has
    linears = {
        name for name, module in random_pipeline().transformer.named_modules() if isinstance(module, torch.nn.Linear)
    }
    safe = {name for name in linears if in_fp8(name)}
    kept = linears - safe
    assert len(safe) == 2 * 12  # a block's eight around the attention and the MLPs' four
    assert {name.split(".")[0] for name in safe} == {"transformer_blocks"}
    for part in (
        "img_mod",
        "txt_mod",
        "img_in",
        "txt_in",
        "time_text_embed",
        "norm_out",
        "proj_out",
    ):
        assert any(part in name for name in kept), part
        assert not any(part in name for name in safe), part
    assert safe - {name for name in linears if in_fp8(name, ["img_mlp.net.2"])} == {
        f"transformer_blocks.{block}.img_mlp.net.2" for block in (0, 1)
    }
    assert not any(in_fp8(f"transformer_blocks.0.attn.to_{part}", ["attn.to_k"]) for part in "qkv")


@pytest.mark.parametrize("keep", ["img_mlp.net.2", None, ["img_mlp.net2"], [""], ["proj_out"]])
def test_what_would_keep_nothing_in_bf16_is_refused(keep):
    with pytest.raises(UserError, match="img_mlp"):
        QwenImageEditor("x", keep_bf16=keep)
    QwenImageEditor("x", keep_bf16=["net.2", "transformer_blocks.59.attn.to_out.0", "7.attn.to_q"])


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_every_profile_edits_near_to_the_pipelines_own(profile):
    """Those that claim to be exact agree with stock but for rounding; the others don't, but not by much. Profiles in 8
    bits run by the formulas in which a CPU can compute them."""
    if profile.cache:
        pytest.importorskip("cache_dit", reason="the extra 'fast' is not installed")
    made = QwenImageEditor("x", num_inference_steps=10, max_pixels=SMALL).settings
    latents = {}
    for each in (PROFILES["stock"], profile):
        session = Session(random_pipeline(), each, made, "cpu", None)
        with decoded(session.pipeline) as latents[each.name]:
            result = session.edit(request())
        assert result.image.size == (result.size.width, result.size.height)
        assert session.runner.attention
    distance = (latents["stock"][0] - latents[profile.name][0]).abs()
    if profile.approximate:
        assert 1e-4 < distance.max() < 1
    else:
        assert distance.max() < 1e-4


def test_blocks_compute_the_same_however_they_are_called():
    """As a caching library calls them, too: of a model that modulates noise and sources apart."""
    made = [tiny_editor(random_pipeline(plus=True, zero_cond_t=True)) for _ in range(2)]
    runner = made[1]._session.runner
    runner.transformer = ExactTransformer(runner.transformer.source, uniform=True)
    one, other = (latents_of(editor, request())[0] for editor in made)
    assert (one - other).abs().max() < 1e-4


def test_each_device_has_one_default_profile():
    for device in ("cpu", "cuda"):
        assert sum(profile.default_on == device for profile in PROFILES.values()) == 1


def test_profiles_ask_for_what_they_need(monkeypatch):
    assert profile_named(None, cuda=True).name == "exact"
    assert profile_named(None, cuda=False).name == "stock"
    with pytest.raises(UserError, match="exact"):
        QwenImageEditor("x", profile="exakt")
    with pytest.raises(UserError, match="Hopper"):
        check_capability(profile_named("fp8", True), Gpu("A100", 80 * 2**30, (8, 0)))
    for capability in ((8, 9), (9, 0), (12, 0), (0, 0)):
        check_capability(profile_named("fp8", True), Gpu("a GPU", 80 * 2**30, capability))
    check_capability(profile_named("exact", True), Gpu("A100", 80 * 2**30, (8, 0)))
    with pytest.raises(UserError, match="not cpu"):
        check_fp8(profile_named("fp8", True), "cpu")
    monkeypatch.setattr("slurm_bench.editors.qwen.profiles.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install cache-dit"):
        QwenImageEditor("x", profile="fast").check()


@pytest.mark.skipif(not HAS_FP8, reason="this GPU has no fp8 matrix products")
def test_fp8_is_near_exact_on_the_gpu():
    exact, fp8 = (
        latents_of(
            tiny_editor(
                random_pipeline(device="cuda", dtype="bfloat16"),
                dtype="bfloat16",
                profile=profile,
                device="cuda",
            ),
            request(),
        )[0].float()
        for profile in ("exact", "fp8")
    )
    assert (exact - fp8).norm() / exact.norm() < 0.1


def session_in_8_bits(**params):
    """The profile fp8, by the formulas in which a CPU can compute it."""
    made = QwenImageEditor("x", **{"num_inference_steps": 2, "max_pixels": SMALL, **params}).settings
    return Session(random_pipeline(), PROFILES["fp8"], made, "cpu", None)


def in_8_bits(lora=None, **params):
    session = session_in_8_bits(lora=lora, **params)
    return session, np.asarray(session.edit(request()).image, dtype=float)


@pytest.mark.parametrize(("keep", "kept"), [(["img_mlp.net.2"], 1), ([], 0), (["attn.to_k", "txt_mlp.net.0.proj"], 4)])
def test_8_bits_are_near_exact_whatever_stays_in_bf16(keep, kept):
    exact = np.asarray(tiny_editor(profile="exact").edit([request()])[0].image, dtype=float)
    session, image = in_8_bits(keep_bf16=keep)
    linears = [module for module in session.pipeline.transformer.modules() if isinstance(module, Fp8Linear)]
    assert len(linears) == 2 * (12 - kept)
    assert 0 < np.abs(image - exact).mean() < 2


def quantized(session, monkeypatch):
    """How often an edit brings rows into 8 bits besides those with outliers."""
    quantize, calls = ops.quantize, []
    monkeypatch.setattr(ops, "quantize", lambda *given, **further: calls.append(given) or quantize(*given, **further))
    session.edit(request())
    return len(calls)


def test_nothing_is_brought_into_8_bits_twice_or_for_nobody(monkeypatch):
    """A step: in the first block what attention and MLP read, and within the text's MLP; in the last, of the text only
    keys and values."""
    assert quantized(session_in_8_bits(true_cfg_scale=1), monkeypatch) == 2 * (7 + 4)


def test_an_image_in_8_bits_does_not_depend_on_the_one_before():
    alone, after_another = session_in_8_bits(), session_in_8_bits()
    assert any(isinstance(module, OutlierLinear) for module in alone.pipeline.transformer.modules())
    with decoded(alone.pipeline) as expected:
        alone.edit(request())
    after_another.edit(request("something else", seed=9, images=(noise_image(seed=5),)))
    with decoded(after_another.pipeline) as found:
        after_another.edit(request())
    assert torch.equal(found[0], expected[0])


def test_a_few_step_lora_is_in_the_8_bit_weights(tmp_path):
    lora = str(tiny_lora(tmp_path / "four_steps.safetensors", scale=2.0))
    few_steps = {"true_cfg_scale": 1, "num_inference_steps": 4, "scheduler": "lightning"}
    exact = np.asarray(tiny_editor(profile="exact", lora=lora, **few_steps).edit([request()])[0].image, dtype=float)
    _, image = in_8_bits(lora, **few_steps)
    _, without = in_8_bits(**few_steps)
    assert 3 * np.abs(image - exact).mean() < np.abs(without - exact).mean()


def test_a_few_step_lora_is_computed_whole_in_fast(tmp_path):
    pytest.importorskip("cache_dit", reason="the extra 'fast' is not installed")
    lora = str(tiny_lora(tmp_path / "four_steps.safetensors", scale=2.0))
    few_steps = {"true_cfg_scale": 1, "num_inference_steps": 4, "scheduler": "lightning", "lora": lora}
    made = QwenImageEditor("x", max_pixels=SMALL, **few_steps).settings
    outcome = Session(random_pipeline(), PROFILES["fast"], made, "cpu", None).edit(request())
    assert outcome.cache_skips == {"prompt": 0, "negative": 0}
    assert np.array_equal(np.asarray(outcome.image, dtype=float), in_8_bits(**few_steps)[1])


def tiny_lora(path, scale=0.5):
    """A LoRA on attention and MLP of both blocks, as diffusers names its weights."""
    generator = torch.Generator().manual_seed(1)
    transformer = random_pipeline().transformer
    weights = {}
    for name, module in transformer.named_modules():
        if name.endswith(("attn.to_q", "attn.to_out.0", "img_mlp.net.0.proj")):
            down, up = (4, module.in_features), (module.out_features, 4)
            weights[f"transformer.{name}.lora_A.weight"] = scale * torch.randn(down, generator=generator)
            weights[f"transformer.{name}.lora_B.weight"] = scale * torch.randn(up, generator=generator)
    save_file(weights, path)
    return path


def test_lora_fused_is_lora_beside(tmp_path):
    path = tiny_lora(tmp_path / "four_steps.safetensors")
    few_steps = {"true_cfg_scale": 1, "num_inference_steps": 4, "scheduler": "lightning"}
    results = {
        (profile, scale): latents_of(
            tiny_editor(profile=profile, lora={"path": str(path), "scale": scale}, **few_steps), request()
        )[0]
        for profile in ("stock", "exact")
        for scale in (1.0, 0.25)
    }
    without = latents_of(tiny_editor(**few_steps), request())[0]
    for scale in (1.0, 0.25):
        assert (results["stock", scale] - results["exact", scale]).abs().max() < 1e-4
    assert (results["exact", 1.0] - results["exact", 0.25]).abs().max() > 1e-3
    assert (results["exact", 1.0] - without).abs().max() > 1e-3


@pytest.mark.parametrize("profile", ["exact", "w8a16"])
def test_what_is_spared_for_a_small_gpu_changes_no_image(tmp_path, monkeypatch, profile):
    """The transformer waits on the host and is brought layer by layer, with its LoRA in; prompts are encoded first."""
    folder, lora = save_tiny_qwen_edit(tmp_path / "model"), str(tiny_lora(tmp_path / "lora.safetensors"))
    params = {"dtype": "float32", "num_inference_steps": 2, "max_pixels": SMALL, "profile": profile, "lora": lora}
    ample, small = (QwenImageEditor(str(folder), **params) for _ in range(2))
    _, _, leanest, *_ = ways_to_fit(small._find(), small.settings, PROFILES[profile])
    images = []
    for editor, way in ((ample, None), (small, leanest)):
        if way:
            monkeypatch.setattr(base_editor, "choose_fit", lambda *_, way=way: way)
        editor.load()
        editor.prepare(iter([request()]))
        (edited,) = editor.edit([request()])
        images.append(np.asarray(edited.image))
    assert np.array_equal(*images)
    assert edited.info["savings"] == ["text_first", "offload_modulation"]
    assert small._session.pipeline.text_encoder is None
    narrow = [m for m in small._session.pipeline.transformer.modules() if isinstance(m, WidenedLinear)]
    assert len(narrow) == (24 if profile == "w8a16" else 0)


def test_parts_that_wait_on_the_host_are_left_there():
    model = torch.nn.ModuleDict({"here": torch.nn.Linear(2, 2), "img_mod": torch.nn.Linear(2, 2)})
    bring(model, "meta", Waiting(parts=frozenset({"img_mod"})))
    assert {name: p.device.type for name, p in model.named_parameters()} == {
        "here.weight": "meta",
        "here.bias": "meta",
        "img_mod.weight": "cpu",
        "img_mod.bias": "cpu",
    }


def test_several_loras_add_up(tmp_path):
    path = str(tiny_lora(tmp_path / "a.safetensors"))
    once = latents_of(tiny_editor(lora={"path": path, "scale": 0.5}), request())[0]
    twice = latents_of(tiny_editor(lora=[{"path": path, "scale": 0.25}] * 2), request())[0]
    assert (once - twice).abs().max() < 1e-4


def test_lightning_schedule():
    editor = tiny_editor(scheduler="lightning", num_inference_steps=4, true_cfg_scale=1)
    scheduler = editor._session.pipeline.scheduler
    for tokens in (1024, 4096):
        sigmas = set_timesteps(scheduler, even_sigmas(4), tokens, torch.device("cpu")) / 1000
        linear = [1.0, 0.75, 0.5, 0.25]
        assert sigmas.tolist() == pytest.approx([3 * s / (1 + 2 * s) for s in linear], abs=1e-6)
    assert scheduler.config.base_shift == math.log(3)
    editor._session.change_settings(scheduler=None)
    assert editor._session.pipeline.scheduler.config == random_pipeline().scheduler.config


def test_modulation_of_the_latest_schedules_alone_is_kept():
    exact = ExactTransformer(random_pipeline().transformer)
    schedules = [torch.tensor([1 / number]) for number in range(1, MAX_TABLES + 3)]
    first, *_ = tables = [exact.modulation(each) for each in schedules]
    assert [exact.modulation(each) for each in schedules[2:]] == tables[2:]
    assert len(exact._modulations) == MAX_TABLES
    for latest in (schedules[2], torch.tensor([0.3]), schedules[2]):
        found = exact.modulation(latest)
    assert found is tables[2], "of those that are used"
    assert exact.modulation(schedules[0]) is not first


def test_wrong_scheduler_and_lora_fields():
    with pytest.raises(UserError, match="basis_shift"):
        tiny_editor(scheduler={"basis_shift": 1})
    with pytest.raises(UserError, match="lightning"):
        QwenImageEditor("x", scheduler="lighting")
    with pytest.raises(UserError, match="lora"):
        QwenImageEditor("x", lora={"file": "x"})


@pytest.mark.parametrize(("steps", "computed"), [(50, 20), (3, 3)])
def test_which_steps_are_skipped_is_known_beforehand(steps, computed):
    pytest.importorskip("cache_dit", reason="the extra 'fast' is not installed")
    made = QwenImageEditor("x", num_inference_steps=steps, max_pixels=SMALL).settings
    session = Session(random_pipeline(), PROFILES["fast"], made, "cpu", None)
    skipped = steps - computed
    assert session.edit(request()).cache_skips == {"prompt": skipped, "negative": skipped}


@pytest.mark.parametrize("scale", [4.0, 1.0])
def test_cache_skips_are_counted_and_never_leak(scale):
    pytest.importorskip("cache_dit", reason="the extra 'fast' is not installed")
    from slurm_bench.editors.qwen.cache import StepCache

    def cached_editor():
        editor = tiny_editor(num_inference_steps=12, true_cfg_scale=scale)
        runner = editor._session.runner
        runner.transformer = ExactTransformer(runner.transformer.source, uniform=True)
        options = {**CACHE_DEFAULTS, "residual_diff_threshold": 0.5}
        runner.cache = StepCache(runner.transformer, 12, scale > 1, options)
        return editor

    editor = cached_editor()
    edited = editor.edit([request()])[0]
    skips = edited.info["cache_skips"]
    assert skips["prompt"] > 0
    assert (skips["negative"] > 0) == (scale > 1)
    exact = latents_of(tiny_editor(num_inference_steps=12, true_cfg_scale=scale), request())[0]
    alone = latents_of(cached_editor(), request())[0]
    after_others = latents_of(editor, request("something else", seed=9), request())[1]
    assert torch.equal(alone, after_others)
    assert not torch.equal(alone, exact)
