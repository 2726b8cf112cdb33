"""A judge whose weights are in 8 bits: what it takes, by how much it errs, where it can't be."""

import pytest
import tiny_judge
import torch
from torch import nn

from slurm_bench.checkpoints.folder import check_transformers_folder
from slurm_bench.checkpoints.safetensors_header import TensorInfo
from slurm_bench.errors import UserError
from slurm_bench.kernels.fp8 import WidenedLinear
from slurm_bench.machine import GIB, Gpu
from slurm_bench.scorers.qwen3vl.fit import is_narrow, needed_memory, prompts_at_once, reply_bytes, weight_bytes
from slurm_bench.scorers.qwen3vl.random_weights import random_judge
from slurm_bench.scorers.qwen3vl.scorer import Qwen3VLScorer


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
    narrow = {name for name, module in judge.judge.model.named_modules() if isinstance(module, WidenedLinear)}
    assert len(narrow) == 2 * 7
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
        prompts = prompts_at_once(weights, mode, "w8a16", card(15.9))
        assert prompts >= 2
        assert needed_memory(weights, mode, "w8a16", prompts) < 15.9 * GIB


def test_prompts_at_once_are_what_the_memory_allows():
    weights = 16 * GIB
    assert (
        prompts_at_once(weights, "generate", "exact", None)
        == prompts_at_once(weights, "generate", "exact", card(80))
        == 16
    )
    assert [prompts_at_once(weights, "expected", "exact", card(gib)) for gib in (24, 20.5, 12)] == [8, 4, 1]


def test_what_is_written_is_counted():
    """Of 8B in bfloat16 a token's keys and values take 144 KiB."""
    config = random_judge("full", device="meta")[0].config.to_dict()
    long = reply_bytes(config, "bfloat16", "generate", 1 << 16)
    assert long == 9 * GIB
    assert reply_bytes(config, "bfloat16", "expected", 1 << 16) == 0
    assert [prompts_at_once(16 * GIB, "generate", "exact", card(80), n * long // 16) for n in (0, 1, 16)] == [16, 16, 4]


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
    narrow = tiny_judge.scorer(profile="w8a16")
    together = [result.scores["overall"] for result in narrow.score(requests)]
    assert together == pytest.approx(exact, abs=1.0)
    assert together != exact
    assert [narrow.score([request])[0].scores["overall"] for request in requests] == pytest.approx(together, abs=1e-4)
    writing = tiny_judge.scorer(profile="w8a16", mode="generate", max_new_tokens=8, retries=0)
    assert all(result.raw for result in writing.score(requests))


def test_what_passes_through_the_host_s_memory_waits_for_its_turn():
    assert tiny_judge.scorer().streams()
    assert not tiny_judge.scorer(profile="w8a16").streams()


def test_a_mixture_of_experts_is_refused_in_8_bits():
    for started in (Qwen3VLScorer.check, Qwen3VLScorer.load):
        with pytest.raises(UserError, match=r"'params\.profile'.*w8a16.*dense"):
            started(Qwen3VLScorer(str(tiny_judge.checkpoint(True)), profile="w8a16", device="cpu"))
    with pytest.raises(UserError, match=r"'params\.profile' is 'int4'; it is one of exact, w8a16"):
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
