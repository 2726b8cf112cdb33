"""A judge whose weights are in 8 bits: what it takes, by how much it errs, where it can't be."""

import pytest
import tiny_judge
import torch
from torch import nn

from slurm_bench.checkpoints.folder import check_transformers_folder
from slurm_bench.checkpoints.safetensors_header import TensorInfo
from slurm_bench.errors import UserError
from slurm_bench.kernels.fp8 import Fp8Linear, WidenedLinear
from slurm_bench.kernels.fp8_support import FP8_CAPABILITY
from slurm_bench.machine import GIB, Gpu
from slurm_bench.scorers.qwen3vl.fit import (
    is_narrow,
    narrow,
    needed_memory,
    reply_bytes,
    sample_bytes,
    samples_at_once,
    weight_bytes,
)
from slurm_bench.scorers.qwen3vl.random_weights import random_judge
from slurm_bench.scorers.qwen3vl.scorer import Qwen3VLScorer

HAS_FP8 = torch.cuda.is_available() and torch.cuda.get_device_capability() >= FP8_CAPABILITY


def card(gib):
    return Gpu("a card", int(gib * GIB), (8, 6))


def full_size(moe=False):
    model, _ = random_judge("full", moe=moe, device="meta")
    return {name: TensorInfo("BF16", tuple(tensor.shape)) for name, tensor in model.named_parameters()}


def last_hidden(judge, requests):
    prompts = [judge.questions(0, request)[0].prompt for request in requests]
    inputs = judge.judge.preprocess(prompts)
    with torch.inference_mode():
        return judge.judge.prefill.last_hidden(inputs.tensors, inputs.packing).float()


def test_all_of_the_layers_and_nothing_else_is_narrow():
    judge = tiny_judge.scorer(profile="w8a16")
    found = {name for name, module in judge.judge.model.named_modules() if isinstance(module, WidenedLinear)}
    assert len(found) == 2 * 7
    kept = {name for name, module in judge.judge.model.named_modules() if isinstance(module, nn.Linear)}
    assert "lm_head" in kept
    assert all(name == "lm_head" or ".visual." in name for name in kept)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_check_counts_what_is_loaded(dtype):
    judge = tiny_judge.scorer(profile="w8a16", dtype=dtype)
    tensors = check_transformers_folder(tiny_judge.checkpoint()).tensors[""]
    loaded = sum(weight.nbytes for weight in judge.judge.model.parameters())
    scales = 0
    for module in judge.judge.model.modules():
        if isinstance(module, WidenedLinear):
            loaded, scales = loaded + module.weight.nbytes, scales + module.scale.nbytes
    assert weight_bytes(tensors, dtype, "w8a16") == loaded
    assert scales == 4 * sum(info.shape[0] for name, info in tensors.items() if is_narrow(name.removesuffix(".weight")))


def test_a_judge_of_8b_works_under_16_gib():
    tensors = full_size()
    weights = weight_bytes(tensors, "bfloat16", "w8a16")
    assert weights < 10.1 * GIB
    assert weight_bytes(tensors, "bfloat16", "exact") > 16 * GIB
    for mode in ("expected", "generate"):
        each = sample_bytes(mode)
        samples = samples_at_once(weights, mode, "w8a16", card(15.9), each)
        assert samples >= 2
        assert needed_memory(weights, "w8a16", samples, each) < 15.9 * GIB


def test_samples_at_once_are_what_the_memory_allows():
    def at_once(gib, mode="expected", **takes):
        return samples_at_once(16 * GIB, mode, "exact", gib and card(gib), sample_bytes(mode, **takes))

    assert at_once(None, "generate") == at_once(80, "generate") == 16
    assert [at_once(gib) for gib in (24, 20.5, 12)] == [8, 4, 1]
    assert [at_once(gib, prompts=4) for gib in (80, 24, 20.5)] == [8, 4, 2]


