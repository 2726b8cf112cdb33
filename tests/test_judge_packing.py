"""What prompts share goes through the judge once: counted, and with the same answers."""

import numpy as np
import pytest
import tiny_judge
import torch
from PIL import Image

from slurm_bench.scorers.judge import prompt
from slurm_bench.scorers.judge.prompt import Prompt
from slurm_bench.scorers.judge.rubric import load_rubrics
from slurm_bench.scorers.qwen3vl.model import Judge, distinct_images
from slurm_bench.scorers.qwen3vl.packing import LENGTH_STEP, pack
from slurm_bench.scorers.qwen3vl.random_weights import random_judge

ASPECTS = ["overall", "instruction", "preservation", "quality"]


def image(first, size):
    """Of `size` rows of features, from row `first` on."""
    return -1 - np.arange(first, first + size)


def text(*numbers):
    return np.array(numbers)


def runs_of(packing, prompts):
    """Each prompt's tokens, put together again from the segments on its way."""
    packed = np.concatenate(prompts)[packing.order]
    found = {}
    for segment in packing.segments:
        before = [packed[part] for part in segment.path]
        own = packed[segment.tokens].reshape(segment.rows, segment.width)
        for row, number in enumerate(segment.prompts):
            found[number] = np.concatenate([*before, own[row]])
    return [found[number] for number in range(len(prompts))]


