import numpy as np
import pytest
import tiny_judge
import torch

from slurm_bench.scorers.judge import prompt
from slurm_bench.scorers.judge.parse import Reply, scored
from slurm_bench.scorers.judge.rubric import load_rubrics
from slurm_bench.scorers.qwen3vl.model import Inputs
from slurm_bench.scorers.qwen3vl.packing import pack


def test_the_first_reply_is_greedy_whatever_the_checkpoint_says():
    from transformers import AutoModelForImageTextToText

    request, judge = tiny_judge.request(1), tiny_judge.scorer(mode="generate", max_new_tokens=8, retries=0)
    (result,) = judge.score([request])

    model = AutoModelForImageTextToText.from_pretrained(
        tiny_judge.checkpoint(), dtype=torch.float32, attn_implementation="eager"
    )
    assert model.generation_config.do_sample
    processor, inputs = tiny_judge.inputs_by_hand(request, prompt.in_json(load_rubrics(), ["overall"]))
    start = inputs["input_ids"].shape[1]
    with torch.no_grad():
        for _ in range(8):
            best = model(**inputs).logits[:, -1:].argmax(-1)
            inputs["input_ids"] = torch.cat([inputs["input_ids"], best], 1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            inputs["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, 1))
    written = inputs["input_ids"][0, start:].tolist()
    end = processor.tokenizer.eos_token_id
    written = written[: written.index(end)] if end in written else written
    assert result.raw == processor.tokenizer.decode(written, skip_special_tokens=True)


def test_what_cannot_be_parsed_is_a_failure_with_the_raw_text():
    result, _ = judged("seven", "no", "eight")
    assert result.scores == {}
    assert result.parse != "ok"
    assert result.raw == "eight"
    assert result.info["judge_retries"] == 2


def test_a_reply_that_was_cut_says_so_and_is_not_asked_for_again():
    """These random weights don't end a reply within eight tokens."""
    judge = tiny_judge.scorer(mode="generate", max_new_tokens=8, retries=2)
    (result,) = judge.score([tiny_judge.request(0)])
    assert result.scores == {}
    assert result.raw
    assert "max_new_tokens is 8" in result.parse
    assert "judge_retries" not in result.info


def ends_soon(judge):
    """Random weights hardly ever end a reply; here every tenth token is an end."""
    judge.judge.end_ids = set(range(0, len(judge.judge.processor.tokenizer), 10))


@pytest.mark.parametrize("text", ["It fell.", 'It may be {"overall": 9}', 'No. </think>\n{"overall": 4}'])
def test_a_template_that_opens_the_thinking_leaves_only_the_answer_to_be_read(text):
    judge = tiny_judge.scorer(mode="generate", max_new_tokens=40, thinking=True)
    assert judge.judge.thinks
    judge.judge.processor.tokenizer.batch_decode = lambda written, **_: [text]
    ends_soon(judge)
    inputs = judge.judge.preprocess([judge.questions(0, tiny_judge.request(0))[0].prompt])
    result = scored(judge.judge.generate(inputs, 40)[0], ["overall"])
    assert result.scores == ({"overall": 4.0} if "</think>" in text else {})


def test_a_reply_depends_on_the_sample_alone():
    judge = tiny_judge.scorer(mode="generate", max_new_tokens=40, retries=1, micro_batch=3)
    ends_soon(judge)
    requests = [tiny_judge.request(number) for number in range(3)]
    together = [result.raw for result in judge.score(requests)]
    torch.manual_seed(7)
    alone = [judge.score([request])[0].raw for request in reversed(requests)][::-1]
    assert together == alone
    other = judge.score([tiny_judge.request(0, seed=999)])[0].raw
    assert other != together[0]


def test_a_draw_of_the_judge_leaves_the_process_s_own_draws_alone():
    judge = tiny_judge.scorer(mode="generate", max_new_tokens=40, retries=1)
    ends_soon(judge)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    judge.score([tiny_judge.request(0)])
    assert torch.equal(before, torch.get_rng_state())


class Scripted:
    """Says the replies given, one a call for each sample, and keeps how it was asked."""

    def __init__(self, *replies):
        self.replies, self.calls = list(replies), []

    def preprocess(self, prompts):
        return Inputs({}, pack([np.arange(2)] * len(prompts)))

    def generate(self, inputs, max_new_tokens, temperature=0.0, seed=None):
        self.calls.append((temperature, seed))
        return [Reply(self.replies.pop(0)) for _ in inputs.lengths]


def judged(*replies, retries=2):
    judge = tiny_judge.scorer(mode="generate", retries=retries)
    judge.judge = Scripted(*replies)
    return judge.score([tiny_judge.request(0)])[0], judge.judge.calls


def test_a_retry_is_sampled_with_another_seed_each_time():
    result, calls = judged("no", '{"overall": 11}', '{"overall": 4}')
    assert result.scores == {"overall": 4.0}
    assert result.parse == "ok"
    assert result.info["judge_retries"] == 2
    assert calls == [(0.0, None), (0.7, 101), (0.7, 102)]


def test_a_first_reply_that_parses_is_not_asked_again():
    result, calls = judged('It fell. {"overall": 8}')
    assert result.scores == {"overall": 8.0}
    assert result.raw == 'It fell. {"overall": 8}'
    assert calls == [(0.0, None)]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_after_the_last_retry_there_is_no_number(retries):
    result, calls = judged(*["seven"] * 10, retries=retries)
    assert result.scores == {}
    assert result.raw == "seven"
    assert result.parse != "ok"
    assert len(calls) == 1 + retries


def test_only_the_samples_that_failed_are_asked_again():
    judge = tiny_judge.scorer(mode="generate")
    judge.judge = Scripted('{"overall": 1}', "no", '{"overall": 3}', '{"overall": 2}')
    results = judge.score([tiny_judge.request(0)] * 3)
    assert [result.scores["overall"] for result in results] == [1.0, 2.0, 3.0]
    assert len(judge.judge.calls) == 2


def test_several_aspects_come_from_one_reply():
    judge = tiny_judge.scorer(mode="generate", aspects=["overall", "quality"])
    judge.judge = Scripted('{"overall": 1, "quality": 2}')
    (result,) = judge.score([tiny_judge.request(0)])
    assert result.scores == {"overall": 1.0, "quality": 2.0}