def test_what_is_written_is_counted():
    """Of 8B in bfloat16 a token's keys and values take 144 KiB."""
    config = random_judge("full", device="meta")[0].config.to_dict()
    long = reply_bytes(config, "bfloat16", "generate", 1 << 16)
    assert long == 9 * GIB
    assert reply_bytes(config, "bfloat16", "expected", 1 << 16) == 0
    of = [sample_bytes("generate", reply=n * long // 16) for n in (0, 1, 16)]
    assert [samples_at_once(16 * GIB, "generate", "exact", card(80), each) for each in of] == [16, 16, 4]


def test_a_card_too_small_for_long_replies_is_told_so(monkeypatch):
    monkeypatch.setattr("slurm_bench.scorers.qwen3vl.scorer.visible_gpu", lambda: card(4))
    monkeypatch.setattr("slurm_bench.scorers.qwen3vl.scorer.reply_bytes", lambda *asked: 2 * GIB)
    with pytest.raises(UserError, match=r"or fewer params\.max_new_tokens"):
        Qwen3VLScorer(str(tiny_judge.checkpoint()), mode="generate").check()


def test_its_error_is_that_of_its_weights():
    """In the measure of the editors' bench, ‖v − v₃₂‖ / ‖v₃₂‖, of what meets the vocabulary."""
    requests = [tiny_judge.request(number) for number in range(3)]
    exact = last_hidden(tiny_judge.scorer(), requests)
    errors = {}
    for name, params in {
        "bfloat16": {"dtype": "bfloat16"},
        "w8a16 in float32": {"profile": "w8a16"},
        "w8a16": {"profile": "w8a16", "dtype": "bfloat16"},
    }.items():
        found = last_hidden(tiny_judge.scorer(**params), requests)
        errors[name] = ((found - exact).norm() / exact.norm()).item()
    assert errors["bfloat16"] < errors["w8a16 in float32"] < 0.15, errors
    assert errors["w8a16"] < 0.15, errors


def test_it_scores_and_writes():
    requests = [tiny_judge.request(number) for number in range(3)]
    exact = [result.scores["overall"] for result in tiny_judge.scorer().score(requests)]
    judge = tiny_judge.scorer(profile="w8a16")
    together = [result.scores["overall"] for result in judge.score(requests)]
    assert together == pytest.approx(exact, abs=1.0)
    assert together != exact
    assert [judge.score([request])[0].scores["overall"] for request in requests] == pytest.approx(together, abs=1e-4)
    writing = tiny_judge.scorer(profile="w8a16", mode="generate", max_new_tokens=8, retries=0)
    assert all(result.raw for result in writing.score(requests))


def test_computing_in_8_bits_errs_by_little_more_than_weights_in_them():
    """By the formulas, in float32; on a GPU below."""
    requests = [tiny_judge.request(number) for number in range(3)]
    exact = last_hidden(tiny_judge.scorer(), requests)
    narrow_weights = last_hidden(tiny_judge.scorer(profile="w8a16"), requests)
    judge = tiny_judge.scorer()
    narrow(judge.judge.model, "fp8", "cpu")
    assert len([m for m in judge.judge.model.modules() if isinstance(m, Fp8Linear)]) == 2 * 7
    found = last_hidden(judge, requests)
    errors = [((each - exact).norm() / exact.norm()).item() for each in (narrow_weights, found)]
    assert 0 < errors[0] < errors[1] < 0.2, errors
    together = [result.scores["overall"] for result in judge.score(requests)]
    alone = [judge.score([request])[0].scores["overall"] for request in requests]
    assert alone == pytest.approx(together, abs=1e-4), "a token's scale is its own, whatever stands beside it"
    writing = tiny_judge.scorer(mode="generate", max_new_tokens=8, retries=0)
    narrow(writing.judge.model, "fp8", "cpu")
    assert all(result.raw for result in writing.score(requests))


@pytest.mark.skipif(not HAS_FP8, reason="no GPU with fp8 matrix products")
def test_a_gpu_computes_in_8_bits():
    requests = [tiny_judge.request(number) for number in range(3)]
    exact = last_hidden(tiny_judge.scorer(), requests)
    params = {"dtype": "bfloat16", "device": "cuda"}
    errors = {}
    for profile in ("exact", "fp8"):
        found = last_hidden(tiny_judge.scorer(profile=profile, **params), requests).cpu()
        errors[profile] = ((found - exact).norm() / exact.norm()).item()
    assert errors["exact"] < errors["fp8"] < 0.25, errors
    writing = tiny_judge.scorer(profile="fp8", mode="generate", max_new_tokens=8, retries=0, **params)
    assert all(result.raw for result in writing.score(requests))
    assert writing.judge.decoder.use_graphs, "its step is captured as another's is"
    assert tiny_judge.scorer(profile="fp8", **params).streams()


def test_8_bits_are_refused_where_there_are_none(monkeypatch):
    folder = str(tiny_judge.checkpoint())
    with pytest.raises(UserError, match=r"'params\.profile': fp8 computes in bfloat16"):
        Qwen3VLScorer(folder, profile="fp8", dtype="float16")
    with pytest.raises(UserError, match=r"'params\.profile': fp8 needs a GPU.*not cpu"):
        Qwen3VLScorer(folder, profile="fp8", device="cpu").check()
    monkeypatch.setattr("slurm_bench.scorers.qwen3vl.scorer.visible_gpu", lambda: Gpu("A100", 80 * GIB, (8, 0)))
    with pytest.raises(UserError, match=r"'params\.profile': fp8 needs.*A100 has 8\.0; use profile=exact"):
        Qwen3VLScorer(folder, profile="fp8").check()
    Qwen3VLScorer(folder, profile="w8a16").check()


def test_what_passes_through_the_host_s_memory_waits_for_its_turn():
    assert tiny_judge.scorer().streams()
    assert not tiny_judge.scorer(profile="w8a16").streams()


def test_a_mixture_of_experts_is_refused_in_8_bits():
    for started in (Qwen3VLScorer.check, Qwen3VLScorer.load):
        with pytest.raises(UserError, match=r"'params\.profile'.*w8a16.*dense"):
            started(Qwen3VLScorer(str(tiny_judge.checkpoint(True)), profile="w8a16", device="cpu"))
    with pytest.raises(UserError, match=r"'params\.profile' is 'int4'; it is one of exact, fp8, w8a16"):
        Qwen3VLScorer("owner/name", profile="int4")


def test_a_card_that_is_too_small_is_told_of_the_8_bits(monkeypatch):
    monkeypatch.setattr("slurm_bench.scorers.qwen3vl.scorer.visible_gpu", lambda: card(2))

    def said(**params):
        with pytest.raises(UserError) as refused:
            Qwen3VLScorer(str(tiny_judge.checkpoint(params.pop("moe", False))), **params).check()
        return str(refused.value)

    assert said().endswith("take a smaller judge, or params.profile=w8a16")
    assert said(profile="w8a16").endswith("take a smaller judge")
    assert said(moe=True).endswith("take a smaller judge")