def trees():
    rubric, questions = np.arange(100), [np.arange(500 + 50 * n, 530 + 50 * n) for n in range(4)]
    sources, edits = [image(1000 * n, 200) for n in range(3)], [image(1000 * n + 500, 150) for n in range(4)]
    yield "one prompt", [np.concatenate([rubric, sources[0], questions[0]])]
    yield "other images", [np.concatenate([rubric, sources[n], edits[n], questions[0]]) for n in range(3)]
    yield "aspects", [np.concatenate([rubric, sources[0], edits[0], question]) for question in questions]
    yield (
        "edits of one source, aspects of each",
        [np.concatenate([rubric, sources[0], edits[n % 2], questions[n // 2]]) for n in range(8 - 4)],
    )
    yield (
        "two samples, mixed",
        [np.concatenate([rubric, sources[n % 2], edits[n % 2], questions[n // 2]]) for n in range(6)],
    )
    yield "the same twice", [np.concatenate([rubric, sources[0], questions[0]])] * 2
    yield "nothing alike", [text(1, 2, 3), text(4, 5), np.concatenate([sources[0], text(7)])]
    yield "one begins another", [np.arange(70), np.arange(300), np.arange(200)]
    yield "a token each", [text(5), text(5), text(6)]


@pytest.mark.parametrize(("name", "prompts"), list(trees()), ids=[name for name, _ in trees()])
def test_each_prompt_follows_its_own_beginning(name, prompts):
    packing = pack(prompts)
    for tokens, run in zip(prompts, runs_of(packing, prompts), strict=True):
        assert (run[: len(tokens)] == tokens).all()
        assert (run[len(tokens) :] == tokens[-1]).all()
        assert len(run) % LENGTH_STEP == 0
    packed = np.concatenate(prompts)[packing.order]
    assert len(packed) == packing.segments[-1].tokens.stop == sum(one.rows * one.width for one in packing.segments)
    assert packed[list(packing.last)].tolist() == [tokens[-1] for tokens in prompts]
    assert len(set(packing.last)) == len(prompts)
    assert sorted(number for one in packing.segments for number in one.prompts) == list(range(len(prompts)))
    assert all(one.width for one in packing.segments)


def test_what_is_shared_is_packed_once():
    by_name = dict(trees())
    aspects = by_name["aspects"]
    assert len(pack(aspects).order) <= 1.4 * len(pack(aspects[:1]).order)
    family = by_name["edits of one source, aspects of each"]
    tokens = np.concatenate(family)[pack(family).order]
    assert (tokens == -1).sum() == 1, "the source"
    assert (tokens == -1 - 500).sum() == 1, "an edit"
    mixed = by_name["two samples, mixed"]
    assert len(pack(mixed).order) < 0.6 * sum(map(len, mixed))


def test_images_are_the_same_by_what_they_show():
    one, other = tiny_judge.picture(1), tiny_judge.picture(2)
    prompts = [Prompt("", (one, other)), Prompt("", (other, one.copy())), Prompt("", ()), Prompt("", (one.rotate(90),))]
    images, shown = distinct_images(prompts)
    assert shown == [[0, 1], [1, 0], [], [2]]
    assert images[:2] == [one, other]
    flat = [Image.new("RGB", size, "red") for size in ((64, 32), (32, 64))]
    assert len(distinct_images([Prompt("", tuple(flat))])[0]) == 2


def worked(judge):
    """How many tokens and patches went through the model, call by call."""
    counts, prefill = {"tokens": [], "patches": []}, judge.judge.prefill
    last_hidden = prefill.last_hidden

    def counted(tensors, packing, keep=None):
        counts["tokens"].append(len(tensors["tokens"]))
        counts["patches"].append(len(tensors["pixel_values"]))
        return last_hidden(tensors, packing, keep)

    prefill.last_hidden = counted
    return counts


def large(number=0, **changes):
    """Images as long as the texts, about: of real ones most tokens are."""
    return tiny_judge.request(
        number, sources=(tiny_judge.picture(50, 768, 768),), edited=tiny_judge.picture(60 + number, 768, 768), **changes
    )


def test_four_aspects_cost_little_more_than_one_at_full_size():
    """Counted in tokens: what a megapixel's images cost in the vision tower comes once, so time differs by less."""
    model, processor = random_judge("full", device="meta")
    judge = Judge(model, processor, 1 << 20, at_once=True)
    grids = torch.tensor([[1, 64, 64]] * 2)

    def tokens(aspects, samples):
        rubrics, asked = load_rubrics(), []
        for number in range(samples):
            asked += prompt.prompts(tiny_judge.request(number), rubrics, "expected", aspects).values()
        shown = [[2 * (place // len(aspects)), 2 * (place // len(aspects)) + 1] for place in range(len(asked))]
        tensors, packing = judge._packed(asked, {"image_grid_thw": grids.repeat(samples, 1)}, shown)
        assert min(packing.lengths) > 2048
        return len(tensors["tokens"]) / samples

    assert tokens(ASPECTS, 1) < 1.25 * tokens(["overall"], 1)
    assert tokens(ASPECTS, 2) < 1.35 * tokens(["overall"], 8)


@pytest.mark.parametrize("moe", [False, True], ids=["dense", "moe"])
def test_aspects_share_all_but_their_questions(moe):
    """Byte by byte, the tiny tokenizer's question of an aspect is long."""
    one, four = tiny_judge.scorer(moe), tiny_judge.scorer(moe, aspects=ASPECTS)
    of_one, of_four = worked(one), worked(four)
    (single,), (together,) = one.score([large()]), four.score([large()])
    assert sum(of_four["tokens"]) < 1.5 * sum(of_one["tokens"])
    assert of_four["patches"] == of_one["patches"]
    assert together.scores["overall"] == pytest.approx(single.scores["overall"], abs=1e-4)
    for aspect in ASPECTS[1:]:
        one.aspects = [aspect]
        (alone,) = one.score([large()])
        assert together.scores[aspect] == pytest.approx(alone.scores[aspect], abs=1e-4)


def test_edits_of_one_source_share_it():
    judge = tiny_judge.scorer(micro_batch=4)
    counts, requests = worked(judge), [large(0), large(1, category="physical"), large(2, category="physical")]
    together = judge.score(requests)
    patches = 768 * 768 // 16**2
    assert counts["patches"] == [(1 + 3) * patches]
    alone = [tiny_judge.scorer().score([request])[0].scores["overall"] for request in requests]
    assert [result.scores["overall"] for result in together] == pytest.approx(alone, abs=1e-4)
    assert len(set(alone)) == 3


def test_a_micro_batch_holds_a_sample_s_aspects_together():
    judge = tiny_judge.scorer(micro_batch=5, aspects=ASPECTS)
    counts = worked(judge)
    judge.score([tiny_judge.request(number) for number in range(3)])
    by_hand = [
        sum(image.width * image.height for image in (r.source, r.edited)) // 16**2
        for r in map(tiny_judge.request, range(3))
    ]
    assert sum(counts["patches"]) == sum(by_hand)


def test_as_many_samples_are_judged_at_once_whatever_their_aspects():
    for aspects in (["overall"], ASPECTS):
        judge = tiny_judge.scorer(aspects=aspects)
        counts = worked(judge)
        judge.score([tiny_judge.request(number) for number in range(9)])
        first = 2 // len(aspects) or 1  # the first few, so that the model can start soon
        assert len(counts["tokens"]) == 2, f"{first} and {9 - first} samples"


def test_a_judge_that_writes_shares_too():
    """And its cache holds each prompt whole."""
    judge = tiny_judge.scorer(mode="generate", max_new_tokens=8)
    prompts = [judge.questions(0, large(number, category="physical"))[0].prompt for number in (0, 1)]
    both = judge.judge.preprocess([*prompts, prompts[0]])
    assert len(both.packing.segments) > 2
    alone = [judge.judge.written(judge.judge.preprocess([prompt]), 8)[0] for prompt in prompts]
    assert judge.judge.written(both, 8) == [*alone, alone[0]]
    assert torch.equal(both.tensors["lengths"], torch.tensor(both.lengths))
